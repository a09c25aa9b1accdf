package simulation

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/registry"
)

// wallClock is a collector's wall clock, which can be set. What it is ahead of
// the world's may be negative.
type wallClock struct{ ahead atomic.Int64 }

func (c *wallClock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func (c *wallClock) step(by time.Duration) { c.ahead.Add(int64(by)) }

// TestClockStepBack: whatever a collector's wall clock does, its producers are
// collected once an interval: none waits longer, and none is collected more than
// once besides.
func TestClockStepBack(t *testing.T) {
	for _, by := range []time.Duration{
		-3 * time.Minute, -2*time.Hour - 7300*time.Millisecond, -24 * time.Hour, -1500 * time.Millisecond,
		4100 * time.Millisecond, 5 * time.Minute, 3*time.Hour + 9900*time.Millisecond,
	} {
		t.Run(by.String(), func(t *testing.T) {
			simulate(t, func(w *world) {
				var clock wallClock
				w.registry(registry.NewMemoryStore())
				w.collectorOf(collector.Config{ID: "c-1", Registries: []string{registryAddress}, Now: clock.now})
				w.pass(time.Second)
				all := names(100)
				w.register(all...)
				start := time.Now()
				w.pass(47 * time.Second)
				clock.step(by)
				w.pass(47 * time.Second)
				clock.step(-by)
				w.pass(47 * time.Second)
				w.noGap(start, time.Now(), all...)
				for _, id := range all {
					// 14 intervals, the first collection and two steps.
					if n := w.fleet.count(id); n > 14+1+2 {
						t.Errorf("%s was collected %d times in %v", id, n, time.Since(start))
					}
				}
				if n := w.membership("c-1").GetAppliedCount(); n != 100 {
					t.Errorf("%d are applied", n)
				}
			})
		})
	}
}
