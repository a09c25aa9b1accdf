package simulation

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/value"
	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// A ledger is the store of one collector: what was written of one metric, by
// producer and time stamp.
type ledger struct {
	metric string

	mu      sync.Mutex // guards samples
	samples map[string]map[int64][]float64
}

func newLedger(metric string) *ledger {
	return &ledger{metric: metric, samples: map[string]map[int64][]float64{}}
}

// Write takes a batch.
func (l *ledger) Write(_ context.Context, b *collector.Batch) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range b.Samples {
		s := &b.Samples[i]
		if s.Series.Labels().Get("__name__") != l.metric {
			continue
		}
		id := s.Series.Labels().Get("id")
		if l.samples[id] == nil {
			l.samples[id] = map[int64][]float64{}
		}
		l.samples[id][s.Time] = append(l.samples[id][s.Time], s.Value)
	}
	return nil
}

// at are the values that were written of a producer at a time stamp.
func (l *ledger) at(id string, ms int64) []float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.samples[id][ms]
}

// stamps are the time stamps at which anything was written of a producer.
func (l *ledger) stamps(id string) []int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []int64
	for ms := range l.samples[id] {
		all = append(all, ms)
	}
	slices.Sort(all)
	return all
}

// labelled registers producers that carry their id as a label.
func (w *world) labelled(every time.Duration, ids []string, change func(*registryv1.Producer)) {
	w.t.Helper()
	for batch := range slices.Chunk(ids, 1000) {
		req := &registryv1.BatchRegisterProducersRequest{}
		for _, id := range batch {
			p := w.fleet.producer(id)
			p.Interval, p.Timeout = durationpb.New(every), durationpb.New(every/2)
			p.Labels = []*registryv1.Label{{Name: "id", Value: id}}
			change(p)
			req.Requests = append(req.Requests, &registryv1.RegisterProducerRequest{Producer: p})
		}
		err := w.client(registryAddress, func(conn *grpc.ClientConn) error {
			resp, err := registryv1.NewProducerServiceClient(conn).BatchRegisterProducers(w.ctx, req)
			for i, r := range resp.GetResults() {
				if r.GetCode() != 0 {
					return fmt.Errorf("%s: %s", batch[i], r.GetMessage())
				}
			}
			return err
		})
		if err != nil {
			w.fatalf("register: %v", err)
		}
	}
}

// TestDrainLosesNothing drains a collector with 1,000 producers at intervals of a
// second: every instant of every producer's grid is in one of the stores, at
// most one of them in both, with the same time stamp, and neither store has a
// failure of a producer that never failed.
func TestDrainLosesNothing(t *testing.T) {
	const every = time.Second
	simulate(t, func(w *world) {
		w.registryAt(registryAddress, registry.Config{Memory: registry.NewMemoryStore(), Times: registry.Times{Weigh: 24 * time.Hour}})
		old, fresh := newLedger("work_total"), newLedger("work_total")
		oldUp, freshUp := newLedger("up"), newLedger("up")
		w.collector("c-1", func(c *collector.Config) { c.Sink = both{old, oldUp} })
		w.pass(time.Second)
		all := names(1000)
		w.labelled(every, all, func(*registryv1.Producer) {})
		w.pass(30 * time.Second)
		w.collector("c-2", func(c *collector.Config) { c.Sink = both{fresh, freshUp} })
		w.pass(10 * time.Second)
		w.drain("c-1")
		w.pass(30 * time.Second)
		if c := w.known("c-1"); c.GetState() != registryv1.CollectorState_COLLECTOR_STATE_DRAINED || c.GetHeldCount() != 0 {
			t.Errorf("after the drain: %v", c)
		}
		w.collects("c-1")
		w.collects("c-2", all...)

		twice := 0
		for _, id := range all {
			before, after := old.stamps(id), fresh.stamps(id)
			union := map[int64]bool{}
			both := 0
			for _, ms := range before {
				union[ms] = true
			}
			for _, ms := range after {
				if union[ms] {
					both++
				}
				union[ms] = true
			}
			twice += both
			if both > 1 {
				t.Errorf("%s: %d instants are in both stores", id, both)
			}
			grid := before[len(before)-1] // on the grid, as are all but the first one
			missing := 0
			for ms := grid - 20_000; ms <= time.Now().UnixMilli()-every.Milliseconds(); ms += every.Milliseconds() {
				if !union[ms] {
					missing++
				}
			}
			if missing > 0 {
				t.Errorf("%s: %d instants are in no store", id, missing)
			}
			for ms := range union {
				if ms > grid && (ms-grid)%every.Milliseconds() != 0 {
					t.Errorf("%s: %d is beside the grid", id, ms)
				}
			}
			for name, l := range map[string]*ledger{"old": oldUp, "new": freshUp} {
				for _, ms := range l.stamps(id) {
					for _, v := range l.at(id, ms) {
						if v != 1 {
							t.Errorf("%s: the %s store has up %v at %d", id, name, v, ms)
						}
					}
				}
			}
		}
		t.Logf("%d of %d producers have one instant in both stores", twice, len(all))
	})
}

