package simulation

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"google.golang.org/grpc"
)

// Stories of the guard take hours and days, so their producers are slow: three
// intervals are more than the least that a dead one must have failed for.
const (
	slow     = 10 * time.Minute
	slowDead = 3 * slow
)

// guarded is a registry with a store that can forget, and a collector of a slow
// fleet.
type guarded struct {
	*world
	store     *registry.MemoryStore
	registry  *host
	collector *host
}

func guard(t *testing.T, ids []string, story func(g *guarded)) {
	t.Helper()
	simulate(t, func(w *world) {
		w.fleet.every = slow
		g := &guarded{world: w, store: registry.NewMemoryStore()}
		g.registry = w.registry(g.store)
		g.collector = w.collector("c-1")
		w.pass(time.Second)
		w.register(ids...)
		w.pass(time.Minute)
		w.collects("c-1", ids...)
		story(g)
	})
}

// forget has the registry lose producers without a word.
func (g *guarded) forget(ids ...string) {
	for _, id := range ids {
		g.store.Delete("/rollcall/v1/producers/" + id)
	}
	g.pass(time.Second)
}

// replace puts another store in the place of the registry's.
func (g *guarded) replace(store *registry.MemoryStore) {
	g.t.Helper()
	g.crash(g.registry, registryAddress)
	g.store = store
	g.registry = g.world.registry(store)
	g.pass(time.Minute)
}

// held is what the collector tells of whom it holds.
func (g *guarded) held() map[string]*collectorv1.HeldProducer {
	g.t.Helper()
	all := map[string]*collectorv1.HeldProducer{}
	err := g.client("c-1:7480", func(conn *grpc.ClientConn) error {
		for token := ""; ; {
			resp, err := collectorv1.NewCollectionServiceClient(conn).ListHeld(g.ctx, &collectorv1.ListHeldRequest{PageToken: token})
			if err != nil {
				return err
			}
			for _, h := range resp.GetHeld() {
				all[h.GetAssignment().GetProducerId()] = h
			}
			if token = resp.GetNextPageToken(); token == "" {
				return nil
			}
		}
	})
	if err != nil {
		g.fatalf("held: %v", err)
	}
	return all
}

func (g *guarded) wantHeld(n int) {
	g.t.Helper()
	if got := g.membership("c-1").GetHeldCount(); got != int64(n) || len(g.held()) != n {
		g.fatalf("%d held, %d are listed, want %d", got, len(g.held()), n)
	}
}

// released is how many holds ended for a reason.
func (g *guarded) released(reason string) int {
	return int(g.collector.metric(g.t, "rollcall_collector_releases_total", reason))
}

// TestEpochChangeIsGuarded: a store of another lineage that knows a part of the
// fleet takes nobody off; what it knows is accepted from it.
func TestEpochChangeIsGuarded(t *testing.T) {
	all := names(40)
	guard(t, all, func(g *guarded) {
		before := g.membership("c-1")
		g.replace(registry.NewMemoryStore())
		g.register(append([]string{"new"}, all[:10]...)...)
		g.pass(time.Second)
		g.collects("c-1", append([]string{"new"}, all...)...)
		g.wantHeld(30)
		m := g.membership("c-1")
		if m.GetEpoch() == before.GetEpoch() || m.GetAcceptedCount() != 11 || m.GetAppliedDigest() == m.GetAcceptedDigest() {
			t.Errorf("after the change: %v", m)
		}
		if epoch := g.held()[all[39]].GetEpoch(); epoch != before.GetEpoch() {
			t.Errorf("held of epoch %s, want the one that had it, %s", epoch, before.GetEpoch())
		}
		g.pass(8 * time.Hour)
		g.wantHeld(30)
		g.deregister(all[0])
		g.pass(time.Second)
		g.collects("c-1", append([]string{"new"}, all[1:]...)...)
	})
}

// TestSmallSetNeverWipes: the guard asks for names, not for shares: it is the same
// for a set of one.
func TestSmallSetNeverWipes(t *testing.T) {
	for n := range 3 {
		ids := names(n + 1)
		guard(t, ids, func(g *guarded) {
			g.forget(ids...)
			g.pass(6 * time.Hour)
			g.collects("c-1", ids...)
			g.wantHeld(n + 1)
		})
	}
}

