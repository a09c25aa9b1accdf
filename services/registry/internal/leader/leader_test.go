package leader_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/leader"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
)

func leads(r *replica) bool { return testutil.ToFloat64(r.metrics.Leading) == 1 }

// TestOneLeads: of two replicas one leads, the other takes over when it is gone,
// and what a former leader decided is not written any more.
func TestOneLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := store.NewMemory()
		var cut atomic.Bool
		first := start(t, m.OpenFaulty(func(string) error {
			if cut.Load() {
				return errors.New("cut off")
			}
			return nil
		}), "r1", leader.Times{})
		pass(2 * time.Second)
		second := start(t, m.Open(), "r2", leader.Times{})
		pass(time.Minute)
		if !leads(first) || leads(second) {
			t.Fatalf("leading: %v and %v, want the first", leads(first), leads(second))
		}
		var former roster.LeaderEntry
		if err := second.Look(func(v *roster.View) { former = v.Leader() }); err != nil {
			t.Fatal(err)
		}
		cut.Store(true)
		pass(20 * time.Second)
		if leads(first) || !leads(second) {
			t.Fatalf("leading: %v and %v, want the second", leads(first), leads(second))
		}
		second.register(roster.Life{Permanent: true}, 0, 1)
		second.join("c1")
		pass(5 * time.Second)
		txn := former.Fenced(roster.Give(second.producer(producerID(0)), roster.Place{Collector: "c2"}, true, time.Now()))
		if did, err := second.Write(t.Context(), []roster.Txn{txn}); err != nil || did != 0 {
			t.Errorf("a former leader wrote %d, %v", did, err)
		}
		if e := second.producer(producerID(0)); e.Collector != "c1" {
			t.Errorf("%+v", e)
		}
	})
}

var mortal = roster.Life{Lease: time.Minute, ExpireAfter: 10 * time.Minute}

// TestTwoWitnesses: a producer that neither renews nor answers is struck off after
// its time, within a minute. One that renews, one that answers, one whose
// collector cannot be asked, and a permanent one never are.
func TestTwoWitnesses(t *testing.T) {
	bubble(t, leader.Times{}, func(t *testing.T, _ *store.Memory, r *replica) {
		r.join("c1")
		r.join("c2")
		r.register(mortal, 0, 40)
		r.register(roster.Life{Permanent: true}, 40, 60)
		dead, renewing, permanent := producerID(0), producerID(1), producerID(40)
		var unheard assignment.ProducerID
		for i := 2; i < 40; i++ {
			if id := producerID(i); r.producer(id).Collector != r.producer(dead).Collector && r.producer(renewing).Collector != r.producer(id).Collector {
				unheard = id
			}
		}
		if unheard == "" { // both on one collector: any of the other
			for i := 2; i < 40; i++ {
				if r.producer(producerID(i)).Collector != r.producer(dead).Collector {
					unheard = producerID(i)
				}
			}
		}
		for _, id := range []assignment.ProducerID{dead, renewing, permanent, unheard} {
			r.fail(id)
		}
		r.silence(r.producer(unheard).Collector, true)
		died := time.Now()
		for r.producer(dead) != nil && time.Since(died) < time.Hour {
			r.register(mortal, 1, 2)
			pass(5 * time.Second)
		}
		if took := time.Since(died); r.producer(dead) != nil || took < mortal.ExpireAfter || took > mortal.ExpireAfter+time.Minute {
			t.Errorf("struck off after %v, want %v and at most a minute", took, mortal.ExpireAfter)
		}
		for range 100 {
			r.register(mortal, 1, 2)
			pass(30 * time.Second)
		}
		if n := r.count(); n != 59 {
			t.Errorf("%d are left, want 59", n)
		}
		r.silence(r.producer(unheard).Collector, false)
		pass(2 * mortal.ExpireAfter)
		if r.producer(unheard) != nil {
			t.Errorf("%s is there although its collector was asked again", unheard)
		}
	})
}

// TestExpiredIsNamed: whoever was struck off is remembered as that, and its
// process may come back.
func TestExpiredIsNamed(t *testing.T) {
	bubble(t, leader.Times{}, func(t *testing.T, _ *store.Memory, r *replica) {
		r.join("c1")
		r.register(mortal, 0, 10)
		r.fail(producerID(0))
		pass(mortal.ExpireAfter + time.Minute)
		if err := r.Look(func(v *roster.View) {
			got, ok := v.Removed(producerID(0))
			if !ok || got.Cause != assignment.CauseExpired || got.Collector != "c1" {
				t.Errorf("removed: %v %+v", ok, got.Removed)
			}
			if _, suspect := v.Suspect(producerID(0)); suspect {
				t.Error("it is suspected still")
			}
		}); err != nil {
			t.Fatal(err)
		}
		r.mend(producerID(0))
		r.register(mortal, 0, 1) // by the same instance
		if e := r.producer(producerID(0)); e == nil || e.Collector != "c1" {
			t.Errorf("it came back as %+v", e)
		}
	})
}

