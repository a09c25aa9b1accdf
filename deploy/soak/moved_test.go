package soak_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/deploy/internal/child"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
)

// TestMoved moves the store of a registry with a running fleet into an etcd of three
// members, and back into the registry. Each time the registry is stopped, and a
// registry on the other store takes its address. To the collectors that is a
// registry that was restarted: the same epoch, nothing is sent again, no collection
// is missed, and nobody is held.
func TestMoved(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds")
	}
	s, l, f := newOwnStore(t, commands(t))
	embedded := s.registries[0].Service
	data := filepath.Join(s.dir, embedded.Name)
	ids := named("fleet", 60)
	must(t, l.registerFleet(t.Context(), ids), f.await(t.Context(), ids, 2))
	from, epoch, revision := time.Now(), epochOf(t.Context(), t, s.collectors[0].GRPC), l.registered(t, "before")

	s.stop()
	ports, err := child.FreePorts(t.Context(), 2*members)
	must(t, err)
	clients, peers := ports[:members], ports[members:]
	plans := child.PlanEtcd(etcdCommand, s.dir, clients, peers)
	for i, m := range plans {
		tool(t, etcdutlCommand, "snapshot", "restore", filepath.Join(data, "member", "snap", "db"), "--skip-hash-check",
			"--name", m.Name, "--data-dir", filepath.Join(s.dir, m.Name),
			"--initial-cluster", clusterOf(plans, peers), "--initial-advertise-peer-urls", "http://"+peers[i])
	}
	s.etcd, err = start(t.Context(), plans)
	must(t, err)
	external := *embedded
	external.Args = append([]string{embedded.Args[0], "--etcd-endpoints", "http://" + strings.Join(clients, ",http://")}, embedded.Args[3:]...)
	s.restart(t, &external)
	revision = s.resumed(t, l, epoch, "outside", revision)

	s.stop()
	backup, back := filepath.Join(s.dir, "backup.db"), filepath.Join(s.dir, "back")
	tool(t, etcdctlCommand, "--endpoints", clients[0], "snapshot", "save", backup)
	tool(t, etcdutlCommand, "snapshot", "restore", backup, "--data-dir", back)
	end(s.etcd)
	s.etcd = nil
	again := *embedded
	again.Args = append([]string{embedded.Args[0], "--data-dir", back}, embedded.Args[3:]...)
	s.restart(t, &again)
	s.resumed(t, l, epoch, "inside", revision)
	missedNone(t, f, ids, from)
	if t.Failed() {
		s.keepLogs(t)
	}
}

func clusterOf(plans []*child.Service, peers []string) string {
	var all []string
	for i, m := range plans {
		all = append(all, m.Name+"=http://"+peers[i])
	}
	return strings.Join(all, ",")
}

// resumed waits until the collectors follow the one registry, and checks that it
// goes on from a revision as if it had always been there. It returns that of the
// producer that it registers.
func (s *site) resumed(t *testing.T, l *load, epoch, id string, after int64) int64 {
	t.Helper()
	must(t, until(t.Context(), s.settled))
	m, err := child.Scrape(t.Context(), "http://"+s.registries[0].HTTP+"/metrics")
	must(t, err)
	for name, value := range m {
		if strings.HasPrefix(name, "rollcall_registry_assignments_sent_total") && value != 0 {
			t.Errorf("%s is %v: something was sent again", name, value)
		}
	}
	revision := l.registered(t, id)
	if revision <= after {
		t.Errorf("the revision is %d after %d", revision, after)
	}
	for _, c := range s.collectors {
		if now := epochOf(t.Context(), t, c.GRPC); now != epoch {
			t.Errorf("the epoch of %s is %s, and was %s", c.Name, now, epoch)
		}
	}
	must(t, until(t.Context(), s.unheld))
	return revision
}

// registered registers one producer and returns its revision.
func (l *load) registered(t *testing.T, id string) int64 {
	t.Helper()
	r, err := l.replicas[0].RegisterProducer(t.Context(), &registryv1.RegisterProducerRequest{Producer: l.producer(id, id)})
	if err != nil {
		t.Fatal(fmt.Errorf("register %s: %w", id, err))
	}
	return r.GetRevision()
}
