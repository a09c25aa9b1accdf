//go:build e2e

package containers_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestRollingRestart restarts three registries and three collectors one after the
// other, each collector drained by its own command first, as the docs tell to: P2
// and P6.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	s := build(t, plan{registries: 3, collectors: 3, producers: 90})
	load := s.load()
	for _, r := range s.registries {
		s.stop(r)
		s.again(r)
		await(t, r.alias+" is ready", time.Minute, func() error { return s.ready(r) })
		await(t, "all follow a registry", time.Minute, func() error { return s.subscribed(true) })
	}
	for _, c := range s.collectors {
		if out, err := docker(t.Context(), "exec", c.name, "/collector", "drain"); err != nil {
			if strings.Contains(err.Error(), "unexpected argument drain") {
				missing(t, "this collector has no command to drain it")
			}
			t.Fatalf("%s %v", out, err)
		}
		s.stop(c)
		s.again(c)
		await(t, c.alias+" is ready", time.Minute, func() error { return s.ready(c) })
		t.Logf("%s has producers again %v after it was ready", c.alias, await(t, c.alias+" is given producers", 3*time.Minute, func() error {
			m, err := s.membership(c)
			if err == nil && m.GetAppliedCount() == 0 {
				err = fmt.Errorf("it has none")
			}
			return err
		}))
	}
	load()
	s.settled()
	s.clean("P2, P6")
}

// TestPreviousRelease has the release before at hand. It is not parallel, so that the
// compiler has done its work before others begin.
func TestPreviousRelease(t *testing.T) {
	need(t)
	previous(t)
}

// TestUpgrade replaces the release before by this one, registry first or collectors
// first, while producers come and change: P2. A collector that is replaced costs its
// own producers its restart, and nobody else; a registry, nothing.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"registries", "collectors"} {
		t.Run(first+" first", func(t *testing.T) {
			t.Parallel()
			need(t, image("registry"), image("collector"), image("example"))
			registry, collector := previous(t)
			s := build(t, plan{registries: 1, collectors: 2, producers: 100, registryImage: registry, collectorImage: collector})
			load := s.load()
			steps := []func(){
				func() { s.upgrade("P2", s.registries[0], image("registry"), 0) },
				func() {
					for _, c := range s.collectors {
						s.upgrade("P2", c, image("collector"), restartLimit)
					}
				},
			}
			if first == "collectors" {
				steps[0], steps[1] = steps[1], steps[0]
			}
			for _, step := range steps {
				step()
			}
			load()
			s.settled()
			s.steady(startLimit)
		})
	}
}

// restartLimit is how long a collector that is replaced may be away: what docker
// takes to stop, remove, make and start a container of a busy machine is most of it.
const restartLimit = 30 * time.Second

// upgrade replaces one container, and judges it: no gap of a producer may be longer
// than what is allowed, and two intervals; zero allows none.
func (s *site) upgrade(promise string, c *container, image string, allowed time.Duration) {
	s.t.Helper()
	s.steady(startLimit)
	from := s.fault
	s.replace(c, image)
	took := await(s.t, c.alias+" is ready", time.Minute, func() error { return s.ready(c) })
	await(s.t, "all follow a registry", time.Minute, func() error { return s.subscribed(true) })
	if allowed > 0 {
		s.steady(startLimit)
	}
	v := s.verdict(from)
	s.t.Logf("%s was ready after %v with %s", c.alias, took, image)
	switch {
	case allowed == 0 && !v.clean():
		s.t.Errorf("%s: a collection is missing: %v", promise, &v)
	case allowed > 0 && (!v.answered() || v.longest > allowed+2*interval): // its first collections after a start are beside the grid
		s.t.Errorf("%s: longer away than %v: %v", promise, allowed, &v)
	}
}

// load has producers come and change until it is called.
func (s *site) load() (end func()) {
	s.t.Helper()
	var done sync.WaitGroup
	stop := make(chan struct{})
	acknowledged := 0
	done.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-time.After(50 * time.Millisecond):
			case <-stop:
				return
			case <-s.t.Context().Done():
				return
			}
			if s.change(n) == nil {
				acknowledged++
			}
		}
	})
	return func() {
		close(stop)
		done.Wait()
		s.t.Logf("%d registrations were acknowledged meanwhile", acknowledged)
		if acknowledged == 0 {
			s.t.Error("no registration was acknowledged")
		}
	}
}

// previousFile names the commit of the release before.
const previousFile = "../previous"

// previous are the images of the release before, built from this repository's
// history unless they are there already.
func previous(t *testing.T) (registry, collector string) {
	t.Helper()
	text, err := os.ReadFile(previousFile)
	if err != nil {
		t.Fatal(err)
	}
	commit := ""
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			commit = line
		}
	}
	building.Lock()
	defer building.Unlock()
	tag := "previous-" + commit[:min(12, len(commit))]
	registry, collector = "rollcall/registry:"+tag, "rollcall/collector:"+tag
	if _, err := docker(t.Context(), "image", "inspect", registry, collector); err != nil {
		release(t, commit, map[string]string{"registry": registry, "collector": collector})
	}
	return registry, collector
}

// building is held by who builds the release before.
var building sync.Mutex
