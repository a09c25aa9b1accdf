package collector_test

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/registry"
)

// A guarded is a producer over TLS that wants a token.
type guarded struct {
	*httptest.Server
	token atomic.Value // string
	conns atomic.Int64
}

func newGuarded(t *testing.T, token string) *guarded {
	t.Helper()
	g := &guarded{}
	g.token.Store("Bearer " + token)
	g.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != g.token.Load() {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = io.WriteString(w, "work_total 1\n")
	}))
	g.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			g.conns.Add(1)
		}
	}
	g.EnableHTTP2 = true
	g.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	g.StartTLS()
	t.Cleanup(g.Close)
	return g
}

// ca is the producer's certificate in PEM, which signs itself.
func (g *guarded) ca() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: g.Certificate().Raw}))
}

func dial(t *testing.T, lis net.Listener) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// timeouts is how many collections had no time left: as many as the machine stood
// still for.
func timeouts(t *testing.T, metrics *prometheus.Registry) int64 {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	n := 0.0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == collectionsTotal && m.GetLabel()[0].GetValue() == "timeout" {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return int64(n)
}

// TestCredentialsAreReloaded registers a producer whose credential is not there
// yet: it runs once a reload brings it, goes on over its connection when nothing
// has changed, and fails from a changed secret to the reload.
func TestCredentialsAreReloaded(t *testing.T) {
	quiet, dir := slog.New(slog.DiscardHandler), t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	producer := newGuarded(t, "one")
	write("collector.yaml", "")
	write("ca.pem", producer.ca())
	write("token", "one\n")

	registered, lis, web := listen(t), listen(t), listen(t)
	r, err := registry.New(t.Context(), registry.Config{
		Listener: registered, Memory: registry.NewMemoryStore(), Endpoints: registry.EndpointPolicy{Loopback: true},
		Logger: quiet, Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	begin(t, r.Run)
	metrics := prometheus.NewRegistry()
	k, err := collector.New(t.Context(), collector.Config{
		ID: "c-1", Registries: []string{registered.Addr().String()}, DataDir: t.TempDir(), ConfigFile: filepath.Join(dir, "collector.yaml"),
		Endpoints: collector.EndpointPolicy{Loopback: true},
		Listener:  lis, HTTPListener: web, Advertise: lis.Addr().String(), Logger: quiet, Metrics: metrics,
	})
	if err != nil {
		t.Fatal(err)
	}
	begin(t, k.Run)
	_, err = registryv1.NewProducerServiceClient(dial(t, registered)).RegisterProducer(t.Context(), &registryv1.RegisterProducerRequest{
		Producer: &registryv1.Producer{
			ProducerId: "p", Endpoint: producer.URL, Interval: durationpb.New(time.Second),
			Timeout: durationpb.New(time.Second), Credential: "shop", TlsServerName: "example.com",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	client := collectorv1.NewCollectionServiceClient(dial(t, lis))
	collection := func() (*collectorv1.Collection, error) {
		resp, err := client.GetCollection(t.Context(), &collectorv1.GetCollectionRequest{ProducerId: "p"})
		return resp.GetCollection(), err
	}
	unrunnable := func(want string) {
		t.Helper()
		eventually(t, func() error {
			c, err := collection()
			if got := c.GetUnrunnableReason(); err != nil || got != want {
				return fmt.Errorf("%q, %w", got, errors.Join(err, errors.New("want "+want)))
			}
			return nil
		})
	}
	// result waits for one that began after now.
	result := func(want collectorv1.FailureReason) *collectorv1.Collection {
		t.Helper()
		var last *collectorv1.Collection
		start := time.Now()
		eventually(t, func() error {
			c, err := collection()
			last = c
			if got := c.GetLastResult(); err != nil || !got.GetStartTime().AsTime().After(start) || got.GetFailureReason() != want {
				return fmt.Errorf("%v, want %v, %w", c, want, err)
			}
			return nil
		})
		return last
	}
	reload := func() {
		t.Helper()
		if _, err := client.ReloadConfiguration(t.Context(), &collectorv1.ReloadConfigurationRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	const none, status = collectorv1.FailureReason_FAILURE_REASON_UNSPECIFIED, collectorv1.FailureReason_FAILURE_REASON_STATUS

	unrunnable(`no credential "shop"`)
	write("collector.yaml", "credentials: {shop: {bearer_token_file: token, tls_config: {ca_file: ca.pem}, hosts: [127.0.0.1]}}")
	reload()
	result(none)

	reload() // of the same
	before := result(none)
	if n, late := producer.conns.Load(), timeouts(t, metrics); n < 1 || n > 1+late || before.GetFailureCount() > late {
		t.Errorf("%d connections, %d failures, %d of them for the time", n, before.GetFailureCount(), late)
	}

	producer.token.Store("Bearer two")
	failed := result(status)
	if strings.Contains(failed.String(), "one") {
		t.Errorf("a secret is shown: %s", failed)
	}
	write("token", "two\n")
	reload()
	after := result(none)
	if n, late := producer.conns.Load(), timeouts(t, metrics); n < 1 || n > 1+late || after.GetSuccessCount() <= before.GetSuccessCount() {
		t.Errorf("%d connections, %d timeouts, %d successes after %d", n, late, after.GetSuccessCount(), before.GetSuccessCount())
	}

	write("collector.yaml", "credentials: {shop: {bearer_token_file: token, tls_config: {ca_file: ca.pem}, hosts: [elsewhere]}}")
	reload()
	unrunnable(fmt.Sprintf("credential %q is not for the host %q", "shop", producer.Listener.Addr()))
}
