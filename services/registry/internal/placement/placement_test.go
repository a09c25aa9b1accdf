package placement_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/placement"
	"pgregory.net/rapid"
)

func drawLoads(t *rapid.T) []placement.Load {
	var loads []placement.Load
	for i, n := range rapid.SliceOfN(rapid.IntRange(0, 20), 1, 8).Draw(t, "producers") {
		loads = append(loads, placement.Load{Collector: assignment.CollectorID(fmt.Sprintf("c%d", i)), Producers: n})
	}
	return loads
}

// TestNextIsTheLeastLoaded: each choice is the least loaded collector, by id
// among equals, whatever the order of the loads; and what was handed out counts.
func TestNextIsTheLeastLoaded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		loads := drawLoads(t)
		shuffled := slices.Clone(loads)
		seed := rapid.Uint64().Draw(t, "order")
		rand.New(rand.NewPCG(seed, 0)).Shuffle(len(shuffled), func(i, j int) {
			shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
		})
		plan := placement.NewPlan(shuffled)
		for i := range rapid.IntRange(1, 200).Draw(t, "choices") {
			least := 0
			for n := range loads {
				if loads[n].Producers < loads[least].Producers {
					least = n
				}
			}
			if got := plan.Next(); got != loads[least].Collector {
				t.Fatalf("choice %d is %q, want %q of %v", i, got, loads[least].Collector, loads)
			}
			loads[least].Producers++
		}
	})
}

// TestPlanBalances: whoever was given anything ends within one of the least
// loaded.
func TestPlanBalances(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		loads := drawLoads(t)
		count := map[assignment.CollectorID]int{}
		given := map[assignment.CollectorID]bool{}
		for _, l := range loads {
			count[l.Collector] = l.Producers
		}
		plan := placement.NewPlan(loads)
		for range rapid.IntRange(0, 300).Draw(t, "choices") {
			id := plan.Next()
			if _, known := count[id]; !known {
				t.Fatalf("%q is no collector", id)
			}
			count[id]++
			given[id] = true
		}
		least := 1 << 30
		for _, n := range count {
			least = min(least, n)
		}
		for id := range given {
			if count[id] > least+1 {
				t.Fatalf("%s was given producers up to %d, and another has %d", id, count[id], least)
			}
		}
	})
}

func TestNobodyToHaveIt(t *testing.T) {
	if id := placement.NewPlan(nil).Next(); id != "" {
		t.Errorf("a plan without collectors gives %q", id)
	}
}
