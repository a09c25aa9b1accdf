package simulation

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/registry"
)

func TestRegistrationBecomesCollection(t *testing.T) {
	simulate(t, func(w *world) {
		w.registry(registry.NewMemoryStore())
		w.collector("c-1")
		w.pass(time.Second)
		start := time.Now()
		w.register("a", "b")
		w.pass(100 * time.Millisecond)
		w.collects("c-1", "a", "b")
		for _, id := range []string{"a", "b"} {
			if n := w.fleet.count(id); n != 1 {
				t.Errorf("%s was collected %d times after %v, want once", id, n, time.Since(start))
			}
		}
		w.pass(time.Minute)
		w.noGap(start, time.Now(), "a", "b")
		w.deregister("a")
		w.pass(100 * time.Millisecond)
		w.collects("c-1", "b")
	})
}

// TestReliable: after live, the set at the collector equals the registry's,
// whatever comes and goes.
func TestReliable(t *testing.T) {
	simulate(t, func(w *world) {
		w.registry(registry.NewMemoryStore())
		c := w.collector("c-1")
		w.pass(time.Second)
		random := rand.New(rand.NewPCG(1, 2))
		all := names(200)
		var model []string
		for range 60 {
			var come, gone []string
			for _, id := range all {
				if random.IntN(20) > 0 {
					continue
				}
				if slices.Contains(model, id) {
					gone = append(gone, id)
				} else {
					come = append(come, id)
				}
			}
			w.register(come...)
			w.deregister(gone...)
			model = slices.DeleteFunc(append(model, come...), func(id string) bool { return slices.Contains(gone, id) })
			w.pass(time.Duration(random.IntN(8000)) * time.Millisecond)
			w.collects("c-1", model...)
		}
		w.pass(time.Minute)
		if n := c.metric(t, "rollcall_collector_divergences_total"); n != 0 {
			t.Errorf("%v heartbeats told another set", n)
		}
		if n := c.metric(t, "rollcall_collector_refused_snapshots_total"); n != 0 {
			t.Errorf("%v snapshots were refused", n)
		}
		if n := c.metric(t, "rollcall_collector_holds_total"); n != 0 {
			t.Errorf("%v removals were not named", n)
		}
	})
}

// TestResumeExact: with k changes while away, about k buckets are sent.
func TestResumeExact(t *testing.T) {
	simulate(t, func(w *world) {
		r := w.registry(registry.NewMemoryStore())
		w.collector("c-1")
		w.pass(time.Second)
		all := names(4000)
		w.register(all...)
		w.pass(time.Second)
		w.collects("c-1", all...)

		w.network.refuse(registryAddress, true)
		w.network.reset(registryAddress)
		w.pass(time.Second)
		// The fleet is still reached through another link.
		w.network.refuse(registryAddress, false)
		w.register("new-1")
		w.deregister(all[7])
		sent := r.metric(t, "rollcall_registry_assignments_sent_total")
		w.pass(time.Minute)
		w.collects("c-1", append(slices.DeleteFunc(slices.Clone(all), func(id string) bool { return id == all[7] }), "new-1")...)
		sent = r.metric(t, "rollcall_registry_assignments_sent_total") - sent
		// 4,000 producers are 64 buckets of about 63.
		if sent > 2*130 {
			t.Errorf("%v assignments were sent again for two changes", sent)
		}
		if n := w.membership("c-1").GetHeldCount(); n != 0 {
			t.Errorf("%d held: the registry did not explain the deregistration", n)
		}
	})
}

// TestManyDeregisteredWhileAway: what was rightly taken off while nobody listened
// is explained, however much it is.
func TestManyDeregisteredWhileAway(t *testing.T) {
	simulate(t, func(w *world) {
		w.registry(registry.NewMemoryStore())
		w.collector("c-1")
		w.pass(time.Second)
		all := names(3500)
		w.register(all...)
		w.pass(time.Second)
		w.network.silence(registryAddress)
		w.deregister(all[:3400]...)
		w.pass(30 * time.Second)
		w.collects("c-1", all[3400:]...)
		if m := w.membership("c-1"); m.GetHeldCount() != 0 || m.GetAcceptedCount() != 100 {
			t.Errorf("after they were explained: %v", m)
		}
	})
}

