package simulation

import (
	"fmt"
	"testing"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"google.golang.org/grpc"
)

// rollout is three registries over one store and three collectors that follow all
// of them, with all that the collectors store.
type rollout struct {
	*world
	store      *registry.MemoryStore
	addresses  []string
	registries []*host
	collectors map[string]*host
	union      *instants
}

func newRollout(w *world) *rollout {
	r := &rollout{
		world: w, store: registry.NewMemoryStore(), addresses: []string{registryAddress, replica1, replica2},
		collectors: map[string]*host{}, union: &instants{of: map[string]map[int64]int{}},
	}
	for _, address := range r.addresses {
		r.registries = append(r.registries, r.replica(address))
	}
	for i := range 3 {
		r.begin(fmt.Sprint("c-", i+1))
	}
	return r
}

func (r *rollout) replica(address string) *host {
	return r.registryAt(address, registry.Config{Memory: r.store})
}

// begin starts a collector that tries the registries in an order of its own.
func (r *rollout) begin(id string) {
	n := int(id[len(id)-1]-'0') % len(r.addresses)
	order := append(append([]string(nil), r.addresses[n:]...), r.addresses[:n]...)
	r.collectors[id] = r.collectorOf(collector.Config{ID: id, Registries: order, Sink: r.union})
}

// untilRestart drains a collector until its restart.
func (r *rollout) untilRestart(id string) {
	r.t.Helper()
	err := r.client(registryAddress, func(conn *grpc.ClientConn) error {
		_, err := registryv1.NewCollectorServiceClient(conn).DrainCollector(r.ctx, &registryv1.DrainCollectorRequest{CollectorId: id, UntilRestart: true})
		return err
	})
	if err != nil {
		r.fatalf("drain %s: %v", id, err)
	}
}

// TestRollingRestartMissesNothing: one registry after the other is stopped and
// started, then one collector after the other, each drained until its restart. No
// instant of any producer is missed, and each collector is given producers again.
func TestRollingRestartMissesNothing(t *testing.T) {
	const drained = registryv1.CollectorState_COLLECTOR_STATE_DRAINED
	simulate(t, func(w *world) {
		r := newRollout(w)
		w.pass(time.Second)
		all := names(300)
		w.labelled(interval, all, func(*registryv1.Producer) {})
		w.pass(time.Minute)
		start := time.Now()
		for i, address := range r.addresses {
			r.registries[i].terminate(t)
			w.pass(20 * time.Second)
			r.registries[i] = r.replica(address)
			w.pass(20 * time.Second)
			for id := range r.collectors {
				if m := w.membership(id); !m.GetSubscribed() || m.GetHeldCount() != 0 {
					t.Errorf("%s after the restart of %s: %v", id, address, m)
				}
			}
		}
		for id := range r.collectors {
			r.untilRestart(id)
			for deadline := time.Now().Add(time.Minute); w.known(id).GetState() != drained; w.pass(500 * time.Millisecond) {
				if time.Now().After(deadline) {
					w.fatalf("%s is not drained: %v", id, w.known(id))
				}
			}
			r.collectors[id].terminate(t)
			w.pass(5 * time.Second)
			r.begin(id)
			w.pass(3 * time.Minute) // it is given its share again
			if c := w.known(id); c.GetState() != registryv1.CollectorState_COLLECTOR_STATE_LIVE || c.GetAssignedCount() == 0 {
				t.Errorf("%s after its restart: %v", id, c)
			}
		}
		w.noGap(start, time.Now(), all...)
		r.union.checkAll(t, start, time.Now().Add(-interval), all...)
	})
}

// TestRestartInTheMiddleOfADrain: what is stopped with half of its producers left
// goes on with them, and what was under way ends.
func TestRestartInTheMiddleOfADrain(t *testing.T) {
	simulate(t, func(w *world) {
		r := newRollout(w)
		w.pass(time.Second)
		all := names(300)
		w.labelled(interval, all, func(*registryv1.Producer) {})
		w.pass(time.Minute)
		start := time.Now()
		r.untilRestart("c-1")
		var had int64
		for c := w.known("c-1"); c.GetLeavingCount() == 0 || c.GetLeavingCount()+c.GetAssignedCount() > 70; c = w.known("c-1") {
			had = c.GetLeavingCount()
			w.pass(100 * time.Millisecond)
			if time.Since(start) > time.Minute {
				w.fatalf("nothing is under way: %v", c)
			}
		}
		r.collectors["c-1"].terminate(t)
		r.begin("c-1")
		w.pass(2 * time.Minute)
		if c := w.known("c-1"); c.GetState() != registryv1.CollectorState_COLLECTOR_STATE_LIVE || c.GetLeavingCount() != 0 || c.GetHeldCount() != 0 {
			t.Errorf("it was handing off %d: %v", had, c)
		}
		w.noGap(start, time.Now(), all...)
		r.union.checkAll(t, start, time.Now().Add(-interval), all...)
	})
}

// checkAll judges that every instant of every grid between two times is stored by
// somebody, and that nobody stored that a producer is down.
func (n *instants) checkAll(t *testing.T, from, to time.Time, ids ...string) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.down != 0 {
		t.Errorf("%d samples say that a producer is down", n.down)
	}
	missed := 0
	for _, id := range ids {
		var stamp int64
		for at := range n.of[id] {
			if at >= to.UnixMilli() {
				stamp = at // on the grid: it is collected by one who has had it for long
			}
		}
		if stamp == 0 {
			t.Errorf("%s: nothing is stored at the end", id)
			continue
		}
		for ; stamp > from.UnixMilli(); stamp -= interval.Milliseconds() {
			if n.of[id][stamp] == 0 {
				missed++
				t.Logf("%s: nothing at %v", id, time.UnixMilli(stamp))
			}
		}
	}
	if missed > 0 {
		t.Errorf("%d instants were missed", missed)
	}
}