// both are two sinks.
type both struct{ a, b collector.Sink }

// Write takes a batch.
func (s both) Write(ctx context.Context, b *collector.Batch) error {
	if err := s.a.Write(ctx, b); err != nil {
		return err
	}
	return s.b.Write(ctx, b)
}

// TestLeaseEnds: a producer with a lease that died is told as `up 0` until it is
// struck off, which is within a minute of its time, and then its series end. A
// permanent one stays as it is.
func TestLeaseEnds(t *testing.T) {
	simulate(t, func(w *world) {
		w.registry(registry.NewMemoryStore())
		up := newLedger("up")
		w.collector("c-1", func(c *collector.Config) { c.Sink = up })
		w.pass(time.Second)
		all := names(20)
		const expire = 20 * time.Minute
		leased := func(p *registryv1.Producer) {
			p.InstanceId = p.GetProducerId() + "-1"
			p.LeaseDuration, p.ExpireAfter = durationpb.New(time.Minute), durationpb.New(expire)
		}
		w.labelled(interval, all[:19], leased)
		w.labelled(interval, all[19:], func(*registryv1.Producer) {})
		dead, permanent := all[0], all[19]
		w.pass(time.Minute)
		w.fleet.die(dead, permanent)
		died := time.Now()
		for time.Since(died) < expire+2*time.Minute {
			w.labelled(interval, all[1:19], leased)
			w.pass(20 * time.Second)
		}
		w.collects("c-1", all[1:]...)
		stamps := up.stamps(dead)
		last := time.UnixMilli(stamps[len(stamps)-1])
		if took := last.Sub(died); took < expire || took > expire+time.Minute {
			t.Errorf("its series ended %v after its death, want %v and at most a minute", took, expire)
		}
		if v := up.at(dead, stamps[len(stamps)-1]); !value.IsStaleNaN(v[len(v)-1]) {
			t.Errorf("its series ends with %v, want a stale marker", v)
		}
		for _, ms := range stamps[:len(stamps)-1] {
			want := 1.0
			if time.UnixMilli(ms).After(died) {
				want = 0
			}
			if v := up.at(dead, ms); v[0] != want {
				t.Errorf("up is %v %v after its death, want %v", v, time.UnixMilli(ms).Sub(died), want)
			}
		}
		w.pass(3 * time.Hour)
		w.collects("c-1", all[1:]...)
		stamps = up.stamps(permanent)
		if v := up.at(permanent, stamps[len(stamps)-1]); v[0] != 0 || math.IsNaN(v[0]) {
			t.Errorf("the permanent one is told as %v", v)
		}
	})
}

