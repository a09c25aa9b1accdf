package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/deploy/internal/child"
)

// query asks a collector and returns the values by the label instance.
func (s *stage) query(offset int, promql string) (map[string]string, error) {
	body, err := child.Fetch(context.Background(), "http://"+s.address(offset)+"/api/v1/query?query="+url.QueryEscape(promql))
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var answer struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.NewDecoder(body).Decode(&answer); err != nil {
		return nil, err
	}
	values := map[string]string{}
	for _, r := range answer.Data.Result {
		values[r.Metric["instance"]] = fmt.Sprint(r.Value[1])
	}
	return values, nil
}

// TestPairSurvives is the promise on real processes: while the registry is dead
// nothing is missed, a collector starts without it, and what comes back sends
// nothing again.
func TestPairSurvives(t *testing.T) {
	s := newStage(t)
	began := time.Now()
	local := s.local(t)
	t.Logf("all ready after %v", time.Since(began))
	for _, offset := range []int{collector1HTTP, collector2HTTP} {
		await(t, "a producer that is up", func() error {
			values, err := s.query(offset, "up == 1")
			if err == nil && len(values) == 0 {
				err = errors.New("none")
			}
			return err
		})
	}
	t.Logf("both collectors answer up 1 after %v", time.Since(began))
	s.registerApps(t)
	s.collect(t, 3, collector1HTTP, collector2HTTP) // so the first ones are over

	missed1, missed2 := s.missed(t, collector1HTTP), s.missed(t, collector2HTTP)
	startRegistry := local.killed(t, "registry")
	s.collect(t, 3, collector1HTTP, collector2HTTP)
	if now := s.missed(t, collector1HTTP); now != missed1 {
		t.Errorf("collector-1 has missed %v collections, and %v before", now, missed1)
	}

	startCollector := local.killed(t, "collector-1")
	began = time.Now()
	collector := s.start(t, startCollector)
	s.collect(t, 1, collector1HTTP)
	t.Logf("a collector that was killed collects %v after its start, without a registry", time.Since(began))

	registry := s.start(t, startRegistry)
	s.resumes(t)
	s.collect(t, 1, collector2HTTP)
	if now := s.missed(t, collector2HTTP); now != missed2 {
		t.Errorf("collector-2 has missed %v collections, and %v before", now, missed2)
	}

	local.stop(t, syscall.SIGINT)
	local.expect(t, "collector-2 stopped")
	collector.stop(t, syscall.SIGTERM)
	registry.stop(t, syscall.SIGTERM)
	s.refusing(t)
}

// registerApps registers two producers with short intervals, one for each
// collector.
func (s *stage) registerApps(t *testing.T) {
	t.Helper()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "answers 42") }))
	t.Cleanup(app.Close)
	for i := range 2 {
		s.run(t, fmt.Sprintf("bin/rollcall register app/%d %s/metrics --interval 1s --label n=%d --registry %s", i, app.URL, i, s.address(0)))
	}
}

// collect waits until each of these collectors has done so many more
// collections.
func (s *stage) collect(t *testing.T, more float64, offsets ...int) {
	t.Helper()
	const name = `rollcall_collector_collections_total{outcome="success"}`
	want := make(map[int]float64)
	for _, offset := range offsets {
		want[offset] = s.metrics(t, offset)[name] + more
	}
	for _, offset := range offsets {
		await(t, "collections", func() error {
			if now := s.metrics(t, offset)[name]; now < want[offset] {
				return fmt.Errorf("%v, want %v", now, want[offset])
			}
			return nil
		})
	}
}

// missed is how many collections a collector has missed. Of a producer that is
// new to it, it may miss the due time that falls into the first collection.
func (s *stage) missed(t *testing.T, offset int) float64 {
	t.Helper()
	return sum(s.metrics(t, offset), "rollcall_collector_missed_ticks_total")
}

// resumes waits until both collectors follow the registry, and checks that they
// were sent nothing that they had.
func (s *stage) resumes(t *testing.T) {
	t.Helper()
	for _, offset := range []int{collector1HTTP, collector2HTTP} {
		await(t, "the subscription", func() error {
			if s.metrics(t, offset)["rollcall_collector_subscribed"] != 1 {
				return errors.New("none")
			}
			return nil
		})
		for _, name := range []string{"held_producers", "refused_snapshots_total", "divergences_total"} {
			if n := sum(s.metrics(t, offset), "rollcall_collector_"+name); n != 0 {
				t.Errorf("%s: %s is %v", s.address(offset), name, n)
			}
		}
	}
	await(t, "a snapshot for each collector", func() error { // counted once it is sent
		if n := sum(s.metrics(t, registryHTTP), "rollcall_registry_snapshots_sent_total"); n < 2 {
			return fmt.Errorf("%v were sent", n)
		}
		return nil
	})
	if n := sum(s.metrics(t, registryHTTP), "rollcall_registry_assignments_sent_total"); n != 0 {
		t.Errorf("%v assignments were sent again", n)
	}
}

