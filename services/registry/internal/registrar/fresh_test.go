package registrar_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
)

// TestASilentWatch: a registry whose watch brings nothing, and does not break
// either, answers no renewal from its view for longer than a session lives, and
// lets its collectors go.
func TestASilentWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := store.NewMemory()
		var silent atomic.Bool
		resume := make(chan struct{})
		r := serve(t, m.OpenFaulty(func(op string) error {
			if op == store.OpDeliver && silent.Load() {
				<-resume
			}
			return nil
		}), "r1")
		other := serve(t, m.Open(), "r2")
		r.register(t, producers(0, 1)...)
		member := r.join(t, "c1")
		time.Sleep(time.Minute)
		silent.Store(true)
		other.register(t, producers(1, 2)...)
		time.Sleep(14 * time.Second)
		r.register(t, producers(0, 1)...) // young enough still
		time.Sleep(12 * time.Second)
		result := r.RegisterProducers(t.Context(), producers(0, 1))[0]
		refused(t, result.Err, roster.Unavailable, roster.ReasonNotServing)
		for range patience {
			if _, err := member.stream.Next(t.Context()); err != nil {
				if refusal := (*roster.Error)(nil); !errors.As(err, &refusal) || refusal.Class != roster.Unavailable {
					t.Errorf("the stream ended with %v", err)
				}
				break
			}
		}
		silent.Store(false)
		close(resume)
		time.Sleep(2 * time.Second)
		r.register(t, producers(0, 1)...)
		if e, _, err := r.Producer(t.Context(), producerID(1), 0); err != nil || e == nil {
			t.Errorf("what was written meanwhile: %v, %v", e, err)
		}
	})
}
