package placement_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/placement"
	"pgregory.net/rapid"
)

func drawLoads(t *rapid.T, capacities ...float64) []placement.Load {
	var loads []placement.Load
	for i := range rapid.IntRange(1, 8).Draw(t, "collectors") {
		loads = append(loads, placement.Load{
			Collector: assignment.CollectorID(fmt.Sprintf("c%d", i)),
			Load:      float64(rapid.IntRange(0, 400).Draw(t, "load")),
			Capacity:  rapid.SampledFrom(capacities).Draw(t, "capacity"),
			Zone:      rapid.SampledFrom([]string{"", "east", "west"}).Draw(t, "zone"),
		})
	}
	return loads
}

func shuffled(t *rapid.T, loads []placement.Load) []placement.Load {
	loads = slices.Clone(loads)
	rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 0)).Shuffle(len(loads), func(i, j int) {
		loads[i], loads[j] = loads[j], loads[i]
	})
	return loads
}

// TestNextIsTheLeastLoaded: among collectors of one size each choice is the
// least loaded, by id among equals, whatever the order of the loads; and what
// was handed out counts.
func TestNextIsTheLeastLoaded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		loads := drawLoads(t, 0, 100)
		for i := range loads {
			loads[i].Capacity = loads[0].Capacity
		}
		chooser := placement.NewChooser(shuffled(t, loads), 0)
		for i := range rapid.IntRange(1, 200).Draw(t, "choices") {
			weight := float64(rapid.IntRange(0, 30).Draw(t, "weight"))
			least := 0
			for n := range loads {
				if loads[n].Load < loads[least].Load {
					least = n
				}
			}
			if got := chooser.Next(weight, ""); got != loads[least].Collector {
				t.Fatalf("choice %d is %q, want %q of %v", i, got, loads[least].Collector, loads)
			}
			loads[least].Load += placement.Cost(weight)
		}
	})
}

// TestNextSeesSizes: among collectors of all sizes a choice is no worse than any
// other, up to twice what the producer adds there; and in its zone only if it is
// inside the band there, or no worse than elsewhere.
func TestNextSeesSizes(t *testing.T) {
	preferred := 0
	rapid.Check(t, func(t *rapid.T) {
		loads := drawLoads(t, 50, 80, 100, 400, 5000)
		band := rapid.SampledFrom([]float64{0.1, 0.5}).Draw(t, "band")
		chooser := placement.NewChooser(shuffled(t, loads), band)
		for range rapid.IntRange(1, 50).Draw(t, "choices") {
			weight := float64(rapid.IntRange(0, 300).Draw(t, "weight"))
			zone := rapid.SampledFrom([]string{"", "east", "west", "north"}).Draw(t, "zone")
			cost := placement.Cost(weight)
			id := chooser.Next(weight, zone)
			bound, sum, capacity := math.Inf(1), cost, 0.0
			var chosen *placement.Load
			for i := range loads {
				l := &loads[i]
				bound = min(bound, (l.Load+2*cost)/l.Capacity)
				sum, capacity = sum+l.Load, capacity+l.Capacity
				if l.Collector == id {
					chosen = l
				}
			}
			with := (chosen.Load + cost) / chosen.Capacity
			near := zone != "" && chosen.Zone == zone && with <= (1+band)*sum/capacity*(1+1e-9)
			if with > bound*(1+1e-9) && !near {
				t.Fatalf("%v of %s to %+v of %v", weight, zone, chosen, loads)
			}
			if near && with > bound {
				preferred++
			}
			chosen.Load += cost
		}
	})
	if preferred == 0 {
		t.Error("no zone was preferred")
	}
}

// TestChoicesBalance: whoever was given anything ends within the heaviest of the
// least loaded.
func TestChoicesBalance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		loads := drawLoads(t, 0)
		load := map[assignment.CollectorID]float64{}
		given := map[assignment.CollectorID]bool{}
		for _, l := range loads {
			load[l.Collector] = l.Load
		}
		chooser := placement.NewChooser(loads, 0)
		heaviest := 0.0
		for range rapid.IntRange(0, 300).Draw(t, "choices") {
			weight := float64(rapid.IntRange(0, 30).Draw(t, "weight"))
			heaviest = max(heaviest, placement.Cost(weight))
			id := chooser.Next(weight, "")
			if _, known := load[id]; !known {
				t.Fatalf("%q is no collector", id)
			}
			load[id] += placement.Cost(weight)
			given[id] = true
		}
		least := math.Inf(1)
		for _, l := range load {
			least = min(least, l)
		}
		for id := range given {
			if load[id] > least+heaviest {
				t.Fatalf("%s was given up to %v, and another has %v", id, load[id], least)
			}
		}
	})
}

func TestNobodyToHaveIt(t *testing.T) {
	if id := placement.NewChooser(nil, 0).Next(1, "east"); id != "" {
		t.Errorf("a chooser without collectors gives %q", id)
	}
}
