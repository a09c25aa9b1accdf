package simulation

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"google.golang.org/grpc/test/bufconn"
)

// network is a few hosts in memory. Its links can be cut, and can fall silent.
type network struct {
	mu    sync.Mutex
	hosts map[string]*bufconn.Listener
	down  map[string]bool // hosts that cannot be dialled
	links map[*link]struct{}
}

func newNetwork() *network {
	return &network{hosts: map[string]*bufconn.Listener{}, down: map[string]bool{}, links: map[*link]struct{}{}}
}

// listen makes a host reachable. Closing the listener takes it away.
func (n *network) listen(address string) net.Listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	lis := bufconn.Listen(64 << 10)
	n.hosts[address] = lis
	return lis
}

// dial connects to a host.
func (n *network) dial(ctx context.Context, address string) (net.Conn, error) {
	n.mu.Lock()
	lis, down := n.hosts[address], n.down[address]
	n.mu.Unlock()
	if lis == nil || down {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	}
	conn, err := lis.DialContext(ctx)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
	l := &link{Conn: conn, network: n, address: address, gate: make(chan struct{}), closed: make(chan struct{})}
	close(l.gate)
	n.mu.Lock()
	n.links[l] = struct{}{}
	n.mu.Unlock()
	return l, nil
}

// dialTCP is dial with the signature of a [net.Dialer]'s.
func (n *network) dialTCP(ctx context.Context, _, address string) (net.Conn, error) {
	return n.dial(ctx, address)
}

// refuse makes a host refuse new connections, or not.
func (n *network) refuse(address string, down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down[address] = down
}

// reset closes every connection to a host.
func (n *network) reset(address string) {
	for _, l := range n.to(address) {
		_ = l.Close()
	}
}

// silence makes every connection to a host stall in both directions.
func (n *network) silence(address string) {
	for _, l := range n.to(address) {
		l.stall()
	}
}

func (n *network) to(address string) []*link {
	n.mu.Lock()
	defer n.mu.Unlock()
	var to []*link
	for l := range n.links {
		if l.address == address {
			to = append(to, l)
		}
	}
	return to
}

// link is the dialling side of one connection.
type link struct {
	net.Conn
	network *network
	address string

	mu        sync.Mutex
	gate      chan struct{} // closed while the link works
	closed    chan struct{}
	closeOnce sync.Once
}

func (l *link) stall() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gate = make(chan struct{})
}

// pass waits until the link works.
func (l *link) pass() error {
	l.mu.Lock()
	gate := l.gate
	l.mu.Unlock()
	select {
	case <-gate:
		return nil
	case <-l.closed:
		return io.ErrClosedPipe
	}
}

func (l *link) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if perr := l.pass(); perr != nil {
		return 0, perr
	}
	return n, err
}

func (l *link) Write(b []byte) (int, error) {
	if err := l.pass(); err != nil {
		return 0, err
	}
	return l.Conn.Write(b)
}

func (l *link) Close() error {
	l.closeOnce.Do(func() { close(l.closed) })
	l.network.mu.Lock()
	delete(l.network.links, l)
	l.network.mu.Unlock()
	return l.Conn.Close()
}

// RemoteAddr is an address that may be pulled.
func (l *link) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 80} }
