package registrar_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
)

// counted is the sum of a metric.
func counted(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	for _, f := range families {
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue()
		}
	}
	return sum
}

// TestALiarEndsTheStreamsOnce: a collector that claims to have seen the future
// looks like one that knows a rewound store, so its first claim is believed. The
// others are not ended again and again for it.
func TestALiarEndsTheStreamsOnce(t *testing.T) {
	for name, acknowledge := range map[string]bool{"subscription": false, "acknowledgement": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, _ *store.Memory, r *replica) {
				liar := r.enlist(t, "liar", "a")
				claim := func() {
					_, at, err := r.Producers(t.Context(), 0)
					if err != nil {
						t.Fatal(err)
					}
					lie := &assignment.Accepted{Epoch: at.Epoch, Revision: at.Revision + 1<<40, BucketDigests: make([]assignment.Digest, 1), AssignmentFormat: 1}
					if !acknowledge {
						liar.Accepted = lie
						_, err = r.Subscribe(t.Context(), liar)
						refused(t, err, roster.Unavailable, roster.ReasonBehind)
						return
					}
					if _, err := r.Acknowledge(t.Context(), registrar.Acknowledge{Generation: liar.Generation, Ack: roster.Ack{
						Collector: "liar", Instance: "a", Epoch: lie.Epoch, Revision: lie.Revision,
					}}); err != nil {
						t.Fatal(err)
					}
				}
				other := r.join(t, "c1")
				claim()
				refused(t, other.end(), roster.Unavailable, roster.ReasonEpochChanged)
				other = r.join(t, "c1")
				begun := time.Now()
				for time.Since(begun) < 9*time.Minute {
					claim()
					if _, err := other.stream.Next(t.Context()); err != nil {
						t.Fatalf("after %v: %v", time.Since(begun), err)
					}
				}
				if n := counted(t, r.Metrics.Epochs); n != 2 { // the first one is the store's
					t.Errorf("%v epochs", n)
				}
				if n := counted(t, r.Metrics.Claims.WithLabelValues("disregarded")); n < 50 {
					t.Errorf("%v claims were disregarded", n)
				}
				time.Sleep(2 * time.Minute)
				claim() // a store may be rewound twice
				refused(t, other.end(), roster.Unavailable, roster.ReasonEpochChanged)
			})
		})
	}
}

// TestAnotherReplicaDoesNotBelieveHimEither: the bound is one for all replicas.
func TestAnotherReplicaDoesNotBelieveHimEither(t *testing.T) {
	bubble(t, func(t *testing.T, m *store.Memory, r *replica) {
		second := serve(t, m.Open(), "r2")
		liar := r.enlist(t, "liar", "a")
		for _, at := range []*replica{r, second, r, second} {
			_, position, err := at.Producers(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := at.Acknowledge(t.Context(), registrar.Acknowledge{Generation: liar.Generation, Ack: roster.Ack{
				Collector: "liar", Instance: "a", Epoch: position.Epoch, Revision: 1 << 40,
			}}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if n := counted(t, r.Metrics.Epochs) + counted(t, second.Metrics.Epochs); n != 2 {
			t.Errorf("%v epochs", n)
		}
	})
}

// TestNewsDoesNotSetThePace: a collector that refuses, or holds others, with
// each of its acknowledgements does not have the store written each time.
func TestNewsDoesNotSetThePace(t *testing.T) {
	bubble(t, func(t *testing.T, m *store.Memory, r *replica) {
		cmd := r.enlist(t, "c1", "a")
		before := m.Revision()
		for i := range 1000 {
			if _, err := r.Acknowledge(t.Context(), registrar.Acknowledge{Generation: cmd.Generation, Ack: roster.Ack{
				Collector: "c1", Instance: "a", Held: int64(i), Refusal: &assignment.Refusal{Reason: "DIGEST_MISMATCH"},
			}}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		// Ten seconds: once a second, and twice from time to time.
		if n := m.Revision() - before; n < 10 || n > 14 {
			t.Errorf("%d writes", n)
		}
		if n := counted(t, r.Metrics.Refusals); n != 1000 {
			t.Errorf("%v refusals are counted", n)
		}
	})
}
