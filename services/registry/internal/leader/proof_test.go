package leader_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/registry/internal/leader"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
)

// TestAnEarlierAcknowledgementEndsNothing: what a collector tells that it has
// collected ends a handoff only if it knew of that handoff, of this process, in
// this epoch, and on its disk.
func TestAnEarlierAcknowledgementEndsNothing(t *testing.T) {
	bubble(t, leader.Times{Weigh: 24 * time.Hour}, func(t *testing.T, _ *store.Memory, r *replica) {
		r.join("c1")
		r.register(permanent, 0, 1)
		r.join("c2")
		ack := registrar.Acknowledge{Generation: 1}
		ack.Persisted = true
		ack.Collector, ack.Instance = "c2", "c2"
		ack.CollectedIDs = append(ack.CollectedIDs, producerID(0))
		if err := r.Look(func(v *roster.View) { ack.Epoch, ack.Revision = v.Epoch(), v.Revision() }); err != nil {
			t.Fatal(err)
		}
		if _, _, err := r.MoveProducer(t.Context(), producerID(0), "c2"); err != nil {
			t.Fatal(err)
		}
		handing := func(when string, want bool) {
			t.Helper()
			if e := r.producer(producerID(0)); e.Collector != "c2" || (e.HandoffFrom == "c1") != want {
				t.Errorf("%s: it is given to %q, handed off from %q", when, e.Collector, e.HandoffFrom)
			}
		}
		if _, err := r.Acknowledge(t.Context(), ack); err != nil {
			t.Fatal(err)
		}
		handing("after an acknowledgement of before", true)
		ack.Revision = r.producer(producerID(0)).Revision
		ack.Persisted = false
		if _, err := r.Acknowledge(t.Context(), ack); err != nil {
			t.Fatal(err)
		}
		handing("after one of what is on no disk", true)
		ack.Persisted = true
		if _, err := r.Acknowledge(t.Context(), ack); err != nil {
			t.Fatal(err)
		}
		handing("at the end", false)
	})
}

// TestWritesAreFenced: a leader that is replaced between a decision and its write
// has decided nothing.
func TestWritesAreFenced(t *testing.T) {
	bubble(t, leader.Times{}, func(t *testing.T, m *store.Memory, r *replica) {
		r.join("c1")
		r.join("c2")
		r.register(permanent, 0, 10)
		pass(5 * time.Second)
		if _, _, _, err := r.DrainCollector(t.Context(), "c1", roster.Drain{}, false); err != nil {
			t.Fatal(err)
		}
		before := m.Revision()
		const key = "/rollcall/v1/leader"
		other := bytes.Replace(m.Get(key), []byte("r1"), []byte("r2"), 1)
		if bytes.Equal(other, m.Get(key)) {
			t.Fatalf("%q does not lead", "r1")
		}
		replaced := false
		m.Fail(func(op string) error {
			if op == store.OpCommit && !replaced {
				replaced = true
				m.Put(key, other)
			}
			return nil
		})
		pass(time.Minute)
		if !replaced {
			t.Fatal("the leader wrote nothing")
		}
		r.expect("c1", 5, 0)
		r.expect("c2", 5, 0)
		if n := m.Revision() - before; n > 2 {
			t.Errorf("%d writes", n)
		}
	})
}

// TestAWitnessThatFallsSilent: a suspect whose collector cannot be asked any more
// is not struck off, however long it is silent.
func TestAWitnessThatFallsSilent(t *testing.T) {
	bubble(t, leader.Times{}, func(t *testing.T, _ *store.Memory, r *replica) {
		r.join("c1")
		r.join("c2")
		r.register(mortal, 0, 40)
		dead := producerID(0)
		r.fail(dead)
		pass(mortal.ExpireAfter - time.Minute)
		r.silence(r.producer(dead).Collector, true)
		pass(time.Hour)
		if r.producer(dead) == nil {
			t.Fatal("struck off by one witness")
		}
		r.silence(r.producer(dead).Collector, false)
		pass(time.Minute)
		if r.producer(dead) != nil {
			t.Error("it is there although its collector was asked again")
		}
	})
}

// TestExpungedForAMoment: what was decided on a collector that was expunged, and is
// a member again, is not written: it would be told to let go of all at once.
func TestExpungedForAMoment(t *testing.T) {
	bubble(t, leader.Times{}, func(t *testing.T, m *store.Memory, r *replica) {
		r.join("c1")
		r.join("c2")
		r.register(permanent, 0, 10)
		pass(5 * time.Second)
		const key = "/rollcall/v1/collectors/c1"
		member := m.Get(key)
		if _, _, err := r.ExpungeCollector(t.Context(), "c1", true); err != nil {
			t.Fatal(err)
		}
		back := false
		m.Fail(func(op string) error {
			if op == store.OpCommit && !back {
				back = true
				m.Put(key, member)
			}
			return nil
		})
		pass(10 * time.Second)
		if !back {
			t.Fatal("the leader wrote nothing")
		}
		r.expect("c1", 5, 0)
		r.expect("c2", 5, 0)
	})
}
