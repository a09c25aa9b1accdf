package collector_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return lis
}

// begin runs a process until the test ends.
func begin(t *testing.T, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() {
		if err := run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
}

// startFleet runs a registry and two collectors over TCP, each of which collects
// one producer, and returns where queries are answered.
func startFleet(t *testing.T) (queries []string) {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	registered := listen(t)
	r, err := registry.New(t.Context(), registry.Config{
		Listener: registered, Memory: registry.NewMemoryStore(), Endpoints: registry.EndpointPolicy{Loopback: true},
		Logger: quiet, Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	begin(t, r.Run)
	producer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = io.WriteString(w, "# TYPE work_total counter\nwork_total 1\n")
	}))
	t.Cleanup(producer.Close)
	for i := range 2 {
		lis, web := listen(t), listen(t)
		k, err := collector.New(t.Context(), collector.Config{
			ID: fmt.Sprintf("c-%d", i+1), Registries: []string{registered.Addr().String()}, DataDir: t.TempDir(),
			Endpoints: collector.EndpointPolicy{Loopback: true},
			Listener:  lis, HTTPListener: web, Advertise: lis.Addr().String(), Logger: quiet,
		})
		if err != nil {
			t.Fatal(err)
		}
		begin(t, k.Run)
		queries = append(queries, "http://"+web.Addr().String())
	}
	conn, err := grpc.NewClient(registered.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	eventually(t, func() error {
		all, err := registryv1.NewCollectorServiceClient(conn).ListCollectors(t.Context(), &registryv1.ListCollectorsRequest{})
		if n := len(all.GetCollectors()); n < 2 || err != nil {
			return fmt.Errorf("%d collectors, %w", n, err)
		}
		return nil
	})
	for i := range 2 {
		_, err := registryv1.NewProducerServiceClient(conn).RegisterProducer(t.Context(), &registryv1.RegisterProducerRequest{
			Producer: &registryv1.Producer{
				ProducerId: fmt.Sprintf("p-%d", i), Endpoint: fmt.Sprintf("%s/%d", producer.URL, i),
				Interval: durationpb.New(time.Second), Timeout: durationpb.New(time.Second), LastCollectorId: fmt.Sprintf("c-%d", i+1),
				Labels: []*registryv1.Label{{Name: "producer", Value: fmt.Sprintf("p-%d", i)}},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return queries
}

// eventually waits for up to two minutes.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.NewTimer(2 * time.Minute)
	defer deadline.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-deadline.C:
			t.Fatal(err)
		}
	}
}

// count asks a collector how many producers have samples.
func count(queries, scope string) error {
	resp, err := http.Get(queries + "/api/v1/query?query=" + url.QueryEscape("count(work_total)") + "&scope=" + scope)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var got struct {
		Data struct {
			Result []struct{ Value []any }
		}
		Warnings []string
	}
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		return err
	}
	want := "2"
	if scope == "local" {
		want = "1"
	}
	if len(got.Warnings) > 0 || len(got.Data.Result) != 1 || got.Data.Result[0].Value[1] != want {
		return fmt.Errorf("scope %q: %v, want %s", scope, got, want)
	}
	return nil
}

// TestEitherCollectorAnswersForAll, over TCP, and promtool takes it for a
// Prometheus. Debian's promtool is years older than the API.
func TestEitherCollectorAnswersForAll(t *testing.T) {
	queries := startFleet(t)
	for _, at := range queries {
		eventually(t, func() error { return errors.Join(count(at, ""), count(at, "local")) })
		for _, probe := range []string{"/-/healthy", "/-/ready", "/healthz", "/readyz"} {
			resp, err := http.Get(at + probe)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("%s: %d", probe, resp.StatusCode)
			}
		}
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("ROLLCALL_REQUIRE_ALL") == "1" {
			t.Fatal("promtool is required (Debian package prometheus)")
		}
		t.Skip("promtool is not installed (Debian package prometheus)")
	}
	for _, at := range queries {
		for _, test := range []struct {
			wants []string
			args  []string
		}{
			{[]string{`producer="p-0"`, `producer="p-1"`}, []string{"query", "instant", at, "work_total"}},
			{[]string{`producer="p-0"`, `producer="p-1"`}, []string{"query", "range", "--step=1s", at, "work_total"}},
			{[]string{`producer="p-0"`, `producer="p-1"`}, []string{"query", "series", "--match=work_total", at}},
			{[]string{"p-0", "p-1"}, []string{"query", "labels", at, "producer"}},
		} {
			eventually(t, func() error { // a collection may fail meanwhile
				out, err := exec.CommandContext(t.Context(), promtool, test.args...).CombinedOutput()
				for _, want := range test.wants {
					if err != nil || !strings.Contains(string(out), want) {
						return fmt.Errorf("promtool %v: %w, want %s\n%s", test.args, err, want, out)
					}
				}
				return nil
			})
		}
	}
}
