package process_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/authority"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// lasting issues what ends after some time, and tells when.
func lasting(t *testing.T, a *authority.Authority, left time.Duration) (authority.Pair, time.Time) {
	t.Helper()
	pair, err := a.Issue(authority.Request{Role: "collector", ID: "c-1", DNS: []string{"server"}, Days: 1}, time.Now().Add(left-24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(pair.Certificate)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return pair, leaf.NotAfter
}

func withH2(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.NextProtos = []string{"h2"}
	return c
}

// within is canceled after some time, of which the server is told nothing.
func within(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(limit, cancel)
	return ctx
}

// TestAConnectionEndsWithItsCertificate: not before, whether something is asked on it
// or not, and the log tells of it. Who has no newer one is refused from then on.
func TestAConnectionEndsWithItsCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t)
		h := serveTLS(t, write(t, t.TempDir(), issue(t, a, nil, 0), a.Certificate()), 100, untilEnd)
		pair, end := lasting(t, a, 10*time.Minute)
		shown := client(t, pair, a)
		stream, err := holdIn(within(t, time.Hour), dialToy(t, h, static(shown)))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(9 * time.Minute)
		if err := askWithin(t, h, static(shown), time.Second); err != nil {
			t.Errorf("a minute before: %v", err)
		}
		raw, err := h.web.Dial()
		if err != nil {
			t.Fatal(err)
		}
		silent := tls.Client(raw, withH2(shown))
		defer silent.Close()
		if err := silent.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(silent, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"); err != nil {
			t.Fatal(err)
		}
		ended := make(chan time.Duration)
		go func() {
			_, _ = io.ReadAll(silent)
			ended <- time.Since(end)
		}()
		err = stream.RecvMsg(&emptypb.Empty{})
		if late := time.Since(end); status.Code(err) != codes.Unavailable || late != time.Nanosecond {
			t.Errorf("the stream ends %v after the certificate with %v", late, err)
		}
		if late := <-ended; late != time.Nanosecond {
			t.Errorf("what is silent ends %v after the certificate", late)
		}
		synctest.Wait()
		const line = `"a connection ended with the peer's certificate" reason=ended address=bufconn subject="CN=collector c-1"`
		if n := lines(h.log.String(), line); n != 2 || value(t, h.metrics, "rollcall_tls_refused_total", "ended") != 2 {
			t.Errorf("%s", h.log)
		}
		if ask(t, h, static(shown)) == nil || get(t, h, "https", shown) == nil {
			t.Error("it is served after its end")
		}
	})
}

// TestARenewedClientComesBack by itself on the connection that it has, and is cut off
// once; one that shows no certificate is not.
func TestARenewedClientComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t)
		h := serveTLS(t, write(t, t.TempDir(), issue(t, a, nil, 0), a.Certificate()), 100, untilEnd)
		dir := t.TempDir()
		pair, end := lasting(t, a, 10*time.Minute)
		i, err := process.LoadIdentity(write(t, dir, pair, a.Certificate()))
		if err != nil {
			t.Fatal(err)
		}
		go i.Watch(t.Context(), process.DefaultRefresh, slog.New(slog.DiscardHandler))
		conn := dialToy(t, h, i.Client())
		ctx := within(t, 2*time.Hour)
		stream, err := holdIn(ctx, conn)
		if err != nil {
			t.Fatal(err)
		}
		stranger, err := hold(t, dialToy(t, h, static(client(t, authority.Pair{}, a))))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		renewed, next := lasting(t, a, time.Hour)
		write(t, dir, renewed, a.Certificate())
		for _, end := range []time.Time{end, next} {
			err := stream.RecvMsg(&emptypb.Empty{})
			if late := time.Since(end); late != time.Nanosecond {
				t.Errorf("it ends %v after the certificate: %v", late, err)
			}
			if end.Equal(next) {
				break
			}
			if stream, err = holdIn(ctx, conn); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case <-stranger.Context().Done():
			t.Error("who shows no certificate is cut off")
		default:
		}
		if n := lines(h.log.String(), "reason=expired"); n != 0 {
			t.Errorf("%s", h.log)
		}
	})
}

// TestNoAnswerIsCutOff: near the end of a certificate, each request over HTTP is the
// last one of its connection.
func TestNoAnswerIsCutOff(t *testing.T) {
	for protocol, version := range map[string]int{"http/1.1": 1, "h2": 2} {
		t.Run(protocol, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority(t)
				g := gate(t, 10, 10)
				i, err := process.LoadIdentity(write(t, t.TempDir(), issue(t, a, nil, 0), a.Certificate()))
				if err != nil {
					t.Fatal(err)
				}
				serveHTTP(t, process.SecureHTTP(g.guarded, i.Server(g.refusals)), func() {})
				pair, _ := lasting(t, a, 14*time.Minute+30*time.Second)
				shown, dials := client(t, pair, a), 0
				shown.NextProtos = []string{protocol}
				transport := &http.Transport{
					DialContext: func(context.Context, string, string) (net.Conn, error) {
						dials++
						return g.dial("10.0.0.1:1"), nil
					},
					TLSClientConfig: shown, ForceAttemptHTTP2: version == 2,
				}
				defer transport.CloseIdleConnections()
				for minute, want := range []int{1, 1, 1, 1, 1, 1, 1, 1, 2, 3} {
					if got := protocolOf(t, transport); got != version || dials != want {
						t.Errorf("minute %d: %d connections of HTTP/%d", minute, dials, got)
					}
					time.Sleep(time.Minute)
				}
			})
		})
	}
}

// protocolOf makes a request and returns the major version of its answer.
func protocolOf(t *testing.T, transport http.RoundTripper) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://server/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.ProtoMajor
}