// TestARenewalWins: one that renews while it is being judged stays. The strike is
// stopped between the judgement and its commit until the renewal is written.
func TestARenewalWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := store.NewMemory()
		var judged atomic.Pointer[replica]
		stopped, renewed := make(chan struct{}), make(chan struct{})
		var once sync.Once
		r1 := start(t, m.OpenFaulty(func(op string) error {
			if r := judged.Load(); r != nil && op == store.OpCommit && testutil.ToFloat64(r.metrics.Due) == 1 {
				once.Do(func() { close(stopped); <-renewed })
			}
			return nil
		}), "r1", leader.Times{})
		judged.Store(r1)
		pass(2 * time.Second)
		r2 := start(t, m.Open(), "r2", leader.Times{})
		r1.join("c1")
		r1.register(mortal, 0, 10)
		dead := producerID(0)
		r1.fail(dead)
		<-stopped
		if r2.producer(dead) == nil {
			t.Fatal("the strike was not stopped")
		}
		r2.register(mortal, 0, 1)
		close(renewed)
		pass(mortal.ExpireAfter - time.Minute)
		if r1.producer(dead) == nil || r2.producer(dead) == nil || testutil.ToFloat64(r1.metrics.Struck) != 0 {
			t.Fatal("struck off although it renewed before the strike was committed")
		}
		pass(2 * time.Minute)
		if r1.producer(dead) != nil || r2.producer(dead) != nil || testutil.ToFloat64(r1.metrics.Struck) != 1 {
			t.Error("the renewal keeps it for good")
		}
	})
}

// TestIllnessCountsAgainstNobody: while the store refuses writes, and while no
// registry runs, nobody's time runs out.
func TestIllnessCountsAgainstNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := store.NewMemory()
		r := start(t, m.Open(), "r1", leader.Times{})
		pass(2 * time.Second)
		r.join("c1")
		r.register(mortal, 0, 10)
		r.fail(producerID(0))
		pass(mortal.ExpireAfter / 2)
		m.Fail(func(op string) error {
			if op == store.OpCommit {
				return registrar.ErrFull
			}
			return nil
		})
		pass(24 * time.Hour)
		m.Fail(nil)
		pass(mortal.ExpireAfter/2 - time.Minute)
		if r.producer(producerID(0)) == nil {
			t.Fatal("the time of a full store counted")
		}
		if testutil.ToFloat64(r.metrics.Lost.WithLabelValues("ill")) == 0 {
			t.Error("and nobody was told of the time that did not count")
		}
		r.stop()
		pass(24 * time.Hour)
		r = start(t, m.Open(), "r1-again", leader.Times{})
		r.join("c1")
		r.fail(producerID(0))
		pass(mortal.ExpireAfter - time.Minute)
		if r.producer(producerID(0)) == nil {
			t.Fatal("the time without a registry counted, or that of the leader before")
		}
		pass(2 * time.Minute)
		if r.producer(producerID(0)) != nil {
			t.Error("it is never struck off")
		}
	})
}

// TestMassExpiry: 10,000 of 10,000 due at once are held, loudly, for one more
// lease, and go 100 a minute from then on, until all are gone. Nobody helps.
func TestMassExpiry(t *testing.T) {
	const fleet = 10_000
	bubble(t, leader.Times{Ask: 30 * time.Second}, func(t *testing.T, _ *store.Memory, r *replica) {
		r.join("c1")
		for i := 0; i < fleet; i += 1000 {
			r.register(mortal, i, i+1000)
		}
		for i := range fleet {
			r.fail(producerID(i))
		}
		pass(mortal.ExpireAfter + time.Minute)
		if n := r.count(); n != fleet {
			t.Fatalf("%d are left when they are due, want all", n)
		}
		if testutil.ToFloat64(r.metrics.Held) != 1 || testutil.ToFloat64(r.metrics.Due) != fleet {
			t.Errorf("held %v, due %v", testutil.ToFloat64(r.metrics.Held), testutil.ToFloat64(r.metrics.Due))
		}
		for minutes, before := 0, fleet; r.count() > 0; minutes++ {
			if minutes > 125 {
				t.Fatalf("%d are left after %d minutes", r.count(), minutes)
			}
			pass(time.Minute)
			n := r.count()
			if before-n > 2*fleet/100 {
				t.Errorf("%d went in one minute", before-n)
			}
			before = n
		}
		pass(time.Minute)
		if testutil.ToFloat64(r.metrics.Held) != 0 {
			t.Error("it is over, and held")
		}
	})
}

// TestExpiryIsConfirmed: an operator holds those that are due, or hastens them.
func TestExpiryIsConfirmed(t *testing.T) {
	bubble(t, leader.Times{}, func(t *testing.T, _ *store.Memory, r *replica) {
		r.join("c1")
		r.register(mortal, 0, 100)
		r.fail(producerID(0))
		if _, err := r.ConfirmExpiry(t.Context(), roster.ExpiryHold, 30*time.Minute); err != nil {
			t.Fatal(err)
		}
		pass(29 * time.Minute)
		if r.producer(producerID(0)) == nil {
			t.Error("struck off although it is held")
		}
		pass(2 * time.Minute)
		if r.producer(producerID(0)) != nil {
			t.Error("a hold does not end")
		}
		for i := range 100 {
			r.fail(producerID(i))
		}
		if _, err := r.ConfirmExpiry(t.Context(), roster.ExpiryHasten, time.Hour); err != nil {
			t.Fatal(err)
		}
		pass(mortal.ExpireAfter + time.Minute)
		if n := r.count(); n != 0 {
			t.Errorf("%d are left although they were hastened", n)
		}
	})
}
