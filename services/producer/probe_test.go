package producer_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/rollcall-metrics/rollcall/services/producer"
)

// What an endpoint may answer, and whether that is an answer. Each is asked within
// its bounds of time and bytes, and none ends the keeper.
func TestProbe(t *testing.T) {
	answer := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	endless := func(pause time.Duration) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte(strings.Repeat("x 1\n", 1024))); err != nil {
					return
				}
				_ = http.NewResponseController(w).Flush()
				time.Sleep(pause)
			}
		}
	}
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		want    string // in the error; empty: it answers
	}{
		"200":          {metrics, ""},
		"204":          {answer(204), ""},
		"401":          {answer(401), ""},
		"403":          {answer(403), ""},
		"404":          {answer(404), "status 404"},
		"500":          {answer(500), "status 500"},
		"503":          {answer(503), "status 503"},
		"itself":       {producer.Identify(id, http.HandlerFunc(metrics)).ServeHTTP, ""},
		"another":      {producer.Identify("other", http.HandlerFunc(metrics)).ServeHTTP, `it is the producer "other"`},
		"endless body": {endless(0), ""},
		"slow body":    {endless(time.Second), "deadline exceeded"},
		"no header":    {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "deadline exceeded"},
		"redirects": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path+"x", http.StatusFound)
		}, "status 302"},
		"broken body": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("x 1\n"))
		}, "unexpected EOF"},
		"huge header": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 1<<20))
		}, "server response headers exceeded"},
		"long id": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(producer.Header, strings.Repeat("x", 10<<10))
		}, `it is the producer "xxx`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				r := n.registry(t, "r1")
				var asked atomic.Int64
				n.endpoint(t, app, func(w http.ResponseWriter, r *http.Request) { asked.Add(1); c.handler(w, r) })
				k := start(t, n.config("r1"), registration)
				time.Sleep(25 * time.Second)
				ready, requests := k.Ready(), asked.Load()
				k.Close()
				switch {
				case c.want == "" && (ready != nil || requests != 1):
					t.Errorf("not ready after %d requests: %v", requests, ready)
				case c.want != "" && (ready == nil || !strings.Contains(ready.Error(), c.want) || len(ready.Error()) > 700):
					t.Errorf("ready: %v, want %q", ready, c.want)
				case c.want != "" && r.count("register") > 0:
					t.Errorf("%d registrations", r.count("register"))
				case requests > 30:
					t.Errorf("%d requests", requests)
				}
			})
		})
	}
}

// probed starts a keeper of an endpoint on loopback, and returns what its first
// probe said.
func probed(t *testing.T, r producer.Registration) error {
	t.Helper()
	n := newNetwork()
	n.registry(t, "r1")
	said := make(chan error, 1)
	k, err := producer.Start(producer.Config{
		Registries: []string{"r1"}, Dial: n.dial,
		Observe: func(step producer.Step, err error) {
			if step == producer.StepProbe {
				select {
				case said <- err:
				default:
				}
			}
		},
	}, r)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	return <-said
}

// Certificates are the collectors' to verify and to show.
func TestProbeTLS(t *testing.T) {
	for name, auth := range map[string]tls.ClientAuthType{"unknown authority": tls.NoClientCert, "client certificate": tls.RequireAnyClientCert} {
		server := httptest.NewUnstartedServer(http.HandlerFunc(metrics))
		server.TLS = &tls.Config{ClientAuth: auth}
		server.Config.ErrorLog = log.New(io.Discard, "", 0)
		server.StartTLS()
		if err := probed(t, producer.Registration{ID: id, Endpoint: server.URL + "/metrics"}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		server.Close()
	}
}

// A server that has no certificate of its own answers nobody.
func TestProbeTLSFault(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(metrics))
	server.TLS = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return nil, errors.New("the certificate cannot be read")
	}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	err := probed(t, producer.Registration{ID: id, Endpoint: server.URL + "/metrics", TLSServerName: "app.example"})
	if err == nil || !strings.Contains(err.Error(), "tls: ") {
		t.Errorf("got %v, want the alert", err)
	}
}

// A question may take as long as a collection.
func TestProbeWaitsAsLongAsACollection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.registry(t, "r1")
		n.endpoint(t, app, func(w http.ResponseWriter, r *http.Request) { time.Sleep(20 * time.Second); metrics(w, r) })
		r := registration
		r.Interval, r.Timeout = time.Minute, 30*time.Second
		k := start(t, n.config("r1"), r)
		time.Sleep(25 * time.Second)
		if err := k.Ready(); err != nil {
			t.Error(err)
		}
	})
}

// An endpoint over gRPC is asked in its own protocol.
func TestProbeNative(t *testing.T) {
	cert := httptest.NewTLSServer(nil)
	defer cert.Close()
	for name, c := range map[string]struct {
		scheme  string
		options []grpc.ServerOption
		expose  string
		want    string
	}{
		"itself":      {"grpc", nil, id, ""},
		"over TLS":    {"grpcs", []grpc.ServerOption{grpc.Creds(credentials.NewServerTLSFromCert(&cert.TLS.Certificates[0]))}, id, ""},
		"another":     {"grpc", nil, "other", "FailedPrecondition"},
		"not at all":  {"grpc", nil, "", "Unimplemented"},
		"without TLS": {"grpcs", nil, id, "Unavailable"},
	} {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer(c.options...)
		if c.expose != "" {
			producer.Expose(server, c.expose, prometheus.NewRegistry())
		}
		go func() { _ = server.Serve(lis) }()
		err = probed(t, producer.Registration{ID: id, Endpoint: fmt.Sprintf("%s://%s", c.scheme, lis.Addr())})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		server.Stop()
	}
}
