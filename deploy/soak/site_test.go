package soak_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/deploy/internal/child"
)

const (
	members    = 3 // of etcd
	registries = 3
	collectors = 2
)

// What make etcd builds.
const (
	etcdCommand    = "../../bin/etcd"
	etcdctlCommand = "../../bin/etcdctl"
	etcdutlCommand = "../../bin/etcdutl"
)

// A site is all processes. It belongs to the goroutine that starts them.
type site struct {
	dir        string
	etcd       []*child.Child
	registries []*child.Child
	collectors []*child.Child
}

// commands builds the services, and returns the directory in which they are.
func commands(t *testing.T) string {
	t.Helper()
	for _, command := range []string{etcdCommand, etcdctlCommand, etcdutlCommand} {
		if _, err := os.Stat(command); err != nil {
			if os.Getenv("ROLLCALL_REQUIRE_ALL") == "1" {
				t.Fatalf("%v: make etcd builds it", err)
			}
			t.Skipf("%v: make etcd builds it", err)
		}
	}
	bin := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../../services/cmd/registry", "../../services/cmd/collector", "../../services/cmd/rollcall")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return bin
}

// newSite starts all processes; they end with the test. The goroutine is locked
// to its thread.
func newSite(t *testing.T, bin string) *site {
	t.Helper()
	s := &site{dir: t.TempDir()}
	t.Cleanup(s.end)
	ports, err := child.FreePorts(t.Context(), 2*(members+registries+collectors))
	if err != nil {
		t.Fatal(err)
	}
	take := func(n int) []string {
		taken := ports[:n]
		ports = ports[n:]
		return taken
	}
	must := func(started []*child.Child, err error) []*child.Child {
		t.Helper()
		if err != nil {
			t.Fatalf("%v (logs in %s)", err, s.dir)
		}
		return started
	}
	clients := take(members)
	s.etcd = must(start(t.Context(), child.PlanEtcd(etcdCommand, s.dir, clients, take(members))))
	var plans []*child.Service
	for i := range registries {
		at := take(2)
		name := fmt.Sprintf("registry-%d", i)
		plans = append(plans, &child.Service{
			Name: name, GRPC: at[0], HTTP: at[1], Log: filepath.Join(s.dir, name+".log"),
			Args: []string{
				filepath.Join(bin, "registry"), "--name", name, "--etcd-endpoints", "http://" + strings.Join(clients, ",http://"),
				"--no-self-register", "--listen", at[0], "--http-listen", at[1], "--log-format", "text",
			},
		})
	}
	s.registries = must(start(t.Context(), plans))
	plans = nil
	for i := range collectors {
		at := take(2)
		id := fmt.Sprintf("collector-%d", i)
		more := []string{"--id", id, "--no-self-register"}
		for _, r := range s.registries {
			more = append(more, "--registry", r.GRPC)
		}
		plans = append(plans, child.Plan(filepath.Join(bin, "collector"), id, s.dir, at[0], at[1], more...))
	}
	s.collectors = must(start(t.Context(), plans))
	return s
}

// start starts processes and waits until all are ready. With an error it has
// ended them.
func start(ctx context.Context, plans []*child.Service) ([]*child.Child, error) {
	var started []*child.Child
	for _, plan := range plans {
		c, err := child.Start(plan)
		if err != nil {
			end(started)
			return nil, err
		}
		started = append(started, c)
	}
	if err := child.AwaitReady(ctx, started...); err != nil {
		end(started)
		return nil, err
	}
	return started, nil
}

func end(all []*child.Child) {
	for _, c := range all {
		c.Kill()
	}
}

func (s *site) end() {
	end(s.collectors)
	end(s.registries)
	end(s.etcd)
}

// killOne kills a registry or a member of etcd, starts it again after a moment,
// and waits until all are ready. It tells whom.
func (s *site) killOne(ctx context.Context) (string, error) {
	kind := s.registries
	if rand.IntN(2) == 0 {
		kind = s.etcd
	}
	at := rand.IntN(len(kind))
	victim := kind[at]
	victim.Kill()
	moment := time.NewTimer(time.Duration(rand.IntN(3000)) * time.Millisecond)
	defer moment.Stop()
	select {
	case <-moment.C:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	again, err := child.Start(victim.Service)
	if err != nil {
		return "", err
	}
	kind[at] = again
	all := append(append([]*child.Child(nil), s.etcd...), s.registries...)
	return victim.Name, errors.Join(child.AwaitReady(ctx, all...), s.ended())
}

// ended tells who has ended unasked.
func (s *site) ended() error {
	for _, kind := range [][]*child.Child{s.etcd, s.registries, s.collectors} {
		for _, c := range kind {
			if c.Ended() {
				return fmt.Errorf("%s has ended: %s (see %s)", c.Name, c.How(), c.Log)
			}
		}
	}
	return nil
}

// settled tells why not all collectors follow a registry.
func (s *site) settled(ctx context.Context) error {
	for _, c := range s.collectors {
		m, err := child.Scrape(ctx, "http://"+c.HTTP+"/metrics")
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", c.Name, err)
		case m["rollcall_collector_subscribed"] != 1:
			return fmt.Errorf("%s follows nobody", c.Name)
		}
	}
	return nil
}

// keepLogs copies the logs of all processes to where they outlive the test.
func (s *site) keepLogs(t *testing.T) {
	t.Helper()
	to, err := os.MkdirTemp("", "rollcall-soak") //nolint:usetesting // it outlives the test
	if err != nil {
		t.Error(err)
		return
	}
	logs, _ := filepath.Glob(filepath.Join(s.dir, "*.log"))
	for _, path := range logs {
		text, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(filepath.Join(to, filepath.Base(path)), text, 0o600)
		}
		if err != nil {
			t.Error(err)
		}
	}
	t.Logf("the logs are in %s", to)
}