// TestWhatIsPrintedCanBePasted runs the lines that it tells people to try, and
// then stops as a terminal's Ctrl-C would.
func TestWhatIsPrintedCanBePasted(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	local := s.local(t)
	_, curl := exec.LookPath("curl")
	tried := 0
	for line := range strings.Lines(local.printed()) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "bin/rollcall subscribe"):
			stream := s.start(t, line)
			stream.expect(t, "digest ok")
			stream.stop(t, syscall.SIGINT)
		case strings.HasPrefix(line, "bin/rollcall"):
			s.run(t, line)
		case strings.HasPrefix(line, "curl") && curl == nil:
			if out := s.run(t, "curl -sS"+strings.TrimPrefix(line, "curl")); !strings.Contains(out, `"status":"success"`) {
				t.Errorf("%s: %s", line, out)
			}
		default:
			continue
		}
		tried++
	}
	if tried < 5 {
		t.Errorf("%d lines could be tried", tried)
	}
	local.expect(t, " collected, ")
	local.stop(t, syscall.SIGINT)
	local.expect(t, "all stopped")
	s.refusing(t)
}

// TestNodeExporter registers a real exporter, and finds its series.
func TestNodeExporter(t *testing.T) {
	t.Parallel()
	path, err := exec.LookPath("prometheus-node-exporter")
	if err != nil {
		if os.Getenv("ROLLCALL_REQUIRE_ALL") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	s := newStage(t)
	s.local(t)
	var address string
	await(t, "a free port", func() error {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		address = lis.Addr().String()
		return lis.Close()
	})
	s.start(t, path+" --web.listen-address="+address)
	await(t, "the exporter", func() error {
		body, err := child.Fetch(context.Background(), "http://"+address+"/metrics")
		if err != nil {
			return err
		}
		return body.Close()
	})
	out := s.run(t, fmt.Sprintf("bin/rollcall register node-1 http://%s/metrics --label zone=a --registry %s", address, s.address(0)))
	offset := collector1HTTP
	if strings.Contains(out, "collector-2") {
		offset = collector2HTTP
	}
	took := await(t, "a series of the exporter", func() error {
		values, err := s.query(offset, `node_load1{job="rollcall",zone="a"}`)
		if err == nil && values[address] == "" {
			err = errors.New("none")
		}
		return err
	})
	t.Logf("its series appeared %v after its registration", took)
}

// TestNothingIsLeftBehind: killed, it takes what it started with it.
func TestNothingIsLeftBehind(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells a process that its parent has died")
	}
	s := newStage(t)
	local := s.local(t)
	if err := local.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	s.refusing(t)
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	fails := func(t *testing.T, s *stage, want string) {
		t.Helper()
		r := s.start(t, fmt.Sprintf("bin/local --first-port %d", s.port))
		r.expect(t, want)
		<-r.done
		var exit *exec.ExitError
		if !errors.As(r.err, &exit) || exit.ExitCode() != exitFailed {
			t.Errorf("ended with %v, want exit code %d", r.err, exitFailed)
		}
		said := r.printed()
		if strings.Count(said, "\n") != 1 {
			t.Errorf("printed %q, want one line", said)
		}
	}
	t.Run("port taken", func(t *testing.T) {
		s := newStage(t)
		lis, err := net.Listen("tcp", s.address(collector2HTTP))
		if err != nil {
			t.Fatal(err)
		}
		fails(t, s, s.address(collector2HTTP)+", for collector-2, is taken")
		if err := lis.Close(); err != nil {
			t.Fatal(err)
		}
		s.refusing(t)
	})
	t.Run("a service that cannot start", func(t *testing.T) {
		s := newStage(t)
		if err := errors.Join(os.Mkdir(filepath.Join(s.dir, ".run"), 0o700),
			os.WriteFile(filepath.Join(s.dir, ".run", "registry"), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		fails(t, s, "registry ended at its start: exit status 1: registry: ")
		s.refusing(t)
	})
}
