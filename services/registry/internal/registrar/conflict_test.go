package registrar_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/feed"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
)

// marked runs a replica that takes what stands in a record for the labels.
func marked(t *testing.T, s *store.Store) (*registrar.Registrar, *registrar.Metrics) {
	t.Helper()
	metrics := registrar.NewMetrics()
	r := registrar.New(registrar.Config{
		Store: s, Feed: feed.New(heartbeat), Instance: "r1", SameStored: bytes.Equal,
		MarksOf: func(stored []byte) registrar.Marks { return registrar.Marks{Series: string(stored)} },
		Logger:  slog.New(slog.DiscardHandler), Metrics: metrics,
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		_ = s.Close()
	})
	if err := r.AwaitServing(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r, metrics
}

// TestConflictsFollowTheView: of what is loaded at the start, of what others write,
// and across a reload; and they are counted.
func TestConflictsFollowTheView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := store.NewMemory()
		other := serve(t, m.Open(), "r2")
		write := func(id assignment.ProducerID, stored string) {
			t.Helper()
			other.register(t, registrar.RegisterProducer{ID: id, Stored: []byte(stored), Life: roster.Life{Permanent: true}})
		}
		write("a", "same")
		write("b", "same")
		write("c", "else")
		s, d := faulty(t, m)
		r, metrics := marked(t, s)
		expect := func(series string, ids ...assignment.ProducerID) {
			t.Helper()
			synctest.Wait()
			if got := r.Conflict("nobody", series).Namesakes; !slices.Equal(got, ids) {
				t.Errorf("%q: %v, want %v", series, got, ids)
			}
		}
		expect("same", "a", "b")
		expect("else", "c")
		write("c", "same")
		write("d", "else")
		expect("same", "a", "b", "c")
		expect("else", "d")
		other.deregister(t, "a")
		expect("same", "b", "c")

		d.close(store.OpDeliver)
		write("b", "else")
		write("e", "same")
		other.deregister(t, "d")
		m.Compact(m.Revision())
		d.fail(store.OpDeliver)
		d.open()
		synctest.Wait()
		d.fail()
		time.Sleep(5 * time.Second)
		expect("same", "c", "e")
		expect("else", "b")
		time.Sleep(time.Minute)
		if n := testutil.ToFloat64(metrics.Conflicts.WithLabelValues("labels")); n != 2 {
			t.Errorf("%v are counted", n)
		}
	})
}

// TestHostileRivals: a flood of refused instances is remembered within a bound, and
// forgotten.
func TestHostileRivals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, metrics := marked(t, store.NewMemory().Open())
		const flood = 12_000
		send := func(instance assignment.InstanceID, refused bool) {
			t.Helper()
			for part := range flood / 1000 {
				var cmds []registrar.RegisterProducer
				for i := range 1000 {
					id := assignment.ProducerID(fmt.Sprintf("p-%d-%d", part, i))
					cmds = append(cmds, registrar.RegisterProducer{ID: id, Stored: []byte(id), Instance: instance, Life: roster.LifeOf(true)})
				}
				for _, result := range r.RegisterProducers(t.Context(), cmds) {
					if (result.Err != nil) != refused {
						t.Fatal(result.Err)
					}
				}
			}
		}
		send("a", false)
		send("b", false)
		for range 3 {
			send("a", true)
			time.Sleep(time.Minute)
		}
		n := testutil.ToFloat64(metrics.Conflicts.WithLabelValues("instances"))
		if n == 0 || n > 10_000 {
			t.Errorf("%v are known", n)
		}
		time.Sleep(15 * time.Minute)
		if n := testutil.ToFloat64(metrics.Conflicts.WithLabelValues("instances")); n != 0 {
			t.Errorf("%v are known after a lease", n)
		}
	})
}

// TestSpreadStaysWithinTheGrace: however many are told to go away, they come back
// in time, no faster than 50 a second while they are few.
func TestSpreadStaysWithinTheGrace(t *testing.T) {
	for n, want := range map[int]time.Duration{
		0: time.Second, 100: 3 * time.Second, 1000: 21 * time.Second, 10_000: 30 * time.Second, 1 << 40: 30 * time.Second,
	} {
		if got := feed.Spread(n); got != want || got > registrar.DefaultGrace/2 {
			t.Errorf("%d: %v, want %v", n, got, want)
		}
	}
}
