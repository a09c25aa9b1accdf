package registrar_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
)

// commands are all that writes or subscribes; reads are what only looks.
func commands(ctx context.Context, r *replica) map[string]error {
	_, _, _, deregister := r.DeregisterProducer(ctx, "p", "")
	_, _, collector := r.RegisterCollector(ctx, roster.Collector{ID: "c1"}, "a")
	_, subscribe := r.Subscribe(ctx, registrar.Subscribe{Collector: "c1", Instance: "a", Generation: 1})
	_, observe := r.Subscribe(ctx, registrar.Subscribe{Collector: "c1", Observe: true})
	_, acknowledge := r.Acknowledge(ctx, registrar.Acknowledge{Ack: roster.Ack{Collector: "c1", Instance: "a"}, Generation: 1})
	batch := r.RegisterProducers(ctx, producers(0, 2))
	return map[string]error{
		"register": batch[0].Err, "register, second": batch[1].Err, "deregister": deregister,
		"register collector": collector, "subscribe": subscribe, "observe": observe, "acknowledge": acknowledge,
	}
}

func reads(ctx context.Context, r *replica) map[string]error {
	_, _, producer := r.Producer(ctx, "p", 0)
	_, _, all := r.Producers(ctx, 0)
	_, _, collector := r.Collector(ctx, "c1", 0)
	_, _, collectors := r.Collectors(ctx, 0)
	return map[string]error{"producer": producer, "producers": all, "collector": collector, "collectors": collectors}
}

func allNotServing(t *testing.T, what map[string]error) {
	t.Helper()
	for name, err := range what {
		if e := (*roster.Error)(nil); !errors.As(err, &e) || e.Reason != roster.ReasonNotServing {
			t.Errorf("%s: %v, want NOT_SERVING", name, err)
		}
	}
}

// TestServingGate: nothing is answered from half a roll, and nothing is written
// without a lease to write sessions under.
func TestServingGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := store.NewMemory()
		first := serve(t, m.Open(), "r1")
		first.enlist(t, "c1", "a")
		first.register(t, producers(0, 10)...)
		before := m.Revision()

		s, d := faulty(t, m)
		d.close(store.OpRead, store.OpGrant)
		r := start(t, s, "r2")
		synctest.Wait()
		allNotServing(t, commands(t.Context(), r))
		allNotServing(t, reads(t.Context(), r))

		d.open()
		r.stop()

		s, d = faulty(t, m)
		d.close(store.OpRead)
		r = start(t, s, "r3") // it has a lease, and no view
		synctest.Wait()
		allNotServing(t, commands(t.Context(), r))
		allNotServing(t, reads(t.Context(), r))
		d.open()
		r.stop()

		s, d = faulty(t, m)
		d.fail(store.OpGrant)
		r = start(t, s, "r4")
		time.Sleep(time.Minute)
		allNotServing(t, commands(t.Context(), r))
		if r.Serving() {
			t.Error("it serves without a lease")
		}
		d.fail()
		if err := r.AwaitServing(t.Context()); err != nil || !r.Serving() {
			t.Error("it does not serve with a lease", err)
		}
		if m.Revision() != before {
			t.Errorf("revision %d: what was refused was written", m.Revision())
		}
	})
}

func TestAwaitServingEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := faulty(t, store.NewMemory())
		d.fail(store.OpRead)
		r := start(t, s, "r1")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errStore)
		if err := r.AwaitServing(ctx); !errors.Is(err, errStore) {
			t.Errorf("error %v, want the cause", err)
		}
		time.Sleep(time.Minute)
		d.fail()
		if err := r.AwaitServing(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestOneEpochForAll: replicas that find the store empty agree on its epoch.
func TestOneEpochForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := store.NewMemory()
		replicas := []*replica{start(t, m.Open(), "r1"), start(t, m.Open(), "r2"), start(t, m.Open(), "r3")}
		epochs := map[assignment.Epoch]bool{}
		for _, r := range replicas {
			if err := r.AwaitServing(t.Context()); err != nil {
				t.Fatal(err)
			}
			_, at, err := r.Producers(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			epochs[at.Epoch] = true
		}
		if len(epochs) != 1 || epochs[""] {
			t.Errorf("epochs %v", epochs)
		}
	})
}

