//go:build e2e

package containers_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// tmpfs are the options of a volume of some MiB, which is gone when its container
// stops.
func tmpfs(megabytes int) []string {
	return []string{
		"--driver", "local", "--opt", "type=tmpfs", "--opt", "device=tmpfs",
		"--opt", fmt.Sprintf("o=size=%dm,uid=65532,gid=65532,mode=0700", megabytes),
	}
}

// fill takes all that is left of a container's volume, and tells how to give it back.
func (s *site) fill(c *container) (free func()) {
	s.t.Helper()
	path := filepath.Join("/proc", s.pid(c), "root/var/lib/rollcall", "ballast")
	f, err := os.Create(path)
	if errors.Is(err, os.ErrPermission) {
		missing(s.t, "only root can fill a container's volume (%v)", err)
	} else if err != nil {
		s.t.Fatal(err)
	}
	if _, err = io.Copy(f, endless{}); !errors.Is(err, syscall.ENOSPC) {
		s.t.Fatalf("the volume does not get full: %v", err)
	}
	if err := f.Close(); err != nil && !errors.Is(err, syscall.ENOSPC) {
		s.t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			s.t.Error(err)
		}
	}
}

// endless is a file without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// TestRegistryStoreFull has the store reach its quota: it refuses registrations, and
// goes on serving; nobody is struck off: P5 and P11.
func TestRegistryStoreFull(t *testing.T) {
	t.Parallel()
	s := build(t, plan{
		registries: 1, collectors: 2, producers: 60,
		registryEnv: []string{"ROLLCALL_STORE_QUOTA_BYTES=1000000", "ROLLCALL_REGISTRATION_RATE=0"},
	})
	conn := s.dial(s.registries[0], 7470)
	n := 0
	await(t, "a registration is refused", 90*time.Second, func() error {
		for ; ; n++ {
			err := register(t.Context(), conn, large(fmt.Sprintf("filling-%d", n)))
			switch status.Code(err) {
			case codes.OK:
			case codes.ResourceExhausted:
				t.Logf("after %d registrations: %v", n, err)
				return nil
			default:
				return err
			}
		}
	})
	if err := s.ready(s.registries[0]); err != nil {
		t.Error(err)
	}
	if _, err := s.roll(s.registries[0]); err != nil {
		t.Errorf("a registry with a full store does not list: %v", err)
	}
	s.clean("P2")
	// A collector that is started now cannot register, so it is not subscribed: it
	// goes on with its last sealed set.
	s.stop(s.collectors[0])
	s.again(s.collectors[0])
	await(t, "it is ready", time.Minute, func() error { return s.ready(s.collectors[0]) })
	s.steady(startLimit)
	hold(t, 10*interval)
	s.clean("P2")
	if struck := s.total(s.registries, "rollcall_registry_struck_off_producers_total"); struck != 0 {
		t.Errorf("P5: %v were struck off", struck)
	}
}

// large is idle, with labels of some 7 KiB, so that a few fill a store: each is
// collected once at once.
func large(id string) *registryv1.Producer {
	p := idle(id)
	for i := range 7 {
		p.Labels = append(p.Labels, &registryv1.Label{Name: fmt.Sprintf("filling_%d", i), Value: strings.Repeat("x", 1000)})
	}
	return p
}

// TestRegistryVolumeFull fills the disk under the registry's store. What etcd has
// set aside takes registrations for a while yet. Whatever the registry answers, it
// goes on running, nobody is missed, it takes registrations when there is room, and
// what it acknowledged is on its roll: P2, P9 and P11. What a store without any room
// does is told by the tests of its own package.
func TestRegistryVolumeFull(t *testing.T) {
	t.Parallel()
	s := build(t, plan{registries: 1, collectors: 2, producers: 60, volumes: map[string][]string{"registry-1": tmpfs(200)}})
	registry := s.registries[0]
	conn := s.dial(registry, 7470)
	free := s.fill(registry)
	refusals := map[codes.Code]int{}
	var acknowledged []string
	full := time.Now()
	for n := 0; time.Since(full) < 20*time.Second; n++ {
		id := fmt.Sprintf("late-%d", n)
		err := register(t.Context(), conn, large(id))
		if err == nil {
			acknowledged = append(acknowledged, id)
		} else if refusals[status.Code(err)]++; refusals[status.Code(err)] == 1 {
			t.Logf("after %d more registrations: %v", len(acknowledged), err)
		}
		hold(t, 20*time.Millisecond) // the machine has others to serve
	}
	state := must(t, "inspect", "--format", "{{.State.Status}}, exit code {{.State.ExitCode}}", registry.name)
	t.Logf("refusals %v; the registry is %s", refusals, state)
	if state[:7] != "running" {
		t.Errorf("P11: a full disk ends the registry: %s", state)
		return // the volume is gone with it
	}
	free()
	await(t, "a registration is taken", time.Minute, func() error { return register(t.Context(), conn, idle("after")) })
	s.clean("P2")
	roll, err := s.roll(registry)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, p := range roll {
		known[p.GetProducerId()] = true
	}
	for _, id := range acknowledged {
		if !known[id] {
			t.Errorf("P9: %s was acknowledged and is not on the roll", id)
		}
	}
}

// TestCollectorVolumeFull fills a collector's disk: it goes on collecting, and says
// that nothing is stored; with room it stores again: P10 and P11.
func TestCollectorVolumeFull(t *testing.T) {
	t.Parallel()
	s := build(t, plan{registries: 1, collectors: 2, producers: 60, volumes: map[string][]string{"collector-1": tmpfs(256)}})
	c := s.collectors[0]
	free := s.fill(c)
	began := time.Now()
	t.Logf("rollcall_sink_tsdb_failing tells it after %v", await(t, "the collector tells it", time.Minute, func() error { return s.failing(c, true) }))
	hold(t, 15*interval)
	if err := s.ready(c); err != nil {
		t.Errorf("a collector with a full disk is not ready: %v", err)
	}
	w, err := s.heard(began, time.Now().Add(-2*interval))
	if err != nil || w.longest > 5*interval {
		t.Errorf("P11: collecting did not go on: %v (%v)", w, err)
	}
	t.Log(w)
	free()
	t.Logf("it stores again after %v", await(t, "the collector stores again", time.Minute, func() error { return s.failing(c, false) }))
	s.steady(startLimit)
	hold(t, 5*interval)
	if v := s.verdict(s.fault); !v.clean() {
		t.Errorf("P10: missed after the disk had room: %v", &v)
	}
}

func (s *site) failing(c *container, want bool) error {
	value, err := s.metric(c, "rollcall_sink_tsdb_failing")
	if err == nil && (value == 1) != want {
		err = fmt.Errorf("rollcall_sink_tsdb_failing is %v", value)
	}
	return err
}
