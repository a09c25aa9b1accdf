package simulation

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"google.golang.org/grpc"
)

// unmoved has a registry move nothing for balance.
var unmoved = registry.Times{Weigh: 1000 * time.Hour}

// steadyRegistry starts a registry that moves nothing for balance.
func (w *world) steadyRegistry() *host {
	w.t.Helper()
	return w.registryAt(registryAddress, registry.Config{Memory: registry.NewMemoryStore(), Times: unmoved})
}

// move has an operator give producers to a collector.
func (w *world) move(to string, ids ...string) {
	w.t.Helper()
	err := w.client(registryAddress, func(conn *grpc.ClientConn) error {
		for _, id := range ids {
			resp, err := registryv1.NewPlacementServiceClient(conn).MoveProducer(w.ctx,
				&registryv1.MoveProducerRequest{ProducerId: id, CollectorId: to})
			if err == nil && !resp.GetChanged() {
				err = fmt.Errorf("%s was not moved", id)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		w.fatalf("move to %s: %v", to, err)
	}
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

// instants are a sink that several collectors share: how often each producer has
// a sample under each time stamp, and how many of them say that it is down.
type instants struct {
	mu   sync.Mutex
	of   map[string]map[int64]int
	down int
}

// Write takes a batch.
func (n *instants) Write(_ context.Context, b *collector.Batch) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range b.Samples {
		if s.Series.Labels().Get("__name__") != "up" {
			continue
		}
		id := s.Series.Labels().Get("id")
		if n.of[id] == nil {
			n.of[id] = map[int64]int{}
		}
		n.of[id][s.Time]++
		if s.Value == 0 {
			n.down++
		}
	}
	return nil
}

// check judges what is stored of producers that were collected all the time:
// an instant for each interval, one of them twice for each move at most, and
// never that one is down.
func (n *instants) check(t *testing.T, moves int, since time.Time, ids ...string) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.down != 0 {
		t.Errorf("%d samples say that a producer is down", n.down)
	}
	if len(n.of) == 0 {
		t.Error("nothing is stored")
	}
	for _, id := range ids {
		twice := 0
		var at []int64
		for stamp, times := range n.of[id] {
			twice += times - 1
			at = append(at, stamp)
		}
		if twice > moves {
			t.Errorf("%s: %d instants are stored twice, at most %d are allowed", id, twice, moves)
		}
		slices.Sort(at)
		for i, stamp := range at[1:] {
			// The first one is of the moment at which it was registered.
			if by := time.Duration(stamp-at[i]) * time.Millisecond; i > 0 && by != interval && !time.UnixMilli(stamp).Before(since) {
				t.Errorf("%s: instants %v apart are stored, before %v", id, by, time.UnixMilli(stamp))
			}
		}
	}
}

// follow starts a collector whose clock is ahead of the world's, with a sink.
func (w *world) follow(id string, ahead time.Duration, sink collector.Sink) {
	w.t.Helper()
	var clock wallClock
	clock.step(ahead)
	w.collectorOf(collector.Config{ID: id, Registries: []string{registryAddress}, Now: clock.now, Sink: sink})
}

// TestSkewedHandoff: between collectors whose clocks differ, a producer that is
// moved is collected by the first until the second has collected it. So it has no
// gap longer than its interval and the skew, and its instants stay: what is
// stored has each of them, and one for each move twice at most.
func TestSkewedHandoff(t *testing.T) {
	for _, skew := range []time.Duration{0, 700 * time.Millisecond, -1300 * time.Millisecond, 3 * time.Second, -4 * time.Second} {
		t.Run(skew.String(), func(t *testing.T) {
			simulate(t, func(w *world) {
				w.steadyRegistry()
				stored := &instants{of: map[string]map[int64]int{}}
				w.follow("c-1", 0, stored)
				w.pass(time.Second)
				all := names(40)
				w.labelled(interval, all, func(*registryv1.Producer) {})
				w.follow("c-2", skew, stored)
				start := time.Now()
				w.pass(time.Minute + 3*time.Second)

				w.move("c-2", all...)
				w.pass(2 * time.Second) // who is due within one waits for that
				w.collects("c-1")
				w.collects("c-2", all...)
				w.pass(time.Minute)
				w.move("c-1", all...)
				w.pass(2 * time.Second) // who is due within one waits for that
				w.collects("c-1", all...)
				w.collects("c-2")
				w.pass(time.Minute)

				w.checkGaps(start, interval+skew.Abs()+100*time.Millisecond, all...)
				stored.check(t, 2, start, all...)
				for _, c := range []string{"c-1", "c-2"} {
					if n := w.membership(c).GetHeldCount(); n != 0 {
						t.Errorf("%s holds %d: a move names its removals", c, n)
					}
				}
			})
		})
	}
}

// TestTargetThatNeverComes: whoever is given a producer and does not come to
// collect it does not matter: the first one goes on, and has it again after the
// time-out.
func TestTargetThatNeverComes(t *testing.T) {
	for name, fault := range map[string]func(w *world, on bool){
		"cut off from the producers": func(w *world, on bool) { w.network.part("c-2", hostOf(fleetAddress), on) },
		"frozen":                     func(w *world, on bool) { w.network.freeze("c-2", on) },
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				w.steadyRegistry()
				stored := &instants{of: map[string]map[int64]int{}}
				w.follow("c-1", 0, stored)
				w.pass(time.Second)
				all := names(40)
				w.labelled(interval, all, func(*registryv1.Producer) {})
				w.follow("c-2", 0, stored)
				start := time.Now()
				w.pass(time.Minute + 3*time.Second)

				fault(w, true)
				w.move("c-2", all...)
				w.pass(58 * time.Second)
				w.collects("c-1", all...)
				w.handing(len(all))
				// The question to one that is frozen takes 10 s to fail.
				w.pass(20 * time.Second)
				w.collects("c-1", all...)
				w.handing(0)
				fault(w, false)
				w.pass(5 * time.Minute)
				w.collects("c-1", all...)
				w.collects("c-2")
				w.noGap(start, time.Now(), all...)
				stored.check(t, 1, start, all...)
			})
		})
	}
}

