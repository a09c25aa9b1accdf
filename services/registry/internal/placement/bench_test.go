package placement_test

import (
	"fmt"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/placement"
)

// large is a fleet of a million orphans and a thousand collectors.
func large(weight func(i int) float64) *fleet {
	f := &fleet{options: placement.Options{Rebalance: true}}
	for i := range 1_000 {
		f.collectors = append(f.collectors, placement.Collector{ID: assignment.CollectorID(fmt.Sprintf("collector-%d", i)), Open: true})
	}
	for i := range 1_000_000 {
		f.producers = append(f.producers, placement.Producer{ID: assignment.ProducerID(fmt.Sprintf("job/producer-%d", i)), Weight: weight(i)})
	}
	f.shuffle(1)
	return f
}

func drawn() func(int) float64 {
	weights := lognormal(1_000_000, 1, 1)
	return func(i int) float64 { return weights[i] }
}

// BenchmarkDecide plans for a million producers and a thousand collectors: all
// of them orphans, of all weights or of one; one collector that must be left or
// has just joined; and nothing to do.
func BenchmarkDecide(b *testing.B) {
	measure := func(b *testing.B, f *fleet) {
		b.ReportAllocs()
		moves := 0
		for b.Loop() {
			moves = len(f.plan().Moves)
		}
		b.ReportMetric(float64(moves), "moves/op")
	}
	b.Run("orphans", func(b *testing.B) { measure(b, large(drawn())) })
	b.Run("orphans-of-one-weight", func(b *testing.B) { measure(b, large(func(int) float64 { return 50 })) })

	settled := large(drawn())
	settled.apply(settled.plan())
	b.Run("balanced", func(b *testing.B) { measure(b, settled) })
	b.Run("leave", func(b *testing.B) {
		settled.collectors[0].Leave = true
		measure(b, settled)
		settled.collectors[0].Leave = false
	})
	// A fifth more collectors put everybody else outside the band.
	for i := range 200 {
		settled.collectors = append(settled.collectors, placement.Collector{ID: assignment.CollectorID(fmt.Sprintf("new-%d", i)), Open: true})
	}
	b.Run("join-200", func(b *testing.B) { measure(b, settled) })
}

// BenchmarkNext places one producer among a thousand collectors.
func BenchmarkNext(b *testing.B) {
	loads := make([]placement.Load, 1_000)
	for i := range loads {
		loads[i] = placement.Load{Collector: assignment.CollectorID(fmt.Sprintf("collector-%d", i)), Load: float64(i), Zone: fmt.Sprintf("zone-%d", i%3)}
	}
	chooser := placement.NewChooser(loads, 0)
	for b.Loop() {
		chooser.Next(50, "zone-1")
	}
}