// TestRegistryDownForTwoLeases: nobody could renew, and nobody is struck off for
// that, whether it answers or not.
func TestRegistryDownForTwoLeases(t *testing.T) {
	simulate(t, func(w *world) {
		store := registry.NewMemoryStore()
		r := w.registry(store)
		w.collector("c-1")
		w.pass(time.Second)
		all := names(100)
		const lease = 10 * time.Minute
		leased := func(p *registryv1.Producer) {
			p.InstanceId = p.GetProducerId() + "-1"
			p.LeaseDuration, p.ExpireAfter = durationpb.New(lease), durationpb.New(lease)
		}
		w.labelled(interval, all, leased)
		start := time.Now()
		w.pass(time.Minute)
		w.fleet.die(all[:10]...)
		w.pass(lease - 2*time.Minute)
		w.labelled(interval, all, leased) // all renew, also those that do not answer
		w.pass(time.Minute)
		w.crash(r, registryAddress)
		w.pass(2 * lease)
		w.registry(store)
		w.pass(lease / 3)
		w.labelled(interval, all, leased)
		w.pass(lease - time.Minute)
		w.collects("c-1", all...)
		if m := w.membership("c-1"); m.GetHeldCount() != 0 || m.GetAcceptedCount() != 100 {
			t.Errorf("%v", m)
		}
		w.noGap(start.Add(interval), time.Now(), all...)
	})
}

// TestRecoveryFromTheCollectors: the store is deleted under a running fleet. A
// registry that starts empty is given back, by what the collectors have kept,
// every producer with its owner. Nobody is missed or held in the end.
func TestRecoveryFromTheCollectors(t *testing.T) {
	const each = 1000
	simulate(t, func(w *world) {
		r := w.registry(registry.NewMemoryStore())
		collectors := []string{"c-1", "c-2", "c-3"}
		for _, id := range collectors {
			w.collector(id)
		}
		w.pass(time.Second)
		all := names(3 * each)
		w.labelled(interval, all, func(p *registryv1.Producer) {
			if p.GetProducerId() > all[each] {
				p.InstanceId = p.GetProducerId() + "-1" // these have a lease
			}
		})
		w.pass(time.Minute)
		start := time.Now()
		owners := map[string][]string{}
		for _, id := range collectors {
			for producer := range w.collections(id) {
				owners[id] = append(owners[id], producer)
			}
			if len(owners[id]) != each {
				t.Fatalf("%s has %d", id, len(owners[id]))
			}
		}
		w.crash(r, registryAddress)
		w.pass(time.Minute)
		r = w.registry(registry.NewMemoryStore())
		w.pass(2 * time.Minute)
		for _, id := range collectors {
			if m := w.membership(id); m.GetHeldCount() != each || m.GetAcceptedCount() != 0 {
				t.Fatalf("%s under an empty registry: %v", id, m)
			}
		}
		for _, dry := range []bool{true, false, false} {
			for _, id := range collectors {
				w.adopt(id, dry)
			}
		}
		w.pass(time.Minute)
		for _, id := range collectors {
			w.collects(id, owners[id]...)
			if m := w.membership(id); m.GetHeldCount() != 0 || m.GetAcceptedCount() != each {
				t.Errorf("%s after the recovery: %v", id, m)
			}
		}
		w.pass(time.Hour)
		for _, id := range collectors {
			w.collects(id, owners[id]...)
		}
		w.noGap(start, time.Now(), all...)
		if n := r.metric(t, "rollcall_registry_producers"); n != 3*each {
			t.Errorf("%v producers are on the roll", n)
		}
	})
}

