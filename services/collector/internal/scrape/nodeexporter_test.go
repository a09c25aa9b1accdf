package scrape_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/scrape"
)

// missing skips a test for the lack of something, or fails it where everything
// has to be there.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("ROLLCALL_REQUIRE_ALL") == "1" {
		t.Fatalf("%s, and ROLLCALL_REQUIRE_ALL=1", what)
	}
	t.Skip(what)
}

// TestNodeExporter collects a real producer.
func TestNodeExporter(t *testing.T) {
	path, err := exec.LookPath("prometheus-node-exporter")
	if err != nil {
		missing(t, "prometheus-node-exporter is not installed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	cmd := exec.CommandContext(t.Context(), path, "--web.listen-address="+address)
	if err := cmd.Start(); err != nil {
		missing(t, fmt.Sprintf("prometheus-node-exporter does not start: %v", err))
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})

	out := &sink{t: t}
	s := scrape.New(scrape.Config{Sink: out})
	defer s.Close()
	a := producer()
	a.Endpoint = "http://" + address + "/metrics"
	c, err := s.Open(a)
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		result := c.Collect(t.Context(), time.Now())
		batches := out.take()
		if result.Reason == schedule.ReasonNone {
			checkNodeExporter(t, batches[0], true)
			t.Logf("%+v", result)
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v", result)
		}
		time.Sleep(20 * time.Millisecond) // it is starting
	}
	result := c.Collect(t.Context(), time.Now())
	if result.Reason != schedule.ReasonNone {
		t.Fatalf("%+v", result)
	}
	checkNodeExporter(t, out.take()[0], false)
}

func checkNodeExporter(t *testing.T, samples []sample.Sample, first bool) {
	t.Helper()
	nodes, described := 0, 0
	for _, s := range samples {
		name := s.Series.Labels().Get("__name__")
		if strings.HasPrefix(name, "node_") {
			nodes++
			if s.Series.Meta != nil && s.Series.Meta.Help != "" && s.Series.Meta.Type != "" {
				described++
			}
			// The kernel's own series come and go; these stay.
			if isStale(s) && (strings.HasPrefix(name, "node_memory_") || strings.HasPrefix(name, "node_cpu_") || strings.HasPrefix(name, "node_load")) {
				t.Errorf("stale: %s", s.Series.Labels())
			}
		}
		if name == "up" && s.Value != 1 {
			t.Errorf("up %v", s.Value)
		}
		if name == "scrape_series_added" && first != (s.Value > 100) {
			t.Errorf("%v series added", s.Value)
		}
	}
	if nodes <= 100 || described != nodes {
		t.Errorf("%d samples of node_, %d with metadata; want over 100, all", nodes, described)
	}
}
