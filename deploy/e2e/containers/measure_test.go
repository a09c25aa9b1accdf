//go:build e2e

package containers_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// idleFor is how long a process is watched that does nothing.
const idleFor = 20 * time.Second

// TestMeasure tells the sizes of the images, how fast a container is ready, and what
// it takes while nothing happens. It judges nothing: the machine may
// be busy.
func TestMeasure(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"registry", "collector", "producer", "cli", "etcd", "example"} {
		if bytes, err := docker(t.Context(), "image", "inspect", "--format", "{{.Size}}", image(name)); err == nil {
			n, _ := strconv.ParseFloat(bytes, 64)
			t.Logf("image %s: %.1f MB", name, n/1e6)
		}
	}
	empty := build(t, plan{registries: 1, collectors: 1})
	for _, c := range []*container{empty.registries[0], empty.collectors[0]} {
		for range 3 {
			empty.stop(c)
			empty.again(c)
			t.Logf("%s: ready %v after docker start (by polling, %v apart)", c.alias,
				await(t, "it is ready", time.Minute, func() error { return empty.ready(c) }), pollEvery)
			t.Logf("%s: ready %v after the process began, by its log", c.alias, empty.sinceBegin(c))
		}
	}
	hold(t, idleFor) // what follows a start is no idleness
	empty.rest("idle", empty.registries[0], empty.collectors[0])
	busy := build(t, plan{registries: 1, collectors: 1, producers: 100})
	busy.rest("with 100 producers, one collection a second each", busy.registries[0], busy.collectors[0])
}

// sinceBegin is the time from a container's start to its line that it listens.
func (s *site) sinceBegin(c *container) time.Duration {
	s.t.Helper()
	began, err := time.Parse(time.RFC3339Nano, must(s.t, "inspect", "--format", "{{.State.StartedAt}}", c.name))
	if err != nil {
		s.t.Fatal(err)
	}
	// The lines of a log go to the standard error of docker logs.
	out, err := command(s.t.Context(), nil, "sh", "-c", "docker logs --since "+began.Format(time.RFC3339Nano)+" --timestamps "+c.name+" 2>&1")
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(out) {
		stamp, rest, _ := strings.Cut(line, " ")
		if at, err := time.Parse(time.RFC3339Nano, stamp); err == nil && strings.Contains(rest, `"listening"`) {
			return at.Sub(began)
		}
	}
	s.t.Errorf("%s does not log that it listens", c.alias)
	return 0
}

// rest tells what processes take for a while.
func (s *site) rest(what string, all ...*container) {
	s.t.Helper()
	before := map[string]float64{}
	for _, c := range all {
		before[c.name] = s.processor(c)
	}
	began := time.Now()
	hold(s.t, idleFor)
	for _, c := range all {
		share := (s.processor(c) - before[c.name]) / time.Since(began).Seconds()
		s.t.Logf("%s, %s: %.2f %% of a core, %s resident", c.alias, what, 100*share, s.resident(c))
	}
}

// processor is the time of a core that a container's process has had, in s.
func (s *site) processor(c *container) float64 {
	s.t.Helper()
	seconds, err := s.metric(c, "process_cpu_seconds_total")
	if err != nil {
		s.t.Fatal(err)
	}
	return seconds
}

func (s *site) resident(c *container) string {
	s.t.Helper()
	text, err := os.ReadFile("/proc/" + s.pid(c) + "/status")
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ := strconv.ParseFloat(strings.Fields(value)[0], 64)
			return fmt.Sprintf("%.0f MiB", kb/1024)
		}
	}
	return "?"
}

// TestSidecarIdle tells what the sidecar takes while nothing happens.
func TestSidecarIdle(t *testing.T) {
	t.Parallel()
	need(t, image("producer"))
	s := build(t, plan{registries: 1, collectors: 1, producers: 1})
	c := s.add("sidecar", image("producer"), dataNet, rollNet)
	c.env = append(serve(7490, 7491), "ROLLCALL_REGISTRY=registry-1:7470", "ROLLCALL_ID=sidecar",
		fmt.Sprintf("ROLLCALL_ENDPOINT=http://example-1:%d/metrics", examplePort))
	s.start(c)
	t.Cleanup(func() {
		if t.Failed() {
			out, err := docker(context.WithoutCancel(t.Context()), "logs", c.name)
			t.Log(out, err)
		}
	})
	await(t, "the sidecar has registered", time.Minute, func() error {
		roll, err := s.roll(s.registries[0])
		for _, p := range roll {
			if p.GetProducerId() == "sidecar" {
				return nil
			}
		}
		return errors.Join(errors.New("it is not on the roll"), err)
	})
	before := s.ticks(c)
	began := time.Now()
	hold(t, idleFor)
	t.Logf("sidecar, idle: %.2f %% of a core, %s resident", 100*(s.ticks(c)-before)/time.Since(began).Seconds(), s.resident(c))
}

// ticks is the time of a core that a process has had by the kernel, in s.
func (s *site) ticks(c *container) float64 {
	s.t.Helper()
	text, err := os.ReadFile("/proc/" + s.pid(c) + "/stat")
	if err != nil {
		s.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100 // USER_HZ
}