// TestResumeSurvivesRegistryRestart: nothing changed, nothing is sent again.
func TestResumeSurvivesRegistryRestart(t *testing.T) {
	simulate(t, func(w *world) {
		store := registry.NewMemoryStore()
		r := w.registry(store)
		w.collector("c-1")
		w.pass(time.Second)
		all := names(300)
		w.register(all...)
		w.pass(time.Second)
		start := time.Now()
		for range 3 {
			w.pass(20 * time.Second)
			w.crash(r, registryAddress)
			w.pass(40 * time.Second)
			r = w.registry(store)
			w.pass(time.Minute)
			if n := r.metric(t, "rollcall_registry_assignments_sent_total"); n != 0 {
				t.Errorf("%v assignments were sent again", n)
			}
			if n := r.metric(t, "rollcall_registry_snapshots_sent_total"); n != 1 {
				t.Errorf("%v snapshots were sent, want the one that proves that nothing changed", n)
			}
			if m := w.membership("c-1"); !m.GetSubscribed() || m.GetAcceptedCount() != 300 {
				t.Errorf("after the restart: %v", m)
			}
		}
		w.noGap(start, time.Now(), all...)
	})
}

// TestNoSilentGap: an outage of the registry, however long, costs nothing.
func TestNoSilentGap(t *testing.T) {
	simulate(t, func(w *world) {
		store := registry.NewMemoryStore()
		r := w.registry(store)
		w.collector("c-1")
		w.pass(time.Second)
		all := names(20)
		w.register(all...)
		start := time.Now()
		w.pass(time.Minute)
		w.crash(r, registryAddress)
		w.pass(2 * time.Hour)
		w.collects("c-1", all...)
		w.registry(store)
		w.pass(time.Minute)
		w.collects("c-1", all...)
		w.noGap(start, time.Now(), all...)
	})
}

// TestEmptyNeverWipes: a registry that came back empty names nobody, so nobody
// is struck off; a deregistration works at once again when it knows the
// producer again.
func TestEmptyNeverWipes(t *testing.T) {
	for name, n := range map[string]int{"many": 200, "one": 1} { // SmallSetNeverWipes
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				r := w.registry(registry.NewMemoryStore())
				c := w.collector("c-1")
				w.pass(time.Second)
				all := names(n)
				w.register(all...)
				start := time.Now()
				w.pass(time.Minute)
				w.crash(r, registryAddress)
				w.registry(registry.NewMemoryStore())
				w.pass(30 * time.Minute)
				w.collects("c-1", all...)
				m := w.membership("c-1")
				if !m.GetSubscribed() || m.GetAcceptedCount() != 0 || m.GetHeldCount() != int64(n) {
					t.Errorf("with an empty registry: %v", m)
				}
				if held := c.metric(t, "rollcall_collector_held_producers"); held != float64(n) {
					t.Errorf("the gauge tells %v held", held)
				}
				w.register(all...)
				w.pass(time.Minute)
				w.noGap(start, time.Now(), all...)
				if m := w.membership("c-1"); m.GetHeldCount() != 0 || m.GetAcceptedCount() != int64(n) {
					t.Errorf("after all registered again: %v", m)
				}
				w.deregister(all[0])
				w.pass(time.Second)
				w.collects("c-1", all[1:]...)
			})
		})
	}
}

// TestOfflineStart: a collector that restarts while no registry answers collects
// its last sealed set at once.
func TestOfflineStart(t *testing.T) {
	simulate(t, func(w *world) {
		store := registry.NewMemoryStore()
		r := w.registry(store)
		c := w.collector("c-1")
		w.pass(time.Second)
		all := names(100)
		w.register(all...)
		w.pass(time.Minute)
		w.crash(r, registryAddress)
		w.crash(c, "c-1:7480")
		before := w.fleet.count(all[0])
		w.pass(time.Minute)
		if n := w.fleet.count(all[0]); n != before {
			t.Fatalf("collected %d times by nobody", n-before)
		}
		w.collector("c-1")
		w.pass(time.Second)
		for _, id := range all {
			if w.fleet.count(id) <= before {
				t.Errorf("%s was not collected within a second of the start", id)
			}
		}
		w.collects("c-1", all...)
		w.registry(store)
		w.pass(time.Minute)
		w.collects("c-1", all...)
		if m := w.membership("c-1"); !m.GetSubscribed() || m.GetHeldCount() != 0 {
			t.Errorf("after the registry came back: %v", m)
		}
	})
}