// TestColdRegistryNeverWipes: a registry that is loaded in part, whichever part,
// takes nobody off, and when it is whole again nobody is held.
func TestColdRegistryNeverWipes(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 3))
	all := names(100)
	guard(t, all, func(g *guarded) {
		whole := g.store.Snapshot()
		for percent := 0; percent <= 100; percent += 10 {
			cold := registry.NewMemoryStore()
			cold.Restore(whole)
			lost := random.Perm(len(all))[percent:]
			for _, i := range lost {
				cold.Delete("/rollcall/v1/producers/" + all[i])
			}
			g.replace(cold)
			g.pass(40 * time.Minute)
			g.collects("c-1", all...)
			g.wantHeld(len(lost))
			warm := registry.NewMemoryStore()
			warm.Restore(whole)
			g.replace(warm)
			g.pass(time.Minute)
			g.wantHeld(0)
			whole = warm.Snapshot()
		}
		if n := g.collector.metric(t, "rollcall_collector_divergences_total"); n != 0 {
			t.Errorf("%v divergences", n)
		}
	})
}

// TestStaleNamesAreNotBelieved: a deregistration of an epoch before names nobody
// in this one.
func TestStaleNamesAreNotBelieved(t *testing.T) {
	all := names(5)
	guard(t, all, func(g *guarded) {
		g.deregister(all[4])
		g.pass(time.Second)
		backup := g.store.Snapshot() // which remembers that
		g.register(all[4])           // it is back
		g.pass(time.Minute)
		old := registry.NewMemoryStore()
		old.Restore(backup)
		g.replace(old) // behind what the collector has seen: a new epoch
		g.pass(10 * time.Minute)
		g.collects("c-1", all...)
		g.wantHeld(1)
		g.register(all[4])
		g.pass(time.Minute)
		g.wantHeld(0)
		g.deregister(all[4])
		g.pass(time.Second)
		g.collects("c-1", all[:4]...)
		g.wantHeld(0)
	})
}

// TestCollectorBlipKeepsHeld: while its own network is gone, a collector's
// failures say nothing of those that it holds.
func TestCollectorBlipKeepsHeld(t *testing.T) {
	all := names(20)
	guard(t, all, func(g *guarded) {
		g.replace(registry.NewMemoryStore())
		g.register(all[:15]...)
		g.pass(time.Hour)
		g.wantHeld(5)
		for range 3 {
			g.network.refuse(fleetAddress, true)
			g.network.reset(fleetAddress)
			g.pass(2 * time.Hour)
			g.network.refuse(fleetAddress, false)
			g.pass(time.Hour)
			g.collects("c-1", all...)
			g.wantHeld(5)
		}
	})
}

// TestGuardEnds: in one epoch, an unnamed removal of most of the fleet is held
// for a day, in everyone's sight, and then over within 100 minutes without
// anyone's help.
func TestGuardEnds(t *testing.T) {
	all := names(100)
	guard(t, all, func(g *guarded) {
		g.forget(all[:60]...)
		g.pass(time.Minute)
		g.wantHeld(60)
		if n := g.collector.metric(t, "rollcall_collector_held_producers"); n != 60 {
			t.Errorf("the gauge tells %v", n)
		}
		g.pass(24*time.Hour - 2*time.Minute)
		g.wantHeld(60)
		before := 60
		for range 102 {
			g.pass(time.Minute)
			now := int(g.membership("c-1").GetHeldCount())
			if before-now > 1 {
				t.Errorf("%d went in a minute", before-now)
			}
			before = now
		}
		g.wantHeld(0)
		g.collects("c-1", all[60:]...)
		if n := g.released("confirmed"); n != 60 {
			t.Errorf("%d were counted", n)
		}
		if m := g.membership("c-1"); m.GetAppliedDigest() != m.GetAcceptedDigest() || !m.GetPersisted() {
			t.Errorf("at the end: %v", m)
		}
	})
}

