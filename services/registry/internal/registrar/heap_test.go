package registrar_test

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
)

// fleet is how many producers the heap and load figures are taken with; the
// variable ROLLCALL_BENCH_PRODUCERS sets another one for the benchmarks.
const fleet = 100_000

// fleetCollectors is how many collectors they are spread over.
const fleetCollectors = 1000

// maxViewBytes is the most heap that a producer may take in the view: what the
// design allows, so that a million fit into 600 MB.
const maxViewBytes = 600

func fleetSize(t testing.TB) int {
	t.Helper()
	s := os.Getenv("ROLLCALL_BENCH_PRODUCERS")
	if s == "" {
		return fleet
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// fleetMember is a producer as many are: five labels and one instance, about
// 300 B in the store.
func fleetMember(i int) *roster.Producer {
	id := assignment.ProducerID(fmt.Sprintf("checkout-%07d.example:9100", i))
	stored := wire.EncodeStored(&assignment.Assignment{
		ProducerID: id,
		Endpoint:   fmt.Sprintf("http://10.%d.%d.%d:9100/metrics", i>>16&255, i>>8&255, i&255),
		Interval:   15 * time.Second,
		Timeout:    10 * time.Second,
		Labels: []assignment.Label{
			{Name: "env", Value: "production"},
			{Name: "instance", Value: string(id)},
			{Name: "job", Value: "checkout"},
			{Name: "team", Value: "payments"},
			{Name: "zone", Value: fmt.Sprintf("eu-west-%d", i%3)},
		},
	})
	return &roster.Producer{
		ID: id, Stored: stored, Instances: roster.InstancesOf(assignment.InstanceID(uuid.NewString())),
		Collector: fleetCollector(i), AssignTime: time.Now(), AssignReason: roster.PlacementLeastLoaded,
		Life: roster.LifeOf(true), Zone: fmt.Sprintf("eu-west-%d", i%3), Owner: roster.OwnerOf(string(fleetCollector(i))),
		CreateTime: time.Now(), UpdateTime: time.Now(),
	}
}

func fleetCollector(i int) assignment.CollectorID {
	return assignment.CollectorID(fmt.Sprintf("collector-%04d", i%fleetCollectors))
}

// fleetStore is a store with so many producers and their collectors.
func fleetStore(t testing.TB, size int) *store.Memory {
	t.Helper()
	m := store.NewMemory()
	s := m.Open()
	defer func() { _ = s.Close() }()
	var txns []roster.Txn
	flush := func() {
		if _, err := s.Commit(t.Context(), txns); err != nil {
			t.Fatal(err)
		}
		txns = nil
	}
	put := func(r roster.Record) {
		if txns = append(txns, roster.Txn{{Key: r.Key(), Record: r}}); len(txns) == 10_000 {
			flush()
		}
	}
	for i := range fleetCollectors {
		put(&roster.Collector{ID: fleetCollector(i), Instances: []roster.Instance{{ID: "i", Generation: 1}}})
	}
	for i := range size {
		put(fleetMember(i))
	}
	flush()
	return m
}

// loadView reads the roster as a replica does when it starts.
func loadView(t testing.TB, s *store.Store) *roster.View {
	t.Helper()
	view := roster.NewView()
	revision, err := s.Load(t.Context(), func(f roster.Found) error {
		view.Put(f.Record, f.Revision)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	view.Loaded(revision)
	return view
}

// heap is what is reachable, in bytes.
func heap() float64 {
	runtime.GC()
	runtime.GC() // what the first one has finalized
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// heapOfView is what the view of a store takes.
func heapOfView(t testing.TB, m *store.Memory) float64 {
	t.Helper()
	s := m.Open()
	defer func() { _ = s.Close() }()
	before := heap()
	view := loadView(t, s)
	took := heap() - before
	runtime.KeepAlive(view)
	return took
}

// TestViewFitsItsBound is about memory only: the figure depends on no clock.
func TestViewFitsItsBound(t *testing.T) {
	if each := heapOfView(t, fleetStore(t, fleet)) / fleet; each > maxViewBytes {
		t.Errorf("the view takes %.0f B for a producer, at most %d are allowed", each, maxViewBytes)
	} else {
		t.Logf("%.0f B a producer", each)
	}
}

// BenchmarkHeap tells what a producer takes: in the view, in the feed beside it
// and, once it is measured, in the weights.
func BenchmarkHeap(b *testing.B) {
	size := fleetSize(b)
	m := fleetStore(b, size)
	for b.Loop() {
		view := heapOfView(b, m)
		empty := heap()
		r := serve(b, m.Open(), "r1")
		served := heap()
		r.weighFleet(size)
		weighed := heap()
		each := func(bytes float64) float64 { return bytes / float64(size) }
		b.ReportMetric(each(view), "view-B/producer")
		b.ReportMetric(each(served-empty-view), "feed-B/producer")
		b.ReportMetric(each(weighed-served), "weights-B/producer")
		b.ReportMetric(0, "ns/op")
		r.stop()
	}
}
