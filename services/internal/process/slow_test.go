package process_test

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/process"
)

// TestNoSlowAnswerIsCutOff by the end of a certificate that has been renewed,
// wherever the end falls between requests that are as slow as they may be and as far
// apart as a connection is kept.
func TestNoSlowAnswerIsCutOff(t *testing.T) {
	const takes, apart, renewal = 170 * time.Second, 110 * time.Second, 20 * time.Minute
	for _, protocol := range []string{"http/1.1", "h2"} {
		for phase := time.Duration(0); phase < takes+apart; phase += 20 * time.Second {
			t.Run(protocol+" "+phase.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					transport := renewing(t, protocol, renewal, func() { time.Sleep(takes) })
					time.Sleep(phase)
					for begun := time.Now(); time.Since(begun) < 2*renewal; time.Sleep(apart) {
						at := time.Since(begun) + phase
						if err := fetch(t, transport); err != nil {
							t.Errorf("%v after the start: %v", at, err)
						}
					}
				})
			})
		}
	}
}

// renewing is how a client asks a server that is that slow, with a certificate that
// ends after some time, and from half of it on with another one.
func renewing(t *testing.T, protocol string, end time.Duration, slow func()) http.RoundTripper {
	t.Helper()
	a := newAuthority(t)
	g := gate(t, 10, 10)
	i, err := process.LoadIdentity(write(t, t.TempDir(), issue(t, a, nil, 0), a.Certificate()))
	if err != nil {
		t.Fatal(err)
	}
	serveHTTP(t, process.SecureHTTP(g.guarded, i.Server(g.refusals)), slow)
	first, _ := lasting(t, a, end)
	config, renewed, half := client(t, first, a), client(t, issue(t, a, nil, 0), a), time.Now().Add(end/2)
	own := config.Certificates[0]
	config.Certificates = nil
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if time.Now().Before(half) {
			return &own, nil
		}
		return &renewed.Certificates[0], nil
	}
	config.NextProtos = []string{protocol}
	transport := &http.Transport{
		DialContext:     func(context.Context, string, string) (net.Conn, error) { return g.dial("10.0.0.1:1"), nil },
		TLSClientConfig: config, ForceAttemptHTTP2: protocol == "h2",
	}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// serveHTTP serves on lis until the test ends, and is that slow.
func serveHTTP(t *testing.T, lis net.Listener, slow func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		web := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			slow()
			_, _ = io.WriteString(w, "hello")
		})
		served <- process.ServeHTTP(ctx, web, lis, time.Millisecond, slog.New(slog.DiscardHandler))
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// fetch makes a request and reads its answer.
func fetch(t *testing.T, transport http.RoundTripper) error {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://server/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.ReadAll(resp.Body)
	return err
}