// handing checks how many producers are being handed off, as the registry says.
func (w *world) handing(want int) {
	w.t.Helper()
	got := 0
	for _, p := range w.producers() {
		if len(p.GetPlacements()) > 1 {
			got++
		}
	}
	if got != want {
		w.fatalf("%d producers are being handed off, want %d", got, want)
	}
}

// producers are those that the registry knows, at most 1,000.
func (w *world) producers() []*registryv1.Producer {
	w.t.Helper()
	var all []*registryv1.Producer
	err := w.client(registryAddress, func(conn *grpc.ClientConn) error {
		resp, err := registryv1.NewProducerServiceClient(conn).ListProducers(w.ctx, &registryv1.ListProducersRequest{PageSize: 1000})
		all = resp.GetProducers()
		return err
	})
	if err != nil {
		w.fatalf("list producers: %v", err)
	}
	return all
}

// checkGaps checks that producers never waited longer than most.
func (w *world) checkGaps(start time.Time, most time.Duration, ids ...string) {
	w.t.Helper()
	for _, id := range ids {
		last := start
		for _, at := range append(w.collectedSince(start, id), time.Now()) {
			if gap := at.Sub(last); gap > most {
				w.t.Errorf("%s was not collected for %v before %v, at most %v is allowed", id, gap, at, most)
			}
			last = at
		}
	}
}

// TestSecondMoveKeepsFirstOwner: a producer is moved to a collector that does not
// reach it, and on to a third. The first one goes on until the third has
// collected it; the second never has it.
func TestSecondMoveKeepsFirstOwner(t *testing.T) {
	simulate(t, func(w *world) {
		w.steadyRegistry()
		w.collector("c-1")
		w.pass(time.Second)
		all := names(20)
		w.register(all...)
		w.collector("c-2")
		w.collector("c-3")
		start := time.Now()
		w.pass(time.Minute)

		fleet := hostOf(fleetAddress)
		w.network.part("c-2", fleet, true)
		w.network.part("c-3", fleet, true)
		twice, once := all[:5], all[5:10]
		w.move("c-2", all[:10]...)
		w.pass(20 * time.Second)
		w.collects("c-1", all...)
		w.move("c-3", twice...)
		w.pass(20 * time.Second)
		w.collects("c-1", all...)
		w.collects("c-2", once...)
		w.collects("c-3", twice...)
		w.noGap(start, time.Now(), all...)

		w.network.part("c-3", fleet, false)
		w.pass(10 * time.Second)
		w.collects("c-1", all[5:]...)
		w.collects("c-3", twice...)
		w.pass(5 * time.Minute)
		w.collects("c-1", all[5:]...)
		w.collects("c-2")
		w.collects("c-3", twice...)
		w.noGap(start, time.Now(), all...)
	})
}

