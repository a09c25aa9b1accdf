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
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
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
	out := &sink{t: t}
	s := scrape.New(scrape.Config{Sink: out})
	defer s.Close()
	var c schedule.Collection
	var first schedule.Result
	for try := 0; c == nil || first.Reason != schedule.ReasonNone; try++ {
		if try == 5 {
			t.Fatalf("%+v", first)
		}
		address, ended := startExporter(t, path)
		a := producer()
		a.ProducerID = assignment.ProducerID(address)
		a.Endpoint = "http://" + address + "/metrics"
		if c, err = s.Open(a); err != nil {
			t.Fatal(err)
		}
		first = collectUntil(t, c, out, ended)
	}
	checkNodeExporter(t, out.take()[0], true)
	t.Logf("%+v", first)
	result := c.Collect(t.Context(), time.Now())
	if result.Reason != schedule.ReasonNone {
		t.Fatalf("%+v", result)
	}
	checkNodeExporter(t, out.take()[0], false)
}

// startExporter starts one on a free port, which somebody else may take before; then
// it ends.
func startExporter(t *testing.T, path string) (address string, ended <-chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = l.Addr().String()
	_ = l.Close()
	cmd := exec.CommandContext(t.Context(), path, "--web.listen-address="+address)
	if err := cmd.Start(); err != nil {
		missing(t, fmt.Sprintf("prometheus-node-exporter does not start: %v", err))
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
	})
	return address, done
}

// collectUntil collects until that succeeds, for two minutes, or the producer has
// ended. The batch of the success is the only one that is left.
func collectUntil(t *testing.T, c schedule.Collection, out *sink, ended <-chan struct{}) schedule.Result {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; {
		result := c.Collect(t.Context(), time.Now())
		if result.Reason == schedule.ReasonNone {
			return result
		}
		out.take()
		select {
		case <-ended:
			return result
		case <-time.After(20 * time.Millisecond): // it is starting
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v", result)
		}
	}
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