// TestAnUnreadableRecordStops: a registry that does not know the whole roll
// must not call it, and no retry helps.
func TestAnUnreadableRecordStops(t *testing.T) {
	for name, late := range map[string]bool{"when it is loaded": false, "when it is written": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := store.NewMemory()
				if !late {
					m.Put("/rollcall/v1/producers/p", []byte("\xff garbage"))
				}
				r := start(t, m.Open(), "r1")
				synctest.Wait()
				if late {
					m.Put("/rollcall/v1/producers/p", []byte("\xff garbage"))
				}
				time.Sleep(time.Minute)
				select {
				case <-r.ended:
					if !errors.Is(r.err, registrar.ErrUnreadable) {
						t.Errorf("ended with %v", r.err)
					}
				default:
					t.Error("it still runs")
				}
			})
		})
	}
}

// TestLeaseLost: who cannot keep its sessions ends its streams, refuses
// commands, still reads, and serves again as soon as it can.
func TestLeaseLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := store.NewMemory()
		s, d := faulty(t, m)
		r := serve(t, s, "r1")
		r.register(t, producers(0, 3)...)
		member := r.join(t, "c1")
		member.until(3)
		begin := time.Now()
		d.fail(store.OpKeepAlive, store.OpGrant, store.OpRevoke, store.OpRead, store.OpWatch, store.OpDeliver, store.OpCommit)
		refused(t, member.end(), roster.Unavailable, roster.ReasonNotServing)
		synctest.Wait()
		if took := time.Since(begin); took > 15*time.Second {
			t.Errorf("the stream ended after %v", took)
		}
		member.stream.Close(t.Context())
		allNotServing(t, commands(t.Context(), r))
		if _, at, err := r.Producer(t.Context(), producerID(0), 0); err != nil || at.Revision == 0 {
			t.Errorf("read: %v", err)
		}
		time.Sleep(time.Minute)
		if r.Serving() {
			t.Error("it serves without a lease")
		}
		d.fail()
		if err := r.AwaitServing(t.Context()); err != nil {
			t.Fatal(err)
		}
		if again := r.join(t, "c1"); len(again.set) != 3 {
			t.Errorf("%d members after it serves again", len(again.set))
		}
	})
}

// TestStopEndsEverything also while the store hangs.
func TestStopEndsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := store.NewMemory()
		r := serve(t, m.Open(), "r1")
		r.join(t, "c1")
		r.register(t, producers(0, 3)...)
		begin := time.Now()
		r.stop()
		if r.err != nil || time.Since(begin) > 5*time.Second {
			t.Errorf("stopped with %v after %v", r.err, time.Since(begin))
		}
	})
}

// TestCommandsSurviveAFaultyStore lets the store fail at random moments under
// load: what was answered OK stands, and the feed shows what the store has.
func TestCommandsSurviveAFaultyStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := store.NewMemory()
		s, d := faulty(t, m)
		r := serve(t, s, "r1")
		member := r.join(t, "c1")
		var group sync.WaitGroup
		var mu sync.Mutex
		acknowledged := map[assignment.ProducerID]bool{}
		for n := range 4 {
			group.Go(func() {
				for i := range 50 {
					id := producerID(n*100 + i)
					if r.RegisterProducers(t.Context(), []registrar.RegisterProducer{{ID: id, Stored: []byte("x")}})[0].Err == nil {
						mu.Lock()
						acknowledged[id] = true
						mu.Unlock()
					}
					time.Sleep(10 * time.Millisecond)
				}
			})
		}
		for _, op := range []string{store.OpCommit, store.OpCommitted, store.OpDeliver, store.OpRead, store.OpWatch, store.OpCommitted} {
			time.Sleep(50 * time.Millisecond)
			d.fail(op)
			time.Sleep(20 * time.Millisecond)
			d.fail()
		}
		group.Wait()
		time.Sleep(5 * time.Second)
		for range 3 {
			d, err := member.stream.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			member.take(d)
		}
		for id := range acknowledged {
			if _, ok := member.set[id]; !ok {
				t.Errorf("%s was registered and is not collected", id)
			}
		}
		if len(acknowledged) < 100 || len(acknowledged) == 200 {
			t.Errorf("%d of 200 registrations succeeded: not the faults that were meant", len(acknowledged))
		}
	})
}
