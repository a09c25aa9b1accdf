package process_test

import (
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rollcall-metrics/rollcall/services/internal/authority"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
)

// TestASlowHandshakeIsCutOff, whether it says nothing or not enough.
func TestASlowHandshakeIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t)
		h := serveTLS(t, write(t, t.TempDir(), issue(t, a, nil, 0), a.Certificate()), 100, answer)
		for _, lis := range []interface{ Dial() (net.Conn, error) }{h.grpc, h.web} {
			for _, said := range []string{"", "\x16\x03\x01\x02\x00\x01"} {
				conn, err := lis.Dial()
				if err != nil {
					t.Fatal(err)
				}
				begin := time.Now()
				if said != "" {
					if _, err := io.WriteString(conn, said); err != nil {
						t.Fatal(err)
					}
				}
				_, _ = io.ReadAll(conn)
				if took := time.Since(begin); took != 10*time.Second {
					t.Errorf("cut off after %v", took)
				}
			}
		}
	})
}

// TestConnectionsAreBounded on both ports together. One that ends makes room.
func TestConnectionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := serveTLS(t, process.IdentityFiles{}, 3, answer)
		var held []net.Conn
		for _, lis := range []interface{ Dial() (net.Conn, error) }{h.grpc, h.web, h.web} {
			conn, err := lis.Dial()
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, conn)
		}
		synctest.Wait()
		if err := get(t, h, "http", nil); err == nil {
			t.Error("the fourth one is served")
		}
		if err := ask(t, h, nil); err == nil {
			t.Error("the fifth one is served")
		}
		synctest.Wait()
		if got := value(t, h.metrics, "rollcall_tls_refused_total", "connections"); got < 2 {
			t.Errorf("counted %v", got)
		}
		for _, conn := range held {
			_ = conn.Close()
		}
		synctest.Wait()
		if err := get(t, h, "http", nil); err != nil {
			t.Error(err)
		}
	})
}

// A doorway is a listener under guard, to which one connects from any address.
type doorway struct {
	calls    chan net.Conn
	closed   chan struct{}
	guarded  net.Listener
	refusals *process.Refusals
	metrics  *prometheus.Registry
}

// gate makes one for so many connections, and so many of each address.
func gate(t *testing.T, most, each int) *doorway {
	t.Helper()
	d := &doorway{calls: make(chan net.Conn), closed: make(chan struct{}), metrics: prometheus.NewRegistry()}
	d.refusals = process.NewRefusals(slog.New(slog.DiscardHandler), d.metrics)
	d.guarded = process.NewGuard(most, each, true, d.refusals).Listener(d)
	return d
}

// dial connects from an address.
func (d *doorway) dial(address string) net.Conn {
	near, far := net.Pipe()
	d.calls <- comingFrom{far, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address))}
	return near
}

// Accept waits for a call.
func (d *doorway) Accept() (net.Conn, error) {
	select {
	case conn := <-d.calls:
		return conn, nil
	case <-d.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (d *doorway) Close() error {
	close(d.closed)
	return nil
}

// Addr is of no meaning.
func (*doorway) Addr() net.Addr { return &net.TCPAddr{} }

type comingFrom struct {
	net.Conn
	address net.Addr
}

// RemoteAddr is the address.
func (c comingFrom) RemoteAddr() net.Addr { return c.address }

// TestOneAddressHasAShare of the connections, from whatever port, and of IPv6 one
// network has it. What it has not is for others.
func TestOneAddressHasAShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, in := gate(t, 5, 2), make(chan net.Conn, 10)
		go func() {
			for conn, err := d.guarded.Accept(); err == nil; conn, err = d.guarded.Accept() {
				in <- conn
			}
		}()
		defer d.Close()
		var held []net.Conn
		for _, c := range []struct{ from, refused string }{
			{"192.0.2.1:1", ""},
			{"192.0.2.1:2", ""},
			{"192.0.2.1:3", "address"},
			{"[2001:db8:0:1::1]:1", ""},
			{"[2001:db8:0:1::2]:1", ""},
			{"[2001:db8:0:1::3]:1", "address"},
			{"[2001:db8:0:2::1]:1", ""},
			{"192.0.2.2:1", "connections"},
		} {
			before := 0.0
			if c.refused != "" {
				before = value(t, d.metrics, "rollcall_tls_refused_total", c.refused)
			}
			_ = d.dial(c.from)
			synctest.Wait()
			if c.refused != "" {
				if len(in) > 0 || value(t, d.metrics, "rollcall_tls_refused_total", c.refused) != before+1 {
					t.Errorf("%s is let in", c.from)
				}
				continue
			}
			if len(in) == 0 {
				t.Fatalf("%s is not let in", c.from)
			}
			held = append(held, <-in)
		}
		_ = held[0].Close()
		_ = held[0].Close() // a second time counts for nothing
		for _, c := range []struct {
			from string
			in   int
		}{{"192.0.2.1:4", 1}, {"192.0.2.1:5", 0}} {
			_ = d.dial(c.from)
			synctest.Wait()
			if len(in) != c.in {
				t.Errorf("%s, when one has gone: %d are let in", c.from, len(in))
			}
			for range c.in {
				<-in
			}
		}
	})
}

// TestPlainTextMeetsTLS: both sides learn what is wrong.
func TestPlainTextMeetsTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t)
		secure := serveTLS(t, write(t, t.TempDir(), issue(t, a, nil, 0), a.Certificate()), 100, answer)
		if err := get(t, secure, "http", nil); err == nil || !strings.Contains(err.Error(), "HTTP request to an HTTPS server") {
			t.Errorf("%v", err)
		}
		if err := ask(t, secure, nil); err == nil {
			t.Error("plain text is taken")
		}
		synctest.Wait()
		if n := lines(secure.log.String(), "reason=plain_text"); n < 2 {
			t.Errorf("%s", secure.log)
		}
		plain := serveTLS(t, process.IdentityFiles{}, 100, answer)
		if err := get(t, plain, "https", client(t, authority.Pair{}, a)); err == nil || !strings.Contains(err.Error(), "does not look like a TLS handshake") {
			t.Errorf("%v", err)
		}
		if err := ask(t, plain, static(client(t, authority.Pair{}, a))); err == nil || !strings.Contains(err.Error(), "does not look like a TLS handshake") {
			t.Errorf("%v", err)
		}
		synctest.Wait()
		if n := lines(plain.log.String(), "reason=tls"); n < 2 {
			t.Errorf("%s", plain.log)
		}
	})
}

// TestAnOldVersionIsRefused, and counted.
func TestAnOldVersionIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t)
		h := serveTLS(t, write(t, t.TempDir(), issue(t, a, nil, 0), a.Certificate()), 100, answer)
		c := client(t, authority.Pair{}, a)
		c.MaxVersion = tls.VersionTLS12
		if err := get(t, h, "https", c); err == nil || !strings.Contains(err.Error(), "protocol version") {
			t.Errorf("%v", err)
		}
		synctest.Wait()
		if value(t, h.metrics, "rollcall_tls_refused_total", "version") != 1 {
			t.Error("not counted")
		}
	})
}
