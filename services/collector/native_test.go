package collector_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/producer"
	"github.com/rollcall-metrics/rollcall/services/registry"
)

// TestProgramThatSpeaksColumns registers a program at its gRPC endpoint, and
// finds its samples in the collector's store, those of a native histogram too.
func TestProgramThatSpeaksColumns(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	registered, lis, web, own := listen(t), listen(t), listen(t), listen(t)
	r, err := registry.New(t.Context(), registry.Config{
		Listener: registered, Memory: registry.NewMemoryStore(), Endpoints: registry.EndpointPolicy{Loopback: true},
		Logger: quiet, Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	begin(t, r.Run)
	k, err := collector.New(t.Context(), collector.Config{
		ID: "c-1", Registries: []string{registered.Addr().String()}, DataDir: t.TempDir(),
		Endpoints: collector.EndpointPolicy{Loopback: true},
		Listener:  lis, HTTPListener: web, Advertise: lis.Addr().String(), Logger: quiet,
	})
	if err != nil {
		t.Fatal(err)
	}
	begin(t, k.Run)

	metrics := prometheus.NewRegistry()
	work := prometheus.NewCounter(prometheus.CounterOpts{Name: "work_total", Help: "Work."})
	sizes := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "sizes", Help: "Sizes.", NativeHistogramBucketFactor: 1.1})
	metrics.MustRegister(work, sizes)
	work.Add(42)
	for range 8 {
		sizes.Observe(3)
	}
	server := grpc.NewServer()
	producer.Expose(server, "shop/checkout", metrics)
	served := make(chan struct{})
	go func() { _ = server.Serve(own); close(served) }()
	t.Cleanup(func() { server.Stop(); <-served })
	begin(t, func(ctx context.Context) error {
		return producer.Keep(ctx, producer.Config{Registries: []string{registered.Addr().String()}, Logger: quiet}, producer.Registration{
			ID: "shop/checkout", Endpoint: "grpc://" + own.Addr().String(), Interval: time.Second, Timeout: time.Second,
		})
	})
	for query, want := range map[string]string{
		`work_total{job="rollcall"}`: "42", "up": "1", "histogram_count(sizes)": "8", "histogram_sum(sizes)": "24",
	} {
		eventually(t, func() error { return answers("http://"+web.Addr().String(), query, want) })
	}
}

// answers reports whether a query has this one value.
func answers(at, query, want string) error {
	resp, err := http.Get(at + "/api/v1/query?query=" + url.QueryEscape(query))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var got struct {
		Data struct{ Result []struct{ Value []any } }
	}
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		return err
	}
	if len(got.Data.Result) != 1 || got.Data.Result[0].Value[1] != want {
		return fmt.Errorf("%s: %v, want %s", query, got, want)
	}
	return nil
}
