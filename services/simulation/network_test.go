package simulation

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/test/bufconn"
)

// network is a few hosts in memory. An address is host:port. Its links can be
// cut, slowed down, and fall silent.
type network struct {
	mu     sync.Mutex
	hosts  map[string]*bufconn.Listener
	routes map[route]string        // dialled in the place of the address
	down   map[string]bool         // addresses and hosts that cannot be dialled
	cut    map[route]bool          // from a host to a host
	slow   map[route]time.Duration // from a host to a host, for each write
	frozen map[string]bool         // hosts that neither read nor write
	links  map[*link]struct{}
}

// route is a way from a host to an address or to a host.
type route struct{ from, to string }

func newNetwork() *network {
	return &network{
		hosts: map[string]*bufconn.Listener{}, routes: map[route]string{}, down: map[string]bool{}, cut: map[route]bool{},
		slow: map[route]time.Duration{}, frozen: map[string]bool{}, links: map[*link]struct{}{},
	}
}

// listen makes a host reachable. Closing the listener takes it away.
func (n *network) listen(address string) net.Listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	lis := bufconn.Listen(32 << 10)
	n.hosts[address] = lis
	return lis
}

// dial connects somebody from outside to a host.
func (n *network) dial(ctx context.Context, address string) (net.Conn, error) {
	return n.dialFrom(ctx, "", address)
}

// dialer connects a host.
func (n *network) dialer(from string) func(ctx context.Context, address string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) { return n.dialFrom(ctx, from, address) }
}

// dialerTCP is dialer with the signature of a [net.Dialer]'s.
func (n *network) dialerTCP(from string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, _, address string) (net.Conn, error) { return n.dialFrom(ctx, from, address) }
}

func (n *network) dialFrom(ctx context.Context, from, address string) (net.Conn, error) {
	l := &link{network: n, from: from, address: address, gate: make(chan struct{}), closed: make(chan struct{}), left: -1}
	close(l.gate)
	n.mu.Lock()
	frozen := n.frozen[from] || n.frozen[hostOf(address)]
	n.mu.Unlock()
	if frozen {
		<-ctx.Done()
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
	}
	n.mu.Lock()
	via, routed := n.routes[route{from, address}]
	if !routed {
		via = address
	}
	lis := n.hosts[via]
	down := n.down[address] || n.down[hostOf(address)] || n.down[from] || n.cut[route{from, hostOf(address)}]
	n.mu.Unlock()
	if lis == nil || down {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	}
	conn, err := lis.DialContext(ctx)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
	l.Conn = conn
	n.mu.Lock()
	n.links[l] = struct{}{}
	n.mu.Unlock()
	return l, nil
}

func hostOf(address string) string {
	host, _, _ := strings.Cut(address, ":")
	return host
}

// refuse makes a host or an address refuse new connections, or not.
func (n *network) refuse(address string, down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down[address] = down
}

// part cuts a host off from another, or joins them again.
func (n *network) part(from, to string, cut bool) {
	n.mu.Lock()
	n.cut[route{from, to}] = cut
	n.mu.Unlock()
	if cut {
		n.each(between(from, to), func(l *link) { _ = l.Close() })
	}
}

// delay makes each write from a host to another, and back, take so long.
func (n *network) delay(from, to string, d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.slow[route{from, to}] = d
}

// divert has dials from a host to an address end at another address.
func (n *network) divert(from, address, via string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if via == "" {
		delete(n.routes, route{from, address})
	} else {
		n.routes[route{from, address}] = via
	}
}

// diverted is where such dials end; empty: where they should.
func (n *network) diverted(from, address string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.routes[route{from, address}]
}

func (n *network) isFrozen(host string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.frozen[host]
}

// freeze stops all traffic of a host, as seen by the others, or lets it go on.
func (n *network) freeze(host string, frozen bool) {
	n.mu.Lock()
	n.frozen[host] = frozen
	n.mu.Unlock()
	touch := (*link).stall
	if !frozen {
		touch = (*link).resume
	}
	n.each(func(l *link) bool { return l.from == host || hostOf(l.address) == host }, touch)
}

// cutAfter resets the connections between two hosts once so many more bytes have
// come back.
func (n *network) cutAfter(from, to string, bytes int) {
	n.each(between(from, to), func(l *link) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.left = bytes
	})
}

// reset closes every connection to a host.
func (n *network) reset(address string) { n.each(to(address), func(l *link) { _ = l.Close() }) }

// silence makes every connection to a host stall in both directions.
func (n *network) silence(address string) { n.each(to(address), (*link).stall) }

func to(address string) func(*link) bool {
	return func(l *link) bool { return l.address == address }
}

func between(from, to string) func(*link) bool {
	return func(l *link) bool { return l.from == from && hostOf(l.address) == to }
}

func (n *network) each(which func(*link) bool, do func(*link)) {
	n.mu.Lock()
	var found []*link
	for l := range n.links {
		if which(l) {
			found = append(found, l)
		}
	}
	n.mu.Unlock()
	for _, l := range found {
		do(l)
	}
}

// link is the dialling side of one connection.
type link struct {
	net.Conn
	network *network
	from    string
	address string

	mu        sync.Mutex
	gate      chan struct{} // closed while the link works
	left      int           // bytes to be read before the reset; negative: no reset
	closed    chan struct{}
	closeOnce sync.Once
}

func (l *link) stall() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.gate:
		l.gate = make(chan struct{})
	default: // stalled already
	}
}

func (l *link) resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.gate:
	default:
		close(l.gate)
	}
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
	l.mu.Lock()
	if l.left >= 0 {
		n = min(n, l.left)
		l.left -= n
	}
	over := l.left == 0
	l.mu.Unlock()
	if over {
		_ = l.Close()
		if n == 0 && err == nil {
			err = io.ErrUnexpectedEOF
		}
	}
	return n, err
}

func (l *link) Write(b []byte) (int, error) {
	l.network.mu.Lock()
	delay := l.network.slow[route{l.from, hostOf(l.address)}]
	l.network.mu.Unlock()
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-l.closed:
			return 0, io.ErrClosedPipe
		}
	}
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