// TestHeldSurvivesRestart: what is held is still held, and collected, by the next
// process.
func TestHeldSurvivesRestart(t *testing.T) {
	simulate(t, func(w *world) {
		r := w.registry(registry.NewMemoryStore())
		c := w.collector("c-1")
		w.pass(time.Second)
		all := names(30)
		w.register(all...)
		w.pass(time.Minute)
		w.crash(r, registryAddress)
		w.registry(registry.NewMemoryStore())
		w.pass(time.Minute)
		w.crash(c, "c-1:7480")
		w.collector("c-1")
		w.pass(time.Minute)
		w.collects("c-1", all...)
		if m := w.membership("c-1"); m.GetHeldCount() != 30 {
			t.Errorf("after the restart: %v", m)
		}
	})
}

// TestHalfOpenDetected: a link that falls silent is given up after three
// heartbeats, and nobody is missed meanwhile.
func TestHalfOpenDetected(t *testing.T) {
	simulate(t, func(w *world) {
		w.registry(registry.NewMemoryStore())
		w.collector("c-1")
		w.pass(time.Second)
		all := names(10)
		w.register(all...)
		start := time.Now()
		w.pass(time.Minute)
		w.network.silence(registryAddress)
		w.register("late")
		w.pass(20 * time.Second)
		w.collects("c-1", append(all, "late")...)
		w.noGap(start, time.Now(), all...)
	})
}

// TestSameIdNoPingPong: of two processes with one id the newer one has the
// stream, for good; the older one goes on collecting.
func TestSameIdNoPingPong(t *testing.T) {
	simulate(t, func(w *world) {
		r := w.registry(registry.NewMemoryStore())
		older := w.collector("c-1")
		w.pass(time.Second)
		all := names(10)
		w.register(all...)
		w.pass(time.Minute)
		dir := w.fleet.dir
		w.fleet.dir = t.TempDir()
		newer := w.collector("c-1")
		w.fleet.dir = dir
		w.pass(time.Second)
		w.collects("c-1", all...)
		ended := newer.metric(t, "rollcall_collector_subscriptions_ended_total")
		subscribed := r.metric(t, "rollcall_registry_snapshots_sent_total")
		before := w.fleet.count(all[0])
		w.pass(10 * time.Minute)
		if n := newer.metric(t, "rollcall_collector_subscriptions_ended_total"); n != ended {
			t.Errorf("the newer one lost its stream %v times", n-ended)
		}
		if n := r.metric(t, "rollcall_registry_snapshots_sent_total"); n != subscribed {
			t.Errorf("%v snapshots were sent while nothing changed", n-subscribed)
		}
		if n := older.metric(t, "rollcall_collector_subscriptions_ended_total", "superseded"); n < 15 || n > 45 {
			t.Errorf("the older one tried %v times in ten minutes, want once in 15 to 30 s", n)
		}
		// Both collect: that is the price of not believing a silent registry.
		if n := w.fleet.count(all[0]) - before; n != 2*60 {
			t.Errorf("collected %d times in ten minutes, want 120", n)
		}
	})
}

// TestPlannedStop: a registry that is stopped sends its collectors away, and a
// rolling restart misses no collection.
func TestPlannedStop(t *testing.T) {
	simulate(t, func(w *world) {
		store := registry.NewMemoryStore()
		r := w.registry(store)
		c := w.collector("c-1")
		w.pass(time.Second)
		all := names(50)
		w.register(all...)
		start := time.Now()
		w.pass(time.Minute)
		r.terminate(t)
		w.pass(time.Millisecond) // the collector has heard it
		if n := c.metric(t, "rollcall_collector_subscriptions_ended_total", "go_away"); n != 1 {
			t.Errorf("%v streams ended by a GoAway", n)
		}
		r = w.registry(store)
		w.pass(10 * time.Second)
		if m := w.membership("c-1"); !m.GetSubscribed() {
			t.Errorf("not back after a planned restart: %v", m)
		}
		if n := r.metric(t, "rollcall_registry_assignments_sent_total"); n != 0 {
			t.Errorf("%v assignments were sent again", n)
		}
		w.noGap(start, time.Now(), all...)
	})
}
