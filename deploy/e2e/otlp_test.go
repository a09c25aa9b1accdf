package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/rollcall-metrics/rollcall/deploy/internal/child"
	"github.com/rollcall-metrics/rollcall/services/producer"
)

// TestClient has the collector's client of OTLP send all that there is to a real
// receiver. The client is internal to the collector, so its own package's test
// is who calls it.
func TestClient(t *testing.T) {
	address, got := receive(t)
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-run", "^TestSendToAReceiver$", "./services/collector/internal/otlp")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "ROLLCALL_OTLP_RECEIVER="+address)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	await(t, got, 5*time.Second, "sum", "gauge", "histogram", "exponential histogram", "summary",
		"stale sum", "stale gauge", "stale histogram", "stale exponential histogram", "stale summary")
}

// TestCollector has a real collector collect from a producer and send to a real
// receiver.
func TestCollector(t *testing.T) {
	runtime.LockOSThread() // see child.Start
	bin := build(t)
	address, got := receive(t)
	dir := t.TempDir()
	config := filepath.Join(dir, "collector.yml")
	text := fmt.Sprintf("sinks:\n  - name: otel\n    otlp: {endpoint: %q, insecure: true, headers: {X-Scope-OrgID: \"7\"}, compression: gzip}\n", address)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	registry := child.Plan(filepath.Join(bin, "registry"), "registry", dir, freeAddress(t), freeAddress(t))
	collector := child.Plan(filepath.Join(bin, "collector"), "collector", dir, freeAddress(t), freeAddress(t),
		"--id", "collector-1", "--registry", registry.GRPC, "--config", config)
	run(t, registry)
	if c := run(t, collector); c.Ended() {
		log, err := os.ReadFile(c.Log)
		if !strings.Contains(string(log), "sinks") {
			t.Fatalf("the collector has ended: %s (%v)", c.How(), err)
		}
		missing(t, "the collector does not take sinks in its configuration yet")
	}

	metrics := newMetrics()
	server := httptest.NewServer(promhttp.HandlerFor(metrics.registry, promhttp.HandlerOpts{}))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	kept := make(chan error, 1)
	go func() {
		kept <- producer.Keep(ctx, producer.Config{Registries: []string{registry.GRPC}},
			producer.Registration{ID: "app", Endpoint: server.URL + "/metrics", Interval: time.Second})
	}()
	await(t, got, 30*time.Second, "sum", "gauge", "histogram", "exponential histogram", "summary")
	metrics.vanish()
	await(t, got, 30*time.Second, "stale sum", "stale gauge", "stale histogram", "stale exponential histogram", "stale summary")
	cancel()
	if err := <-kept; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// build builds the services.
func build(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "./services/cmd/registry", "./services/cmd/collector")
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// run starts a service, and waits until it is ready or has ended.
func run(t *testing.T, s *child.Service) *child.Child {
	t.Helper()
	c, err := child.Start(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Kill()
		<-c.Done()
		if log, err := os.ReadFile(s.Log); err == nil && t.Failed() {
			t.Logf("%s:\n%s", s.Name, log)
		}
	})
	if err := child.AwaitReady(t.Context(), c); err != nil && !c.Ended() {
		t.Fatal(err)
	}
	return c
}

// missing skips a test for want of something.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("ROLLCALL_REQUIRE_ALL") == "1" {
		t.Fatalf("%s, and ROLLCALL_REQUIRE_ALL=1", what)
	}
	t.Skip(what)
}

// metrics are one of each kind, which can vanish.
type metrics struct {
	registry *prometheus.Registry
	all      []interface{ Reset() }
}

func newMetrics() *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	label := []string{"path"}
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "requests_total", Help: "Requests."}, label)
	level := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "level", Help: "A level."}, label)
	latency := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "latency_seconds", Help: "Time.", Buckets: []float64{.1, 1}}, label)
	size := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "size_bytes", Help: "Sizes.", NativeHistogramBucketFactor: 1.1}, label)
	quantiles := prometheus.NewSummaryVec(prometheus.SummaryOpts{Name: "quantiles", Help: "Some.", Objectives: map[float64]float64{.5: .1}}, label)
	m.registry.MustRegister(requests, level, latency, size, quantiles)
	requests.WithLabelValues("/").Inc()
	level.WithLabelValues("/").Set(3)
	latency.WithLabelValues("/").Observe(.5)
	size.WithLabelValues("/").Observe(100)
	quantiles.WithLabelValues("/").Observe(1)
	m.all = []interface{ Reset() }{requests, level, latency, size, quantiles}
	return m
}

func (m *metrics) vanish() {
	for _, v := range m.all {
		v.Reset()
	}
}