// TestAwayWhileMoved: a collector that is cut off from the registries keeps what
// it has, however often that is moved meanwhile. Once it is back it holds what
// nobody named as gone, and hands it off to whoever has it.
func TestAwayWhileMoved(t *testing.T) {
	simulate(t, func(w *world) {
		store := registry.NewMemoryStore()
		for _, address := range []string{registryAddress, replica1, replica2} {
			w.registryAt(address, registry.Config{Memory: store, Times: registry.Times{Weigh: unmoved.Weigh, Grace: time.Hour}})
		}
		w.follower("c-1", replica1)
		w.pass(time.Second)
		all := names(20)
		w.register(all...)
		w.follower("c-2", replica2)
		w.follower("c-3", replica2)
		start := time.Now()
		w.pass(time.Minute)

		twice, once := all[:5], all[5:10]
		w.cut(replica1)
		w.move("c-2", all[:10]...)
		w.pass(time.Minute)
		w.collects("c-1", all...)
		w.collects("c-2", all[:10]...)
		w.move("c-3", twice...)
		w.pass(time.Minute)
		w.collects("c-1", all...)
		w.collects("c-2", once...)
		w.collects("c-3", twice...)

		w.mend(replica1)
		w.pass(2 * time.Minute)
		w.subscribed("c-1", replica1)
		w.collects("c-1", all[10:]...)
		w.collects("c-2", once...)
		w.collects("c-3", twice...)
		w.noGap(start, time.Now(), all...)
	})
}

// drain has an operator drain a collector.
func (w *world) drain(id string) {
	w.t.Helper()
	err := w.client(registryAddress, func(conn *grpc.ClientConn) error {
		_, err := registryv1.NewCollectorServiceClient(conn).DrainCollector(w.ctx, &registryv1.DrainCollectorRequest{CollectorId: id})
		return err
	})
	if err != nil {
		w.fatalf("drain %s: %v", id, err)
	}
}

// known is a collector as the registry knows it.
func (w *world) known(id string) *registryv1.Collector {
	w.t.Helper()
	var resp *registryv1.GetCollectorResponse
	err := w.client(registryAddress, func(conn *grpc.ClientConn) (err error) {
		resp, err = registryv1.NewCollectorServiceClient(conn).GetCollector(w.ctx, &registryv1.GetCollectorRequest{CollectorId: id})
		return err
	})
	if err != nil {
		w.fatalf("collector %s: %v", id, err)
	}
	return resp.GetCollector()
}

// TestDrainClean: what a drained collector has is handed off, and it is given
// nothing more. When it is DRAINED its process can stop, and nobody is missed
// before, during or after.
func TestDrainClean(t *testing.T) {
	simulate(t, func(w *world) {
		w.steadyRegistry()
		stored := &instants{of: map[string]map[int64]int{}}
		w.follow("c-1", 0, stored)
		w.follow("c-2", 0, stored)
		c := w.collectorOf(collector.Config{ID: "c-3", Registries: []string{registryAddress}, Sink: stored})
		w.pass(time.Second)
		all := names(300)
		w.labelled(interval, all, func(*registryv1.Producer) {})
		start := time.Now()
		w.pass(time.Minute)
		if n := w.known("c-3").GetAssignedCount(); n < 80 {
			t.Fatalf("c-3 has %d of 300", n)
		}

		w.drain("c-3")
		if s := w.known("c-3").GetState(); s != registryv1.CollectorState_COLLECTOR_STATE_DRAINING {
			t.Errorf("at the begin it is %v", s)
		}
		w.pass(3 * time.Second)
		w.drained("c-3")
		late := []string{"late-1", "late-2", "late-3", "late-4"}
		w.register(late...)
		w.drained("c-3")
		w.pass(time.Minute)
		w.drained("c-3")
		w.noGap(start, time.Now(), all...)

		c.terminate(t)
		w.pass(5 * time.Minute)
		w.noGap(start, time.Now(), all...)
		stored.check(t, 1, start, all...)
		one, two := w.collections("c-1"), w.collections("c-2")
		for id := range one {
			if two[id] != nil {
				t.Errorf("%s is collected by both", id)
			}
		}
		if n := len(one) + len(two); n != len(all)+len(late) {
			t.Errorf("%d are collected", n)
		}
	})
}

// drained checks that a collector has nothing and holds nothing, and that the
// registry knows.
func (w *world) drained(id string) {
	w.t.Helper()
	w.collects(id)
	if m := w.membership(id); m.GetHeldCount() != 0 || !m.GetSubscribed() {
		w.t.Errorf("%v", m)
	}
	if c := w.known(id); c.GetState() != registryv1.CollectorState_COLLECTOR_STATE_DRAINED || c.GetAssignedCount()+c.GetLeavingCount() != 0 {
		w.t.Errorf("%v", c)
	}
}
