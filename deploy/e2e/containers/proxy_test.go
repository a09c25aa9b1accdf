//go:build e2e

package containers_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// maxHealthy is how many bytes of the registry pass at most before a bad
// connection is cut or goes silent; it is less than a full snapshot.
const maxHealthy = 16 << 10

// A proxy stands between collectors and a registry, on this machine. While it is
// bad, every connection has an end that is drawn when it begins.
type proxy struct {
	t      *testing.T
	bad    atomic.Bool
	target func(ctx context.Context) (string, error)
	mu     sync.Mutex
	open   map[net.Conn]bool // under mu

	connections, ended, cut, silent atomic.Int64
}

func newProxy(t *testing.T) *proxy {
	t.Helper()
	return &proxy{t: t, open: map[net.Conn]bool{}}
}

func (p *proxy) String() string {
	return fmt.Sprintf("%d, %d were cut and %d went silent", p.connections.Load(), p.cut.Load(), p.silent.Load())
}

// through listens at the bridge of a network, for what comes from there, and tells
// where that is.
func (p *proxy) through(s *site, r *container) string {
	t := p.t
	gateway := must(t, "network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", s.net(controlNet))
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort(gateway, "0"))
	if err != nil {
		t.Fatal(err)
	}
	p.target = func(ctx context.Context) (string, error) { return s.address(ctx, r, 7470) }
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var serving sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		listener.Close()
		p.close()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { p.serve(ctx, conn) })
		}
	})
	return listener.Addr().String()
}

// worsen makes connections bad, from now on; those that are open end.
func (p *proxy) worsen() { p.bad.Store(true); p.close() }

// mend lets the next connections be good ones, and ends the others.
func (p *proxy) mend() { p.bad.Store(false); p.close() }

func (p *proxy) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.open {
		conn.Close()
	}
}

func (p *proxy) keep(conn net.Conn, open bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if open {
		p.open[conn] = true
	} else {
		delete(p.open, conn)
		conn.Close()
	}
}

func (p *proxy) serve(ctx context.Context, down net.Conn) {
	p.keep(down, true)
	defer p.keep(down, false)
	address, err := p.target(ctx)
	if err != nil {
		return
	}
	up, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return
	}
	p.keep(up, true)
	defer p.keep(up, false)
	p.connections.Add(1)
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		_, _ = io.Copy(up, down)
		up.Close()
	}()
	if p.bad.Load() {
		p.spoil(ctx, down, up)
	} else {
		_, _ = io.Copy(down, up)
	}
	down.Close()
	<-asked
}

// spoil passes on what the registry says late, and not to the end.
func (p *proxy) spoil(ctx context.Context, down, up net.Conn) {
	left, piece := 1+rand.Int64N(maxHealthy), int64(1024)
	for left > 0 {
		n, err := io.CopyN(down, up, min(left, 1+rand.Int64N(piece)))
		left -= n
		if err != nil {
			return
		}
		select {
		case <-time.After(rand.N(50 * time.Millisecond)):
		case <-ctx.Done():
			return
		}
	}
	if p.ended.Add(1)%2 == 1 { // both occur, however few there are
		p.cut.Add(1)
		if tcp, ok := down.(*net.TCPConn); ok {
			_ = tcp.SetLinger(rand.IntN(2) - 1) // by RST, or by FIN
		}
		return
	}
	p.silent.Add(1)
	_, _ = io.Copy(io.Discard, up)
}
