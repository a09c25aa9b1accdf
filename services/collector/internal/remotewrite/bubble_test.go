package remotewrite_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/remotewrite"
)

// A rig is a receiver in a bubble of fake time, without the network.
type rig struct {
	*receiver
	server *http.Server
	closed chan struct{}
}

func (r *rig) stop() {
	_ = r.server.Close()
	<-r.closed
}

type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	close(p.done)
	return nil
}
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.done:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// bubble starts a receiver and its client in the bubble of the test; both are to
// be stopped by the test.
func bubble(t *testing.T, answer func(http.ResponseWriter, call), change func(*remotewrite.Config)) (*rig, *remotewrite.Client) {
	t.Helper()
	p := &pipes{make(chan net.Conn), make(chan struct{})}
	r := &rig{receiver: &receiver{}, closed: make(chan struct{})}
	r.server = &http.Server{Handler: r.handler(t, answer)}
	go func() {
		defer close(r.closed)
		_ = r.server.Serve(p)
	}()
	transport := &http.Transport{DialContext: p.dial, MaxIdleConnsPerHost: 16}
	c := newClient(t, "http://receiver/api/v1/write", func(c *remotewrite.Config) {
		c.HTTP = &http.Client{Transport: transport}
		if change != nil {
			change(c)
		}
	})
	return r, c
}