// adopt gives a registry what a collector has kept, as `rollcall recover` does.
func (w *world) adopt(id string, dry bool) {
	w.t.Helper()
	var kept []*registryv1.Assignment
	for _, c := range w.collections(id) {
		kept = append(kept, c.GetAssignment())
	}
	err := w.client(registryAddress, func(conn *grpc.ClientConn) error {
		for batch := range slices.Chunk(kept, 1000) {
			resp, err := registryv1.NewPlacementServiceClient(conn).AdoptProducers(w.ctx, &registryv1.AdoptProducersRequest{
				CollectorId: id, Assignments: batch, ValidateOnly: dry,
			})
			if err != nil {
				return err
			}
			for _, r := range resp.GetResults() {
				if o := r.GetOutcome(); o != registryv1.AdoptOutcome_ADOPT_OUTCOME_CREATED && o != registryv1.AdoptOutcome_ADOPT_OUTCOME_KNOWN {
					return fmt.Errorf("%v", r)
				}
			}
		}
		return nil
	})
	if err != nil {
		w.fatalf("adopt what %s has: %v", id, err)
	}
}

// TestStoreAwayForAMinute: while the store is away collecting goes on, writes and
// subscriptions are refused as unavailable, reads are marked stale, nobody is
// let go of, and all is well again by itself.
func TestStoreAwayForAMinute(t *testing.T) {
	simulate(t, func(w *world) {
		store := registry.NewMemoryStore()
		r := w.registry(store)
		w.collector("c-1")
		w.collector("c-2")
		w.pass(time.Second)
		all := names(200)
		w.register(all...)
		start := time.Now()
		w.pass(time.Minute)
		before := [][]string{ids(w.collections("c-1")), ids(w.collections("c-2"))}

		store.Fail(func(string) error { return errAway })
		w.pass(30 * time.Second)
		w.unavailable(all[0])
		w.pass(30 * time.Second)
		w.unavailable(all[0])
		for i, id := range []string{"c-1", "c-2"} {
			w.collects(id, before[i]...)
			if m := w.membership(id); m.GetHeldCount() != 0 {
				t.Errorf("%v", m)
			}
		}
		store.Fail(nil)
		w.pass(time.Minute)
		w.register("new-1")
		w.deregister(all[0])
		w.pass(time.Minute)
		for i, id := range []string{"c-1", "c-2"} {
			m := w.membership(id)
			if !m.GetSubscribed() || m.GetHeldCount() != 0 {
				t.Errorf("%v", m)
			}
			kept := 0
			for producer := range w.collections(id) {
				if slices.Contains(before[i], producer) {
					kept++
				}
			}
			if kept < len(before[i])-1 {
				t.Errorf("%s kept %d of %d", id, kept, len(before[i]))
			}
		}
		w.noGap(start.Add(interval), time.Now(), all[1:]...)
		if n := r.metric(t, "rollcall_registry_producers"); n != 200 {
			t.Errorf("%v producers are on the roll", n)
		}
	})
}

func ids(collections map[string]*collectorv1.Collection) []string {
	var all []string
	for id := range collections {
		all = append(all, id)
	}
	return all
}

var errAway = errors.New("the store is away")

// unavailable checks that a registry without its store says so to writers and
// subscribers, and goes on answering readers.
func (w *world) unavailable(id string) {
	w.t.Helper()
	refused := func(what string, err error) {
		w.t.Helper()
		if status.Code(err) != codes.Unavailable {
			w.t.Errorf("%s: %v, want Unavailable", what, err)
		}
	}
	_ = w.client(registryAddress, func(conn *grpc.ClientConn) error {
		producers := registryv1.NewProducerServiceClient(conn)
		_, err := producers.RegisterProducer(w.ctx, &registryv1.RegisterProducerRequest{Producer: w.fleet.producer("new-0")})
		refused("register", err)
		_, err = producers.DeregisterProducer(w.ctx, &registryv1.DeregisterProducerRequest{ProducerId: id})
		refused("deregister", err)
		got, err := producers.GetProducer(w.ctx, &registryv1.GetProducerRequest{ProducerId: id})
		if err != nil || !got.GetStale() {
			w.t.Errorf("read: stale %v, %v", got.GetStale(), err)
		}
		return nil
	})
	refused("subscribe", status.Error(w.subscribeAt(registryAddress, "c-1", 1), ""))
}