// TestGuardNeverEndsAgainstAnAnswer: after a change of epoch one that answers
// stays, however long; the dead go by what their own collections say.
func TestGuardNeverEndsAgainstAnAnswer(t *testing.T) {
	all := names(20)
	guard(t, all, func(g *guarded) {
		g.replace(registry.NewMemoryStore())
		g.register(all[:10]...)
		g.pass(time.Hour)
		g.wantHeld(10)
		g.fleet.die(all[10:14]...)
		g.pass(slowDead)
		g.wantHeld(10)
		g.pass(slow + time.Minute)
		g.wantHeld(6)
		if n := g.released("failing"); n != 4 {
			t.Errorf("%d were counted", n)
		}
		g.pass(26 * time.Hour)
		g.wantHeld(6)
		g.collects("c-1", slices.Concat(all[:10], all[14:])...)
	})
}

// TestHeldIsNotDivergence: a hold costs no resync: heartbeats and resume speak of
// the accepted set.
func TestHeldIsNotDivergence(t *testing.T) {
	all := names(200)
	guard(t, all, func(g *guarded) {
		g.forget(all[:120]...)
		g.pass(time.Hour)
		g.wantHeld(120)
		store := g.store
		g.replace(store)
		if n := g.registry.metric(t, "rollcall_registry_assignments_sent_total"); n != 0 {
			t.Errorf("%v assignments were sent again", n)
		}
		g.pass(time.Hour)
		if n := g.collector.metric(t, "rollcall_collector_divergences_total"); n != 0 {
			t.Errorf("%v divergences", n)
		}
		g.wantHeld(120)
		g.register(all[0])
		g.pass(time.Second)
		g.wantHeld(119)
	})
}

// TestConfirmationSurvivesRestart: a hold ends after a day of heartbeats in all;
// a restart costs at most a quarter of an hour of them.
func TestConfirmationSurvivesRestart(t *testing.T) {
	all := names(4)
	guard(t, all, func(g *guarded) {
		g.forget(all[0])
		for range 4 {
			g.pass(5 * time.Hour)
			confirmed := g.held()[all[0]].GetConfirmedDuration().AsDuration()
			g.crash(g.collector, "c-1:7480")
			g.pass(10 * time.Hour) // nobody confirms anything
			g.collector = g.world.collector("c-1")
			if kept := g.held()[all[0]].GetConfirmedDuration().AsDuration(); kept > confirmed || kept < confirmed-16*time.Minute {
				t.Errorf("%v of %v were kept", kept, confirmed)
			}
		}
		g.pass(3*time.Hour + 50*time.Minute)
		g.wantHeld(1)
		g.pass(90 * time.Minute)
		g.wantHeld(0)
		g.crash(g.collector, "c-1:7480")
		g.collector = g.world.collector("c-1")
		g.collects("c-1", all[1:]...)
	})
}

// TestOwnersGoAtOnce: 60 % of the fleet that their owners deregister go at once.
func TestOwnersGoAtOnce(t *testing.T) {
	all := names(1000)
	guard(t, all, func(g *guarded) {
		g.deregister(all[:600]...)
		g.pass(time.Second)
		g.collects("c-1", all[600:]...)
		g.wantHeld(0)
		if n := g.collector.metric(t, "rollcall_collector_holds_total"); n != 0 {
			t.Errorf("%v were held meanwhile", n)
		}
	})
}

// TestOperatorReleases: what an operator lets go of is gone for good.
func TestOperatorReleases(t *testing.T) {
	all := names(5)
	guard(t, all, func(g *guarded) {
		g.replace(registry.NewMemoryStore())
		g.wantHeld(5)
		err := g.client("c-1:7480", func(conn *grpc.ClientConn) error {
			resp, err := collectorv1.NewCollectionServiceClient(conn).ReleaseHeld(g.ctx,
				&collectorv1.ReleaseHeldRequest{ProducerIds: []string{all[0], "x"}})
			if err == nil && (resp.GetReleasedCount() != 1 || !resp.GetPersisted() || fmt.Sprint(resp.GetNotHeldProducerIds()) != "[x]") {
				t.Errorf("answered %v", resp)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		g.crash(g.collector, "c-1:7480")
		g.collector = g.world.collector("c-1")
		g.pass(time.Second)
		g.collects("c-1", all[1:]...)
	})
}
