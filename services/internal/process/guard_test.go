package process_test

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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
