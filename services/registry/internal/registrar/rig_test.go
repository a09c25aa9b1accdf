package registrar_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/feed"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
)

const heartbeat = 5 * time.Second

// A replica is one registry process without its API.
type replica struct {
	*registrar.Registrar
	store *store.Store
	feed  *feed.Feed
	stop  func() // and wait for it; may be called twice
	ended chan struct{}
	err   error // of Run, once ended is closed
}

// start runs a replica on a store until the test ends.
func start(t testing.TB, s *store.Store, instance assignment.InstanceID) *replica {
	t.Helper()
	f := feed.New(heartbeat)
	r := &replica{
		Registrar: registrar.New(registrar.Config{
			Store: s, Feed: f, Instance: instance, SameStored: bytes.Equal,
			Logger: slog.New(slog.DiscardHandler), Metrics: registrar.NewMetrics(),
		}),
		store: s, feed: f, ended: make(chan struct{}),
	}
	ctx, cancel := context.WithCancel(t.Context())
	r.stop = func() {
		cancel()
		<-r.ended
		if err := s.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	}
	go func() {
		defer close(r.ended)
		r.err = r.Run(ctx)
	}()
	t.Cleanup(r.stop)
	return r
}

// serve is start, and waits until the replica serves.
func serve(t testing.TB, s *store.Store, instance assignment.InstanceID) *replica {
	t.Helper()
	r := start(t, s, instance)
	if err := r.AwaitServing(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

// bubble runs a test in fake time with one replica and its store.
func bubble(t *testing.T, test func(t *testing.T, m *store.Memory, r *replica)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := store.NewMemory()
		test(t, m, serve(t, m.Open(), "r1"))
	})
}

// refused fails unless err is a refusal of that class and reason.
func refused(t *testing.T, err error, class roster.Class, reason string) {
	t.Helper()
	if e := (*roster.Error)(nil); !errors.As(err, &e) || e.Class != class || e.Reason != reason {
		t.Fatalf("error %v, want class %d and reason %s", err, class, reason)
	}
}

func producerID(i int) assignment.ProducerID { return assignment.ProducerID(fmt.Sprintf("p%04d", i)) }

// producers are commands that register the producers from..to-1 by hand.
func producers(from, to int) []registrar.RegisterProducer {
	var cmds []registrar.RegisterProducer
	for i := from; i < to; i++ {
		cmds = append(cmds, registrar.RegisterProducer{ID: producerID(i), Stored: []byte("v1"), Life: roster.Life{Permanent: true}})
	}
	return cmds
}

// register registers producers, all of which must succeed.
func (r *replica) register(t *testing.T, cmds ...registrar.RegisterProducer) []registrar.Registered {
	t.Helper()
	results := r.RegisterProducers(t.Context(), cmds)
	for i, result := range results {
		if result.Err != nil || result.Producer.ID != cmds[i].ID {
			t.Fatalf("registration %d of %s: %+v", i, cmds[i].ID, result)
		}
	}
	return results
}

// deregister takes a producer off, which must be there.
func (r *replica) deregister(t *testing.T, id assignment.ProducerID) assignment.Revision {
	t.Helper()
	_, revision, changed, err := r.DeregisterProducer(t.Context(), id, "")
	if err != nil || !changed {
		t.Fatalf("deregister %s: changed %v, %v", id, changed, err)
	}
	return revision
}

// enlist registers an instance of a collector and returns what it subscribes
// with.
func (r *replica) enlist(t *testing.T, id assignment.CollectorID, instance assignment.InstanceID) registrar.Subscribe {
	t.Helper()
	status, _, err := r.RegisterCollector(t.Context(), roster.Collector{ID: id}, instance)
	if err != nil {
		t.Fatal(err)
	}
	stands := status.Collector.Instances[len(status.Collector.Instances)-1]
	if stands.ID != instance {
		t.Fatalf("registered %s, and %s stands", instance, stands.ID)
	}
	return registrar.Subscribe{Collector: id, Instance: instance, Generation: stands.Generation}
}

// A member follows one stream and keeps the set.
type member struct {
	t      *testing.T
	stream *registrar.Stream
	set    map[assignment.ProducerID]assignment.Version
	epoch  assignment.Epoch
	at     assignment.Revision
	begun  time.Time
	first  *feed.Snapshot
}

