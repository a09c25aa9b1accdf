package process

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
)

// handshakeRecord is the first byte of TLS. No request of HTTP begins with it.
const handshakeRecord = 0x16

// A Guard bounds the connections of a process, and how many of them one address may
// have: one that is too many is closed at once, so that who has one already is
// served as before. One whose peer has shown a certificate is closed when that ends:
// a peer with a newer one comes back. It is for all listeners of the process
// together.
type Guard struct {
	most, each int
	secure     bool
	refusals   *Refusals

	mu   sync.Mutex // guards what follows
	open int
	by   map[string]int // origin: how many of open
}

// NewGuard makes a guard for listeners with TLS, or for such without it, that lets
// most connections in, each of them so many from one address.
func NewGuard(most, each int, secure bool, r *Refusals) *Guard {
	return &Guard{most: most, each: each, secure: secure, refusals: r, by: map[string]int{}}
}

// Listener is lis under guard, below TLS.
func (g *Guard) Listener(lis net.Listener) net.Listener { return &guarded{lis, g, 0} }

// GRPCListener is Listener for a gRPC server, and sees to it that a host which has
// gone is noticed while something is sent to it.
func (g *Guard) GRPCListener(lis net.Listener) net.Listener { return &guarded{lis, g, pingTimeout} }

// enter counts a connection, or says why it is too many.
func (g *Guard) enter(origin string) reason {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.open >= g.most:
		return refusedFull
	case g.by[origin] >= g.each:
		return refusedShare
	}
	g.open++
	g.by[origin]++
	return ""
}

func (g *Guard) leave(origin string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open--
	if g.by[origin]--; g.by[origin] == 0 {
		delete(g.by, origin)
	}
}

type guarded struct {
	net.Listener
	guard   *Guard
	silence time.Duration // 0 for any
}

// Accept waits for the next connection that is not too many.
func (l *guarded) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		origin := endpoint.Origin(conn.RemoteAddr().String())
		if reason := l.guard.enter(origin); reason != "" {
			l.guard.refusals.note(conn.RemoteAddr(), reason, nil)
			_ = conn.Close() // nothing was said on it
			continue
		}
		if l.silence > 0 {
			boundSilence(conn, l.silence)
		}
		return &guardedConn{Conn: conn, guard: l.guard, origin: origin}, nil
	}
}

// A guardedConn is a connection that counts until it is closed.
type guardedConn struct {
	net.Conn
	guard  *Guard
	origin string
	begun  atomic.Bool

	mu     sync.Mutex // guards what follows
	closed bool
	shown  *x509.Certificate // by the peer, or nil
	end    time.Time         // of shown, or of what it was verified by
	timer  *time.Timer       // of look; nil without an end
}

// Read looks at how a connection begins: a peer that has TLS on or off by mistake
// gets no answer that it understands.
func (c *guardedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && !c.begun.Load() && !c.begun.Swap(true) {
		switch secure := p[0] == handshakeRecord; {
		case secure && !c.guard.secure:
			c.guard.refusals.note(c.RemoteAddr(), refusedTLS, nil)
		case !secure && c.guard.secure:
			c.guard.refusals.note(c.RemoteAddr(), refusedPlain, nil)
		}
	}
	return n, err
}

// Close closes the connection.
func (c *guardedConn) Close() error {
	err := c.Conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return err
	}
	c.closed = true
	if c.timer != nil {
		c.timer.Stop()
	}
	c.guard.leave(c.origin)
	return err
}

// endCheck is the time between two looks at the clock: a timer alone would not see
// that it was set, or that the host slept.
const endCheck = time.Minute

// endWith has the connection closed when the certificate ends that the peer has
// shown.
func (c *guardedConn) endWith(shown *x509.Certificate, end time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.shown, c.end = shown, end
	c.timer = time.AfterFunc(min(time.Until(end), endCheck), c.look)
}

// look closes the connection if its end has come.
func (c *guardedConn) look() {
	c.mu.Lock()
	left := time.Until(c.end)
	if c.closed || left > 0 {
		if !c.closed {
			c.timer.Reset(min(left, endCheck))
		}
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	c.guard.refusals.note(c.RemoteAddr(), refusedEnded, c.shown)
	_ = c.Close() // there is nobody to tell
}

// ending tells whether the connection ends so soon.
func (c *guardedConn) ending(within time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.timer != nil && time.Until(c.end) <= within
}

// guardedBelow is the connection below TLS, or nil if no guard has it.
func guardedBelow(conn net.Conn) *guardedConn {
	if secured, ok := conn.(*tls.Conn); ok {
		conn = secured.NetConn()
	}
	below, _ := conn.(*guardedConn)
	return below
}
