package process_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rollcall-metrics/rollcall/services/internal/authority"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/emptypb"
)

func newAuthority(t *testing.T) *authority.Authority {
	t.Helper()
	a, _, err := authority.New(authority.DefaultTrustDomain, time.Now(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// issue issues for a collector whose name is "server", as of some days ago.
func issue(t *testing.T, a *authority.Authority, change func(*authority.Request), daysAgo int) authority.Pair {
	t.Helper()
	r := authority.Request{Role: "collector", ID: "c-1", DNS: []string{"server"}, Days: 30}
	if change != nil {
		change(&r)
	}
	pair, err := a.Issue(r, time.Now().AddDate(0, 0, -daysAgo))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// write puts files in the place of those before, whole.
func write(t *testing.T, dir string, pair authority.Pair, ca []byte) process.IdentityFiles {
	t.Helper()
	files := process.IdentityFiles{
		Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), CA: filepath.Join(dir, "ca.crt"), MinVersion: tls.VersionTLS13,
	}
	for path, content := range map[string][]byte{files.Cert: pair.Certificate, files.Key: pair.Key, files.CA: ca} {
		if err := os.WriteFile(path+".new", content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// A host is a gRPC and an HTTP server with one identity.
type host struct {
	identity  *process.Identity
	grpc, web *bufconn.Listener
	log       *book
	metrics   *prometheus.Registry
}

// serveTLS serves until the test ends. files may be the zero value: plain text.
func serveTLS(t *testing.T, files process.IdentityFiles, connections int, handle func(context.Context) error) *host {
	t.Helper()
	h := &host{grpc: bufconn.Listen(1 << 16), web: bufconn.Listen(1 << 16), log: &book{}, metrics: prometheus.NewRegistry()}
	logger := process.NewLogger(h.log, slog.LevelInfo, false)
	refusals := process.NewRefusals(logger, h.metrics)
	var secured *tls.Config
	if files.Cert != "" {
		var err error
		if h.identity, err = process.LoadIdentity(files); err != nil {
			t.Fatal(err)
		}
		h.metrics.MustRegister(h.identity)
		secured = h.identity.Server(refusals)
	}
	guard := process.NewGuard(connections, connections, secured != nil, refusals)
	srv, _ := process.NewGRPCServer(process.GRPCConfig{
		Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(), TLS: secured,
	})
	srv.RegisterService(toy(handle), nil)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 2)
	go func() { served <- process.ServeGRPC(ctx, srv, guard.GRPCListener(h.grpc), time.Millisecond) }()
	go func() {
		web := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
		served <- process.ServeHTTP(ctx, web, process.SecureHTTP(guard.Listener(h.web), secured), time.Millisecond, slog.New(slog.DiscardHandler))
	}()
	if h.identity != nil {
		go h.identity.Watch(ctx, process.DefaultRefresh, logger)
	}
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-served; err != nil {
				t.Error(err)
			}
		}
	})
	return h
}

// client is what shows a pair, or nothing, and trusts an authority.
func client(t *testing.T, pair authority.Pair, a *authority.Authority) *tls.Config {
	t.Helper()
	c := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "server"}
	c.RootCAs.AppendCertsFromPEM(a.Certificate())
	if pair.Certificate != nil {
		own, err := tls.X509KeyPair(pair.Certificate, pair.Key)
		if err != nil {
			t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{own}
	}
	return c
}

func static(c *tls.Config) process.ClientTLS {
	if c == nil {
		return nil
	}
	return func() *tls.Config { return c }
}

// dialToy connects to the gRPC server of a host.
func dialToy(t *testing.T, h *host, c process.ClientTLS, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///server:1", append(options, grpc.WithTransportCredentials(c.Credentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return h.grpc.DialContext(ctx) }))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// hold begins a call of the toy.
func hold(t *testing.T, conn *grpc.ClientConn) (grpc.ClientStream, error) {
	t.Helper()
	return holdIn(t.Context(), conn)
}

func holdIn(ctx context.Context, conn *grpc.ClientConn) (grpc.ClientStream, error) {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/toy.Toy/Play")
	if err == nil {
		if err = stream.SendMsg(&emptypb.Empty{}); err == nil {
			err = stream.CloseSend()
		}
	}
	return stream, err
}

// ask makes one call of the toy on a connection of its own.
func ask(t *testing.T, h *host, c process.ClientTLS, options ...grpc.DialOption) error {
	t.Helper()
	conn := dialToy(t, h, c, options...)
	defer conn.Close()
	stream, err := hold(t, conn)
	if err == nil {
		err = stream.RecvMsg(&emptypb.Empty{})
	}
	return err
}

// get makes one request on a connection of its own.
func get(t *testing.T, h *host, scheme string, c *tls.Config) error {
	t.Helper()
	transport := &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return h.web.DialContext(ctx) },
		TLSClientConfig:   c,
		ForceAttemptHTTP2: true,
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, scheme+"://server/", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && string(body) != "hello" {
		err = fmt.Errorf("%s: %q", resp.Status, body)
	}
	return err
}

// value is that of a metric with a label, or with none.
func value(t *testing.T, g prometheus.Gatherer, name, label string) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	t.Fatalf("no metric %s of %q", name, label)
	return 0
}

func lines(log, want string) (n int) {
	for line := range strings.Lines(log) {
		if strings.Contains(line, want) {
			n++
		}
	}
	return n
}
