package simulation

import (
	"testing"
	"time"

	storev1 "github.com/rollcall-metrics/rollcall/gen/rollcall/store/v1"
	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// move gives producers to another collector as the registry would: by their
// records, the only place that says who has whom.
func (w *world) move(store *registry.MemoryStore, to string, ids ...string) {
	w.t.Helper()
	for _, id := range ids {
		key := "/rollcall/v1/producers/" + id
		var record storev1.ProducerRecord
		if err := proto.Unmarshal(store.Get(key), &record); err != nil || len(record.GetAssignment()) == 0 {
			w.fatalf("the record of %s: %v, %v", id, &record, err)
		}
		record.CollectorId = to
		record.AssignTime = timestamppb.Now()
		value, err := proto.Marshal(&record)
		if err != nil {
			w.fatalf("the record of %s: %v", id, err)
		}
		store.Put(key, value)
	}
	w.settle()
}

// collectedSince are the times at which a producer was collected after one.
func (w *world) collectedSince(start time.Time, id string) []time.Time {
	w.fleet.mu.Lock()
	defer w.fleet.mu.Unlock()
	var at []time.Time
	for _, hit := range w.fleet.hits[id] {
		if hit.After(start) {
			at = append(at, hit)
		}
	}
	return at
}

// shift is how far two times are from being whole intervals apart.
func shift(a, b time.Time) time.Duration {
	d := b.Sub(a).Abs() % interval
	return min(d, interval-d)
}

// TestSkewedHandoff: between collectors whose clocks differ, a producer that is
// moved has no gap longer than its interval and the skew, and the instants at
// which it is collected shift by no more than the skew.
//
// Today a move takes it from one and gives it to the other in the same revision.
// A handoff is to keep it with the first until the second has collected it; what
// holds here must hold then, too, and a second one that never comes must not
// matter any more.
func TestSkewedHandoff(t *testing.T) {
	for _, skew := range []time.Duration{0, 700 * time.Millisecond, -1300 * time.Millisecond, 3 * time.Second, -4 * time.Second} {
		t.Run(skew.String(), func(t *testing.T) {
			simulate(t, func(w *world) {
				store := registry.NewMemoryStore()
				w.registry(store)
				w.collector("c-1")
				w.pass(time.Second)
				all := names(40)
				w.register(all...)
				var clock wallClock
				clock.step(skew)
				w.collectorOf(collector.Config{ID: "c-2", Registries: []string{registryAddress}, Now: clock.now})
				start := time.Now()
				w.pass(time.Minute + 3*time.Second)

				moved := time.Now()
				w.move(store, "c-2", all...)
				w.pass(time.Minute)
				w.collects("c-1")
				w.collects("c-2", all...)
				back := time.Now()
				w.move(store, "c-1", all...)
				w.pass(time.Minute)
				w.collects("c-1", all...)
				w.collects("c-2")

				for _, id := range all {
					w.checkGaps(start, id, interval+skew.Abs()+100*time.Millisecond)
					before := w.collectedSince(start.Add(interval), id)[0]
					// A new owner's first collection is at once, beside the grid.
					for name, since := range map[string]time.Time{"there": moved.Add(time.Second), "back": back.Add(time.Second)} {
						after := w.collectedSince(since, id)[0]
						if by := shift(before, after); by > skew.Abs()+time.Millisecond {
							t.Errorf("%s: the move %s shifted its instants by %v, skew %v", id, name, by, skew)
						}
					}
				}
				for _, c := range []string{"c-1", "c-2"} {
					if n := w.membership(c).GetHeldCount(); n != 0 {
						t.Errorf("%s holds %d: a move names its removals", c, n)
					}
				}
			})
		})
	}
}

// checkGaps checks that a producer never waited longer than most.
func (w *world) checkGaps(start time.Time, id string, most time.Duration) {
	w.t.Helper()
	last := start
	for _, at := range append(w.collectedSince(start, id), time.Now()) {
		if gap := at.Sub(last); gap > most {
			w.t.Errorf("%s was not collected for %v before %v, at most %v is allowed", id, gap, at, most)
		}
		last = at
	}
}

// TestSecondMoveKeepsFirstOwner: a collector that is cut off from the registries
// keeps what it has, however often that is moved meanwhile. It is moved to one
// that is there and on to one that is not, so that nobody else collects it; and
// a registry that does not name the removal, for the producer is on its roll,
// does not end that.
//
// Today the first owner holds it, which is loud, until it is moved back or its
// removal is named. A handoff is to be told by the record: a second move keeps
// the first owner's name, so it is sent the producer again, and holds nothing.
func TestSecondMoveKeepsFirstOwner(t *testing.T) {
	simulate(t, func(w *world) {
		store := registry.NewMemoryStore()
		w.registry(store)
		w.registryAt(replica1, registry.Config{Memory: store})
		w.registryAt(replica2, registry.Config{Memory: store})
		w.follower("c-1", replica1)
		w.pass(time.Second)
		all := names(20)
		w.register(all...)
		w.follower("c-2", replica2)
		start := time.Now()
		w.pass(time.Minute)

		twice, once := all[:5], all[5:10]
		w.cut(replica1)
		w.move(store, "c-2", all[:10]...)
		w.pass(time.Minute)
		w.collects("c-1", all...)
		w.collects("c-2", all[:10]...)
		w.move(store, "c-3", twice...)
		w.pass(time.Minute)
		w.collects("c-1", all...)
		w.collects("c-2", once...)

		w.mend(replica1)
		w.pass(5 * time.Minute)
		m := w.membership("c-1")
		if !m.GetSubscribed() || m.GetAcceptedCount() != 10 || m.GetHeldCount() != 10 {
			t.Errorf("the first owner, back: %v", m)
		}
		w.collects("c-1", all...)
		w.noGap(start, time.Now(), all...)

		w.move(store, "c-1", twice...)
		w.pass(time.Minute)
		w.collects("c-1", all...)
		if m := w.membership("c-1"); m.GetAcceptedCount() != 15 || m.GetHeldCount() != 5 {
			t.Errorf("those that were moved back are held no more: %v", m)
		}
		w.noGap(start, time.Now(), all...)
	})
}
