package leader_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/btree"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/feed"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/leader"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
)

// witnesses are all collectors, as far as they can be asked.
type witnesses struct {
	mu      sync.Mutex // guards all below
	silent  map[assignment.CollectorID]bool
	failing map[assignment.ProducerID]map[assignment.CollectorID]bool // "" is every collector
	rates   map[assignment.ProducerID]float64

	// identified are those that name themselves when they answer; asked is how many
	// were asked about by name in each question, and named who.
	identified map[assignment.ProducerID]bool
	asked      []int
	partly     bool // nobody answers when asked by name
	named      map[assignment.ProducerID]bool

	// forgotten are those that no collector has collected since it was started.
	forgotten map[assignment.ProducerID]bool
	total     int // questions

	roll func() (*btree.BTreeG[*roster.Entry], error)
}

var errSilent = errors.New("it does not answer")

// Ask implements leader.Asker: every collector collects what it was given.
func (w *witnesses) Ask(_ context.Context, q leader.Question, tell func(leader.Testimony)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.total++
	if w.silent[q.Collector] || w.partly && len(q.Producers) > 0 {
		return errSilent
	}
	if len(q.Producers) > 0 {
		w.asked = append(w.asked, len(q.Producers))
	}
	about := map[assignment.ProducerID]bool{}
	for _, id := range q.Producers {
		about[id], w.named[id] = true, true
	}
	roll, err := w.roll()
	if err != nil {
		return err
	}
	roll.Ascend(func(e *roster.Entry) bool {
		failing := (w.failing[e.ID][q.Collector] || w.failing[e.ID][""]) && !w.forgotten[e.ID]
		if e.RoleOf(q.Collector) == assignment.RoleUnspecified || len(about) > 0 && !about[e.ID] || q.Failing && !failing {
			return true
		}
		rate := w.rates[e.ID]
		if rate == 0 {
			rate = 1
		}
		t := leader.Testimony{ID: e.ID, Failing: failing, Rate: rate, Collected: !failing && !w.forgotten[e.ID], Identified: w.identified[e.ID]}
		if failing {
			t.Failures = 5
		}
		tell(t)
		return true
	})
	return nil
}

// fail has a producer fail at collectors; at none named: everywhere.
func (w *witnesses) fail(id assignment.ProducerID, at ...assignment.CollectorID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(at) == 0 {
		at = []assignment.CollectorID{""}
	}
	w.failing[id] = map[assignment.CollectorID]bool{}
	delete(w.forgotten, id)
	for _, c := range at {
		w.failing[id][c] = true
	}
}

func (w *witnesses) mend(id assignment.ProducerID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.failing, id)
}

// forget has no collector know anything of a producer.
func (w *witnesses) forget(id assignment.ProducerID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.forgotten[id] = true
}

// questions is how many were put.
func (w *witnesses) questions() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.total
}

func (w *witnesses) weigh(id assignment.ProducerID, rate float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rates[id] = rate
}

func (w *witnesses) silence(c assignment.CollectorID, on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.silent[c] = on
}

// A replica is one registry process without its API.
type replica struct {
	t *testing.T
	*registrar.Registrar
	*witnesses
	leader  *leader.Leader
	metrics *leader.Metrics
	stop    func() // and wait for it; may be called twice
}

// marksOf takes what stands in a record for the address of the producer.
func marksOf(stored []byte) registrar.Marks {
	if string(stored) == "x" {
		return registrar.Marks{}
	}
	return registrar.Marks{Address: string(stored)}
}

// at registers a producer at an address.
func (r *replica) at(address string, life roster.Life, id assignment.ProducerID) {
	r.t.Helper()
	cmd := registrar.RegisterProducer{ID: id, Stored: []byte(address), Life: life, Instance: assignment.InstanceID(id)}
	if result := r.RegisterProducers(r.t.Context(), []registrar.RegisterProducer{cmd})[0]; result.Err != nil {
		r.t.Fatal(result.Err)
	}
}