// subscribe opens a stream, which must succeed, and takes its first snapshot. It
// starts with what is held.
func (r *replica) subscribe(t *testing.T, cmd registrar.Subscribe, held ...map[assignment.ProducerID]assignment.Version) *member {
	t.Helper()
	stream, err := r.Subscribe(t.Context(), cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stream.Close(t.Context()) })
	m := &member{t: t, stream: stream, set: map[assignment.ProducerID]assignment.Version{}}
	for _, set := range held {
		maps.Copy(m.set, set)
	}
	m.first = m.snapshot()
	return m
}

// resume subscribes with what another member holds.
func (r *replica) resume(t *testing.T, cmd registrar.Subscribe, from *member) *member {
	t.Helper()
	cmd.Accepted = from.accepted()
	return r.subscribe(t, cmd, from.set)
}

// join enlists and subscribes.
func (r *replica) join(t *testing.T, id assignment.CollectorID) *member {
	t.Helper()
	return r.subscribe(t, r.enlist(t, id, assignment.InstanceID(id)+"-a"))
}

// patience is how many deliveries may pass before what is awaited.
const patience = 1000

// snapshot takes deliveries until one is a snapshot.
func (m *member) snapshot() *feed.Snapshot {
	m.t.Helper()
	for range patience {
		d, err := m.stream.Next(m.t.Context())
		if err != nil {
			m.t.Fatalf("the stream ended: %v", err)
		}
		m.take(d)
		if s, ok := d.(*feed.Snapshot); ok {
			return s
		}
	}
	m.t.Fatal("no snapshot comes")
	return nil
}

// until takes deliveries until the set has so many members.
func (m *member) until(count int) {
	m.t.Helper()
	for len(m.set) != count {
		m.snapshot()
	}
}

// end takes deliveries until the stream ends, and returns why.
func (m *member) end() error {
	m.t.Helper()
	for range patience {
		d, err := m.stream.Next(m.t.Context())
		if err != nil {
			return err
		}
		m.take(d)
	}
	m.t.Fatal("the stream does not end")
	return nil
}

// take keeps the set, and checks it against the seal.
func (m *member) take(d feed.Delivery) {
	m.t.Helper()
	var count int
	var digest assignment.Digest
	switch d := d.(type) {
	case *feed.Snapshot:
		m.replace(d)
		m.epoch, m.at, count, digest = d.Epoch, d.Revision, d.SetCount, d.SetDigest
	case *feed.Beat:
		m.epoch, m.at, count, digest = d.Epoch, d.Revision, d.SetCount, d.SetDigest
	default:
		return
	}
	var sum assignment.Digest
	for id, v := range m.set {
		sum += assignment.Digest(assignment.HashOf(id, v, assignment.RoleOwner))
	}
	if len(m.set) != count || sum != digest {
		m.t.Fatalf("%T at revision %d: %d members with digest %x, told are %d with %x", d, m.at, len(m.set), sum, count, digest)
	}
}

func (m *member) replace(d *feed.Snapshot) {
	for id := range m.set {
		if d.Scope == assignment.ScopeAll ||
			d.Scope == assignment.ScopeBuckets && slices.Contains(d.Replaced, assignment.Bucket(id, d.BucketBits)) {
			delete(m.set, id)
		}
	}
	for _, item := range d.Items {
		m.set[item.ProducerID] = item.Version
	}
	for _, r := range d.Removals {
		delete(m.set, r.ProducerID)
	}
}

// accepted is what the member would resume with.
func (m *member) accepted() *assignment.Accepted {
	a := &assignment.Accepted{
		Epoch: m.epoch, Revision: m.at, SetCount: int64(len(m.set)),
		BucketDigests: make([]assignment.Digest, 1), AssignmentFormat: assignment.AssignmentFormat,
	}
	for id, v := range m.set {
		a.BucketDigests[0] += assignment.Digest(assignment.HashOf(id, v, assignment.RoleOwner))
	}
	a.SetDigest = a.BucketDigests[0]
	return a
}

// faulty opens a store for a process of its own, with a door that shuts
// operations of that process.
func faulty(t *testing.T, m *store.Memory) (*store.Store, *door) {
	d := &door{}
	t.Cleanup(d.open)
	return m.OpenFaulty(d.check), d
}
