package leader_test

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/leader"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
)

var permanent = roster.Life{Permanent: true}

// has are how many producers a collector was given, and how many it goes on with
// until another one collects them.
func (r *replica) has(id assignment.CollectorID) (assigned, leaving int) {
	r.t.Helper()
	s, _, err := r.Collector(r.t.Context(), id, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	return s.Assigned, s.Leaving
}

// expect fails unless a collector has so many.
func (r *replica) expect(id assignment.CollectorID, assigned, leaving int) {
	r.t.Helper()
	if a, l := r.has(id); a != assigned || l != leaving {
		r.t.Errorf("%s has %d and hands off %d, want %d and %d", id, a, l, assigned, leaving)
	}
}

// collect has a collector collect all that it was given, and tell.
func (r *replica) collect(id assignment.CollectorID) {
	r.t.Helper()
	var all []assignment.ProducerID
	if err := r.Look(func(v *roster.View) {
		for e := range v.Handoffs {
			if e.Collector == id {
				all = append(all, e.ID)
			}
		}
	}); err != nil {
		r.t.Fatal(err)
	}
	r.acknowledge(id, all...)
}

// TestAGoneCollector: what it had is handed off after its grace, not before, and
// it goes on with it by the record until another one has it. Back within its
// grace nothing moves.
func TestAGoneCollector(t *testing.T) {
	bubble(t, leader.Times{}, func(t *testing.T, m *store.Memory, r *replica) {
		c1 := r.join("c1")
		r.join("c2")
		r.join("c3")
		r.register(permanent, 0, 30)
		pass(2 * time.Minute)
		c1.Close(t.Context())
		pass(leader.DefaultAsk * 3)
		before := m.Revision()
		c1 = r.join("c1")
		pass(10 * time.Minute)
		for _, id := range []assignment.CollectorID{"c1", "c2", "c3"} {
			r.expect(id, 10, 0)
		}
		if wrote := m.Revision() - before; wrote > 2 {
			t.Errorf("a collector that was away for a moment cost %d writes", wrote)
		}
		c1.Close(t.Context())
		pass(registrar.DefaultGrace - time.Second)
		r.expect("c1", 10, 0)
		pass(15 * time.Second)
		r.expect("c1", 0, 10)
		r.expect("c2", 15, 0)
		if e := r.producer(producerID(0)); e.AssignReason != roster.PlacementGone && e.AssignReason != roster.PlacementLeastLoaded {
			t.Errorf("%+v", e)
		}
		r.collect("c2")
		r.collect("c3")
		pass(time.Second)
		r.expect("c1", 0, 0)
		r.join("c1")
		for range 20 {
			pass(30 * time.Second)
			r.collect("c1")
		}
		if a, _ := r.has("c1"); a == 0 {
			t.Error("one that came back was given nothing of what the others have too much of")
		}
	})
}

// TestMoreThanHalfGone: then it is the registry that is ill, more likely than
// they, and they have one more grace.
func TestMoreThanHalfGone(t *testing.T) {
	bubble(t, leader.Times{}, func(t *testing.T, _ *store.Memory, r *replica) {
		streams := []*registrar.Stream{r.join("c1"), r.join("c2"), r.join("c3")}
		r.register(permanent, 0, 30)
		pass(2 * time.Minute)
		streams[0].Close(t.Context())
		streams[1].Close(t.Context())
		pass(2*registrar.DefaultGrace - 2*time.Second)
		r.expect("c3", 10, 0)
		if testutil.ToFloat64(r.metrics.Half) != 1 {
			t.Error("nobody is told")
		}
		pass(15 * time.Second)
		r.expect("c3", 30, 0)
	})
}

// TestFlapping: a collector that is gone twice within an hour is given nothing
// new until it has been live for ten minutes.
func TestFlapping(t *testing.T) {
	bubble(t, leader.Times{Weigh: 24 * time.Hour}, func(t *testing.T, _ *store.Memory, r *replica) {
		c1 := r.join("c1")
		r.join("c2")
		r.register(permanent, 0, 2)
		next := 2
		given := func() bool {
			t.Helper()
			before, _ := r.has("c1")
			r.register(permanent, next, next+10)
			next += 10
			after, _ := r.has("c1")
			return after > before
		}
		bounce := func() {
			t.Helper()
			c1.Close(t.Context())
			pass(2 * time.Minute)
			r.collect("c2")
			c1 = r.join("c1")
			r.acknowledge("c1")
			pass(time.Minute)
			r.expect("c1", 0, 0)
		}
		bounce()
		if !given() {
			t.Fatal("one that was gone once is given nothing")
		}
		bounce()
		if given() {
			t.Error("one that was gone twice is given something")
		}
		if _, _, err := r.MoveProducer(t.Context(), producerID(0), "c1"); err == nil {
			t.Error("and an operator gives it something unawares")
		}
		pass(8 * time.Minute)
		if given() {
			t.Error("given something before it has been live for ten minutes")
		}
		pass(2 * time.Minute)
		if !given() {
			t.Error("given nothing although it has been live for ten minutes")
		}
	})
}

// TestDrain hands everything off, each producer first to the new one; what is
// registered meanwhile goes elsewhere; and it ends.
func TestDrain(t *testing.T) {
	bubble(t, leader.Times{}, func(t *testing.T, m *store.Memory, r *replica) {
		r.join("c1")
		if _, _, _, err := r.DrainCollector(t.Context(), "c1", roster.Drain{}, false); err == nil {
			t.Fatal("drained although nobody else is there")
		}
		r.join("c2")
		r.register(permanent, 0, 2000)
		before := m.Revision()
		_, plan, _, err := r.DrainCollector(t.Context(), "c1", roster.Drain{}, true)
		if err != nil || len(plan.Moves) != 1000 || m.Revision() != before {
			t.Fatalf("dry run: %+v, %v, wrote %d", plan, err, m.Revision()-before)
		}
		if _, _, _, err := r.DrainCollector(t.Context(), "c1", roster.Drain{}, false); err != nil {
			t.Fatal(err)
		}
		pass(3 * time.Second)
		r.expect("c1", 0, 1000)
		r.expect("c2", 2000, 0)
		r.register(permanent, 2000, 2010)
		r.collect("c2")
		pass(time.Second)
		r.expect("c1", 0, 0)
		r.expect("c2", 2010, 0)
		c1, _, err := r.Collector(t.Context(), "c1", 0)
		if err != nil || !c1.Drained() {
			t.Errorf("%+v, %v", c1, err)
		}
		pass(time.Hour)
		r.expect("c1", 0, 0)
		if _, _, err := r.UndrainCollector(t.Context(), "c1"); err != nil {
			t.Fatal(err)
		}
		r.register(permanent, 2010, 2011)
		r.expect("c1", 1, 0)
	})
}

// TestALateHandoffGoesBack: while the old one reaches it and the new one does
// not, the old one has it, and the new one is left alone for a while.
func TestALateHandoffGoesBack(t *testing.T) {
	bubble(t, leader.Times{Weigh: 24 * time.Hour}, func(t *testing.T, _ *store.Memory, r *replica) {
		r.join("c1")
		r.register(permanent, 0, 4)
		r.join("c2")
		r.fail(producerID(0), "c2")
		for i := range 4 {
			if _, _, err := r.MoveProducer(t.Context(), producerID(i), "c2"); err != nil {
				t.Fatal(err)
			}
		}
		r.acknowledge("c2", producerID(1), producerID(2), producerID(3))
		pass(leader.DefaultHandoff - 5*time.Second)
		if e := r.producer(producerID(0)); e.Collector != "c2" || e.HandoffFrom != "c1" {
			t.Fatalf("%+v", e)
		}
		pass(10 * time.Second)
		if e := r.producer(producerID(0)); e.Collector != "c1" || e.HandoffFrom != "" || e.AssignReason != roster.PlacementReturned {
			t.Fatalf("%+v", e)
		}
		r.expect("c2", 3, 0)
		// A drain of the old one has nowhere to give it for as long.
		if _, _, _, err := r.DrainCollector(t.Context(), "c1", roster.Drain{}, false); err != nil {
			t.Fatal(err)
		}
		pass(5 * time.Minute)
		if e := r.producer(producerID(0)); e.Collector != "c1" {
			t.Errorf("%+v was tried again", e)
		}
		if testutil.ToFloat64(r.metrics.Stuck) != 1 {
			t.Error("nobody is told that it is stuck")
		}
		r.mend(producerID(0))
		pass(6 * time.Minute)
		if e := r.producer(producerID(0)); e.Collector != "c2" || e.HandoffFrom != "c1" {
			t.Errorf("%+v was not tried again", e)
		}
	})
}

// TestSecondMoveKeepsFirstOwner: out of an unfinished handoff the one that has
// the producer keeps it, until the last one that was given it collects it.
func TestSecondMoveKeepsFirstOwner(t *testing.T) {
	bubble(t, leader.Times{}, func(t *testing.T, _ *store.Memory, r *replica) {
		r.join("c1")
		r.register(permanent, 0, 1)
		r.join("c2")
		r.join("c3")
		move := func(to, collector, from assignment.CollectorID) {
			t.Helper()
			if _, _, err := r.MoveProducer(t.Context(), producerID(0), to); err != nil {
				t.Fatal(err)
			}
			if e := r.producer(producerID(0)); e.Collector != collector || e.HandoffFrom != from {
				t.Fatalf("%s from %s, want %s from %s", e.Collector, e.HandoffFrom, collector, from)
			}
		}
		move("c2", "c2", "c1")
		move("c3", "c3", "c1")
		r.acknowledge("c2", producerID(0)) // too late, and not its own any more
		pass(time.Second)
		move("c1", "c1", "")
		move("c3", "c3", "c1")
		r.acknowledge("c3", producerID(0))
		pass(time.Second)
		move("c3", "c3", "")
	})
}

// TestUnreachableIsMoved: one that renews, and that its collector has not reached
// for a lease, is given to another one, once.
func TestUnreachableIsMoved(t *testing.T) {
	bubble(t, leader.Times{}, func(t *testing.T, _ *store.Memory, r *replica) {
		r.join("c1")
		r.register(mortal, 0, 1)
		r.join("c2")
		r.fail(producerID(0), "c1")
		for range 12 {
			r.register(mortal, 0, 1)
			pass(10 * time.Second)
		}
		if e := r.producer(producerID(0)); e.Collector != "c2" || e.HandoffFrom != "c1" || e.AssignReason != roster.PlacementUnreachable {
			t.Fatalf("%+v", e)
		}
		r.collect("c2")
		pass(time.Minute)
		if e := r.producer(producerID(0)); e.Collector != "c2" || e.HandoffFrom != "" {
			t.Fatalf("%+v", e)
		}
		if err := r.Look(func(v *roster.View) {
			if _, suspect := v.Suspect(producerID(0)); suspect {
				t.Error("it is suspected still")
			}
		}); err != nil {
			t.Fatal(err)
		}
	})
}

// TestEveningOut: when one collector has more than its share, as few as it takes
// are handed off, and not before everybody was heard.
func TestEveningOut(t *testing.T) {
	bubble(t, leader.Times{}, func(t *testing.T, _ *store.Memory, r *replica) {
		r.join("c1")
		r.join("c2")
		r.register(permanent, 0, 200)
		pass(2 * time.Minute)
		r.expect("c1", 100, 0)
		heavy := 0
		for i := 0; i < 200 && heavy < 20; i++ {
			if r.producer(producerID(i)).Collector == "c1" {
				r.weigh(producerID(i), 50)
				heavy++
			}
		}
		r.silence("c2", true)
		pass(3 * time.Minute)
		r.silence("c2", false)
		for range 40 {
			pass(30 * time.Second)
			r.collect("c2")
		}
		a1, _ := r.has("c1")
		a2, _ := r.has("c2")
		if a1 > 95 || a2 < 105 || a1 < 85 {
			t.Errorf("c1 has %d, c2 has %d", a1, a2)
		}
	})
}