// start runs a replica until the test ends, and waits until it serves.
func start(t *testing.T, s *store.Store, instance assignment.InstanceID, times leader.Times) *replica {
	t.Helper()
	r := &replica{t: t, metrics: leader.NewMetrics()}
	logger := slog.New(slog.DiscardHandler)
	r.Registrar = registrar.New(registrar.Config{
		Store: s, Feed: feed.New(5 * time.Second), Instance: instance, SameStored: bytes.Equal, MarksOf: marksOf,
		Logger: logger, Metrics: registrar.NewMetrics(),
	})
	r.witnesses = &witnesses{
		forgotten: map[assignment.ProducerID]bool{},
		silent:    map[assignment.CollectorID]bool{}, failing: map[assignment.ProducerID]map[assignment.CollectorID]bool{},
		rates: map[assignment.ProducerID]float64{}, identified: map[assignment.ProducerID]bool{}, named: map[assignment.ProducerID]bool{},
		roll: func() (*btree.BTreeG[*roster.Entry], error) {
			roll, _, err := r.Producers(t.Context(), 0)
			return roll, err
		},
	}
	r.leader = leader.New(leader.Config{
		Registrar: r.Registrar, Asker: r.witnesses, Instance: instance, Times: times,
		IntervalOf: func([]byte) time.Duration { return 10 * time.Second },
		Logger:     logger, Metrics: r.metrics,
	})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = r.Run(ctx) })
	running.Go(func() { _ = r.leader.Run(ctx) })
	r.stop = func() {
		cancel()
		running.Wait()
		if err := s.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	}
	t.Cleanup(r.stop)
	if err := r.AwaitServing(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

// bubble runs a test in fake time with one replica that leads.
func bubble(t *testing.T, times leader.Times, test func(t *testing.T, m *store.Memory, r *replica)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := store.NewMemory()
		r := start(t, m.Open(), "r1", times)
		pass(time.Second)
		test(t, m, r)
	})
}

// pass lets time go by.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func producerID(i int) assignment.ProducerID { return assignment.ProducerID(fmt.Sprintf("p%05d", i)) }

// register registers producers from..to-1 with a life of their own.
func (r *replica) register(life roster.Life, from, to int) {
	r.t.Helper()
	var cmds []registrar.RegisterProducer
	for i := from; i < to; i++ {
		cmds = append(cmds, registrar.RegisterProducer{ID: producerID(i), Stored: []byte("x"), Life: life, Instance: "i"})
	}
	for _, result := range r.RegisterProducers(r.t.Context(), cmds) {
		if result.Err != nil {
			r.t.Fatal(result.Err)
		}
	}
}

// join registers a collector and subscribes it.
func (r *replica) join(id assignment.CollectorID) *registrar.Stream {
	r.t.Helper()
	status, _, err := r.RegisterCollector(r.t.Context(), roster.Collector{ID: id}, assignment.InstanceID(id))
	if err != nil {
		r.t.Fatal(err)
	}
	stream, err := r.Subscribe(r.t.Context(), registrar.Subscribe{
		Collector: id, Instance: assignment.InstanceID(id), Generation: status.Collector.Newest().Generation,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return stream
}

// acknowledge has a collector acknowledge all that there is, and tell what it has
// collected of what it was given.
func (r *replica) acknowledge(id assignment.CollectorID, collected ...assignment.ProducerID) {
	r.t.Helper()
	var ack registrar.Acknowledge
	if err := r.Look(func(v *roster.View) {
		ack.Collector, ack.Instance = id, assignment.InstanceID(id)
		ack.Epoch, ack.Revision = v.Epoch(), v.Revision()
		ack.Generation = v.Collector(id).Collector.Newest().Generation
	}); err != nil {
		r.t.Fatal(err)
	}
	ack.Persisted, ack.CollectedIDs = true, collected
	ack.Snapshot = fmt.Sprint(ack.Revision)
	if _, err := r.Acknowledge(r.t.Context(), ack); err != nil {
		r.t.Fatal(err)
	}
}

// producer is one as it stands, nil for none.
func (r *replica) producer(id assignment.ProducerID) *roster.Entry {
	r.t.Helper()
	e, _, err := r.Producer(r.t.Context(), id, 0)
	if refusal := (*roster.Error)(nil); errors.As(err, &refusal) && refusal.Class == roster.NotFound {
		return nil
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

// count is how many producers are on the roll.
func (r *replica) count() (n int) {
	r.t.Helper()
	if err := r.Look(func(v *roster.View) { n = v.Producers() }); err != nil {
		r.t.Fatal(err)
	}
	return n
}
