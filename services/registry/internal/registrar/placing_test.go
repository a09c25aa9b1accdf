package registrar_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
)

// assigned is how many producers each collector has.
func (r *replica) assigned(t *testing.T) map[assignment.CollectorID]int {
	t.Helper()
	all, _, err := r.Collectors(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	n := map[assignment.CollectorID]int{}
	for _, c := range all {
		n[c.Collector.ID] = c.Assigned
	}
	return n
}

// TestOrphansArePlaced a moment after a collector is live, however many they
// are, and evenly over those that came within that moment.
func TestOrphansArePlaced(t *testing.T) {
	bubble(t, func(t *testing.T, _ *store.Memory, r *replica) {
		for from := 0; from < 2500; from += 500 {
			r.register(t, producers(from, from+500)...)
		}
		first, second := r.enlist(t, "c1", "a"), r.enlist(t, "c2", "a") // known, and not live
		time.Sleep(time.Hour)
		if n := r.assigned(t); n["c1"]+n["c2"] != 0 {
			t.Errorf("%v producers were given to nobody", n)
		}
		begin := time.Now()
		one := r.subscribe(t, first)
		time.Sleep(500 * time.Millisecond)
		two := r.subscribe(t, second)
		one.until(1250)
		two.until(1250)
		if took := time.Since(begin); took != time.Second {
			t.Errorf("it took %v", took)
		}
		e, _, err := r.Producer(t.Context(), producerID(7), 0)
		if err != nil || e.AssignReason != roster.PlacementLeastLoaded || !e.AssignTime.Equal(begin.Add(time.Second)) {
			t.Errorf("%+v, %v", e, err)
		}
	})
}

// TestOrphansArePlacedOnce by several replicas at once.
func TestOrphansArePlacedOnce(t *testing.T) {
	bubble(t, func(t *testing.T, m *store.Memory, r *replica) {
		serve(t, m.Open(), "r2")
		serve(t, m.Open(), "r3")
		r.register(t, producers(0, 500)...)
		before := m.Revision()
		member := r.join(t, "c1")
		member.until(500)
		time.Sleep(time.Minute)
		// Registered, subscribed, and each orphan written at most once.
		if writes := m.Revision() - before; writes > 502 {
			t.Errorf("%d revisions to place 500", writes)
		}
	})
}

// TestOrphansAreTriedAgain while the store refuses writes, and placed when it
// takes them again, though nothing else happens then.
func TestOrphansAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := store.NewMemory()
		s, d := faulty(t, m)
		member := serve(t, s, "r1").join(t, "c1")
		d.fail(store.OpCommit)
		var txns []roster.Txn
		for i := range 10 {
			p := &roster.Producer{ID: producerID(i), Stored: []byte("x")}
			txns = append(txns, roster.Txn{{Key: p.Key(), Record: p}})
		}
		if _, err := m.Open().Commit(t.Context(), txns); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		before := m.Revision()
		d.fail()
		member.until(10)
		if m.Revision() == before {
			t.Error("they were placed before")
		}
	})
}

// TestBatchesAreBalanced: handlers that place at the same moment know of each
// other.
func TestBatchesAreBalanced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := faulty(t, store.NewMemory())
		r := serve(t, s, "r1")
		for i := range 3 {
			r.join(t, assignment.CollectorID(fmt.Sprintf("c%d", i)))
		}
		d.close(store.OpCommit)
		var group sync.WaitGroup
		for n := range 10 {
			group.Go(func() { r.register(t, producers(n*31, n*31+31)...) })
		}
		synctest.Wait() // all of them have decided, none has committed
		d.open()
		group.Wait()
		got := r.assigned(t)
		if most, least := max(got["c0"], got["c1"], got["c2"]), min(got["c0"], got["c1"], got["c2"]); most > least+1 {
			t.Errorf("assigned %v", got)
		}
		// What was in flight has landed: the next one counts for itself.
		r.register(t, producers(310, 312)...)
		if diff := cmp.Diff(map[assignment.CollectorID]int{"c0": 104, "c1": 104, "c2": 104}, r.assigned(t)); diff != "" {
			t.Errorf("assigned (-want +got):\n%s", diff)
		}
	})
}

// TestUpdatesWeighNothing: a producer that has its collector already is not in
// flight to it.
func TestUpdatesWeighNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := store.NewMemory()
		s, d := faulty(t, m)
		r := serve(t, s, "r1")
		r.join(t, "c1")
		r.register(t, producers(0, 50)...)
		r.join(t, "c2")
		for i := range 48 {
			r.register(t, registrar.RegisterProducer{ID: producerID(50 + i), Stored: []byte("v1"), Hint: "c2"})
		}
		d.close(store.OpCommit)
		updates := producers(50, 98) // all of c2's
		for i := range updates {
			updates[i].Stored = []byte("v2")
		}
		var group sync.WaitGroup
		group.Go(func() { r.register(t, updates...) })
		synctest.Wait()
		group.Go(func() { r.register(t, producers(98, 100)...) })
		synctest.Wait()
		d.open()
		group.Wait()
		if diff := cmp.Diff(map[assignment.CollectorID]int{"c1": 50, "c2": 50}, r.assigned(t)); diff != "" {
			t.Errorf("assigned (-want +got):\n%s", diff)
		}
	})
}

// TestHint: a producer goes back to the collector it names, if that is known and
// is live or was a moment ago; one with a collector stays.
func TestHint(t *testing.T) {
	bubble(t, func(t *testing.T, _ *store.Memory, r *replica) {
		r.join(t, "c1")
		r.enlist(t, "away", "a")
		gone := r.join(t, "gone")
		gone.stream.Close(t.Context())
		time.Sleep(registrar.DefaultGrace - time.Second)
		hinted := func(id assignment.ProducerID, hint assignment.CollectorID) *roster.Producer {
			return r.register(t, registrar.RegisterProducer{ID: id, Stored: []byte("x"), Hint: hint})[0].Producer
		}
		if p := hinted("p1", "away"); p.Collector != "away" || p.AssignReason != roster.PlacementHint {
			t.Errorf("%+v", p)
		}
		if p := hinted("p0", "gone"); p.Collector != "gone" || p.AssignReason != roster.PlacementHint {
			t.Errorf("%+v", p)
		}
		time.Sleep(time.Second)
		if p := hinted("p3", "gone"); p.Collector != "c1" {
			t.Errorf("%+v is given to a collector that is gone", p)
		}
		if p := hinted("p2", "unknown"); p.Collector != "c1" || p.AssignReason != roster.PlacementLeastLoaded {
			t.Errorf("%+v", p)
		}
		if p := hinted("p2", "away"); p.Collector != "c1" {
			t.Errorf("%+v moved", p)
		}
	})
}
