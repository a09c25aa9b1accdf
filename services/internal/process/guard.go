package process

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// handshakeRecord is the first byte of TLS. No request of HTTP begins with it.
const handshakeRecord = 0x16

// A Guard bounds the connections of a process: one that is too many is closed at
// once, so that who has one already is served as before. It is for all listeners of
// the process together.
type Guard struct {
	most     int64
	secure   bool
	refusals *Refusals
	open     atomic.Int64
}

// NewGuard makes a guard for listeners with TLS, or for such without it.
func NewGuard(most int, secure bool, r *Refusals) *Guard {
	return &Guard{most: int64(most), secure: secure, refusals: r}
}

// Listener is lis under guard, below TLS.
func (g *Guard) Listener(lis net.Listener) net.Listener { return &guarded{lis, g, 0} }

// GRPCListener is Listener for a gRPC server, and sees to it that a host which has
// gone is noticed while something is sent to it.
func (g *Guard) GRPCListener(lis net.Listener) net.Listener { return &guarded{lis, g, pingTimeout} }

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
		if l.guard.open.Add(1) <= l.guard.most {
			if l.silence > 0 {
				boundSilence(conn, l.silence)
			}
			return &guardedConn{Conn: conn, guard: l.guard}, nil
		}
		l.guard.open.Add(-1)
		l.guard.refusals.note(conn.RemoteAddr(), refusedFull, nil)
		_ = conn.Close() // nothing was said on it
	}
}

// A guardedConn is a connection that counts until it is closed.
type guardedConn struct {
	net.Conn
	guard  *Guard
	begun  atomic.Bool
	closed sync.Once
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
	c.closed.Do(func() { c.guard.open.Add(-1) })
	return err
}
