package leader_test

import (
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/leader"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
)

// owners counts who has the producers 0..n-1, and how many of them are in a
// handoff.
func (r *replica) owners(n int) (have map[assignment.CollectorID]int, handing int) {
	r.t.Helper()
	have = map[assignment.CollectorID]int{}
	for i := range n {
		e := r.producer(producerID(i))
		have[e.Collector]++
		if e.HandoffFrom != "" {
			handing++
		}
	}
	return have, handing
}

// TestManyLateHandoffsGoBack: however many of them are late at once, none is
// finished at a collector that does not reach it while the old one does.
func TestManyLateHandoffsGoBack(t *testing.T) {
	const n = 2500
	bubble(t, leader.Times{Weigh: 24 * time.Hour}, func(t *testing.T, _ *store.Memory, r *replica) {
		r.join("a")
		r.register(permanent, 0, n)
		pass(5 * time.Second)
		r.join("b")
		for i := range n {
			r.fail(producerID(i), "b")
		}
		if _, _, _, err := r.DrainCollector(t.Context(), "a", roster.Drain{}, false); err != nil {
			t.Fatal(err)
		}
		pass(5 * time.Second)
		for range 14 {
			r.acknowledge("b")
			pass(5 * time.Second)
		}
		if have, handing := r.owners(n); have["a"] != n || handing != 0 {
			t.Errorf("%v, %d in a handoff, want all back", have, handing)
		}
	})
}

// TestManyUnreachableAreMoved: all that a collector does not reach are moved after
// a lease, and to all that can have them.
func TestManyUnreachableAreMoved(t *testing.T) {
	const n = 2500
	life := roster.Life{Lease: 10 * time.Minute, ExpireAfter: time.Hour}
	bubble(t, leader.Times{Weigh: 24 * time.Hour}, func(t *testing.T, _ *store.Memory, r *replica) {
		r.join("a")
		r.register(life, 0, n)
		pass(5 * time.Second)
		r.join("b")
		r.join("c")
		for i := range n {
			r.fail(producerID(i), "a")
		}
		for i := range 50 {
			pass(15 * time.Second)
			if i%10 == 0 {
				r.register(life, 0, n)
			}
			r.collect("b")
			r.collect("c")
		}
		have, _ := r.owners(n)
		if have["a"] != 0 || have["b"] < n/3 || have["c"] < n/3 {
			t.Errorf("%v, want all with b and c", have)
		}
	})
}

// TestSilenceIsNoTestimony: a collector that has just been started, or given a
// producer, says nothing of it yet. That neither strikes it off nor clears it.
func TestSilenceIsNoTestimony(t *testing.T) {
	bubble(t, leader.Times{Weigh: 24 * time.Hour}, func(t *testing.T, _ *store.Memory, r *replica) {
		r.join("a")
		r.register(mortal, 0, 20)
		pass(5 * time.Second)
		dead := producerID(0)
		r.fail(dead)
		for range 3 {
			pass(3 * time.Minute)
			r.forget(dead)
			pass(20 * time.Second)
			if r.producer(dead) == nil {
				t.Fatal("struck off without a witness")
			}
			r.fail(dead)
		}
		pass(2 * time.Minute)
		if r.producer(dead) != nil {
			t.Error("it is on the roll still: restarts of its collector have cleared it")
		}
	})
}

// TestOnceFlappedIsForgotten: what was gone twice within an hour, some time ago,
// is given producers like any other, also after a new subscription.
func TestOnceFlappedIsForgotten(t *testing.T) {
	bubble(t, leader.Times{Weigh: 24 * time.Hour}, func(t *testing.T, _ *store.Memory, r *replica) {
		a := r.join("a")
		r.join("b")
		r.register(permanent, 0, 4)
		for range 2 {
			a.Close(t.Context())
			pass(4 * time.Minute)
			r.collect("b")
			a = r.join("a")
			r.acknowledge("a")
			pass(11 * time.Minute)
			if _, _, err := r.MoveProducer(t.Context(), producerID(0), "a"); err != nil {
				t.Fatal(err)
			}
			r.collect("a")
			pass(5 * time.Second)
		}
		a.Close(t.Context()) // for a moment: a registry was started anew
		r.join("a")
		if _, _, err := r.MoveProducer(t.Context(), producerID(1), "a"); err != nil {
			t.Errorf("live for ten minutes, and a moment's absence closes it: %v", err)
		}
	})
}

// TestNobodyElseIsOpen: when every collector has been gone twice they are given
// what there is all the same; better than nobody.
func TestNobodyElseIsOpen(t *testing.T) {
	bubble(t, leader.Times{Weigh: 24 * time.Hour}, func(t *testing.T, _ *store.Memory, r *replica) {
		a := r.join("a")
		r.register(permanent, 0, 3)
		for range 2 {
			a.Close(t.Context())
			pass(5 * time.Minute)
			a = r.join("a")
			r.acknowledge("a")
			pass(time.Minute)
		}
		r.register(permanent, 3, 4)
		pass(15 * time.Second)
		if e := r.producer(producerID(3)); e.Collector != "a" {
			t.Errorf("%+v", e)
		}
	})
}

// TestEveryHandoffEnds: also one whose producer is dead and whose new collector
// never acknowledges, and without asking all the time.
func TestEveryHandoffEnds(t *testing.T) {
	bubble(t, leader.Times{Weigh: 24 * time.Hour}, func(t *testing.T, _ *store.Memory, r *replica) {
		r.join("a")
		r.register(permanent, 0, 3)
		pass(5 * time.Second)
		r.join("b")
		r.fail(producerID(0))
		if _, _, err := r.MoveProducer(t.Context(), producerID(0), "b"); err != nil {
			t.Fatal(err)
		}
		pass(5 * time.Minute)
		if e := r.producer(producerID(0)); e.Collector != "a" || e.HandoffFrom != "" {
			t.Errorf("without a third it is with %s from %s, want back with a", e.Collector, e.HandoffFrom)
		}
		r.join("c")
		if _, _, err := r.MoveProducer(t.Context(), producerID(0), "b"); err != nil {
			t.Fatal(err)
		}
		pass(70 * time.Second)
		r.collect("c")
		if e := r.producer(producerID(0)); e.Collector != "c" {
			t.Errorf("with a third it is with %s", e.Collector)
		}
		if n := r.questions(); n > 200 {
			t.Errorf("%d questions were put in six minutes", n)
		}
	})
}
