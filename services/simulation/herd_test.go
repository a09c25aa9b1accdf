package simulation

import (
	"fmt"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/registry"
)

const subscriptions = "rollcall_registry_subscriptions"

// TestARollingRestartIsSpread: a hundred collectors follow one of two replicas.
// It stops, and they come to the other one over the window for so many, no
// faster than its rate; none is away for long, and nothing is missed.
func TestARollingRestartIsSpread(t *testing.T) {
	const (
		herd   = 100
		window = herd*20*time.Millisecond + time.Second
		slot   = 500 * time.Millisecond

		// most is far more than a slot's share of draws that are even, and a half of
		// what would come if nobody drew.
		most = 45
	)
	simulate(t, func(w *world) {
		store := registry.NewMemoryStore()
		w.registry(store)
		stopping := w.registryAt(replica1, registry.Config{Memory: store})
		other := w.registryAt(replica2, registry.Config{Memory: store})
		for i := range herd {
			w.collectorOf(collector.Config{ID: fmt.Sprintf("c-%03d", i), Registries: []string{replica1, replica2}})
		}
		w.pass(5 * time.Second)
		all := names(2 * herd)
		w.register(all...)
		start := time.Now()
		w.pass(time.Minute)
		if n := stopping.metric(t, subscriptions); n != herd {
			t.Fatalf("%v collectors follow the one that will stop", n)
		}

		stopped := time.Now()
		stopping.terminate(t)
		var came []float64
		for before := 0.0; time.Since(stopped) < window+10*time.Second; {
			w.pass(slot)
			now := other.metric(t, subscriptions)
			came = append(came, now-before)
			before = now
		}
		t.Logf("came in slots of %v: %v", slot, came)
		last, sum := time.Duration(0), 0.0
		for i, n := range came {
			if sum += n; n > 0 {
				last = time.Duration(i+1) * slot
			}
			if n > most {
				t.Errorf("%v collectors came in the slot to %v", n, time.Duration(i+1)*slot)
			}
		}
		if sum != herd || last > window+3*time.Second || last < window/2 {
			t.Errorf("%v collectors have come, the last one after %v: the window is %v", sum, last, window)
		}
		w.pass(time.Minute)
		w.noGap(start, time.Now(), all...)
		if n := other.metric(t, sentAssignments); n != 0 {
			t.Errorf("the other replica sent %v assignments, though nothing had changed", n)
		}
	})
}
