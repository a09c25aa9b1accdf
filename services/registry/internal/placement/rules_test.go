package placement_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/placement"
)

// give makes a fleet of open collectors that have producers of given costs.
func give(costs ...[]float64) *fleet {
	f := &fleet{options: placement.Options{Rebalance: true}}
	for c, of := range costs {
		id := assignment.CollectorID(fmt.Sprintf("c%d", c))
		f.collectors = append(f.collectors, placement.Collector{ID: id, Open: true})
		for n, cost := range of {
			f.producers = append(f.producers, placement.Producer{
				ID: assignment.ProducerID(fmt.Sprintf("%s/%02d", id, n)), Weight: cost - placement.Cost(0), Owner: id,
			})
		}
	}
	return f
}

// times is n producers of one cost.
func times(n int, cost float64) []float64 { return slices.Repeat([]float64{cost}, n) }

func expect(t *testing.T, f *fleet, moves ...placement.Move) *placement.Plan {
	t.Helper()
	plan := f.plan()
	if diff := cmp.Diff(moves, plan.Moves); diff != "" {
		t.Errorf("moves (-want +got):\n%s", diff)
	}
	return plan
}

// TestBandAndSettle: a collector at the band is left alone, and one above it
// gives until it has settled; what is between the two is left alone, too.
func TestBandAndSettle(t *testing.T) {
	expect(t, give(times(110, 10), times(100, 10), times(90, 10)))

	f := give(times(111, 10), times(109, 10), times(80, 10))
	plan := f.plan()
	for _, m := range plan.Moves {
		if m.From != "c0" || m.To != "c2" || m.Reason != placement.Rebalance {
			t.Errorf("%v", m)
		}
	}
	if len(plan.Moves) != 3 || plan.Before.Ratio() != 1.11 || plan.After.Ratio() != 1.09 || plan.After.Mean != 1000 {
		t.Errorf("%d moves, from %+v to %+v", len(plan.Moves), plan.Before, plan.After)
	}

	f.options.Settle = 0.05
	if moves := f.plan().Moves; len(moves) != 6 {
		t.Errorf("%d moves to settle at 5 %%, want 6", len(moves))
	}
	f.options.MaxMoves = 2
	if moves := f.plan().Moves; len(moves) != 2 {
		t.Errorf("%d moves, 2 are allowed", len(moves))
	}
}

// TestHeaviestFirst: few heavy ones are moved rather than many light ones, and
// of those that would do the lightest.
func TestHeaviestFirst(t *testing.T) {
	// The mean is 1000: c0 has 320 too much to be settled.
	f := give(
		append([]float64{200, 150, 140, 110}, times(80, 10)...),
		times(80, 10), times(80, 10))
	expect(t, f,
		placement.Move{Producer: "c0/00", From: "c0", To: "c1", Reason: placement.Rebalance},
		placement.Move{Producer: "c0/02", From: "c0", To: "c2", Reason: placement.Rebalance})
}

// TestFewestMoves: where a new collector has room for all that is too much, no
// plan could have fewer moves.
func TestFewestMoves(t *testing.T) {
	for seed := range uint64(20) {
		f := even(t, 5, lognormal(500, 1, seed)...)
		f.collectors = append(f.collectors, placement.Collector{ID: "new", Open: true})
		plan := f.plan()
		settled, fewest := 1.08*plan.Before.Mean, 0
		for _, l := range plan.Collectors {
			var costs []float64
			for _, p := range f.producers {
				if p.Owner == l.Collector {
					costs = append(costs, placement.Cost(p.Weight))
				}
			}
			slices.Sort(costs)
			for excess := l.LoadBefore - settled; excess > 0; fewest++ {
				excess -= costs[len(costs)-1]
				costs = costs[:len(costs)-1]
			}
		}
		if len(plan.Moves) != fewest || fewest == 0 {
			t.Errorf("seed %d: %d moves, %d are enough", seed, len(plan.Moves), fewest)
		}
	}
}

// TestNoSeesaw: two collectors with three producers cannot be even, and weights
// that sway do not have one of them move to and fro.
func TestNoSeesaw(t *testing.T) {
	for _, costs := range [][3]float64{{100, 101, 99}, {99, 101, 100}, {101, 99, 98}, {100, 100, 91}} {
		expect(t, give(costs[:2], costs[2:]))
	}
	expect(t, give([]float64{100, 101}, []float64{50}),
		placement.Move{Producer: "c0/00", From: "c0", To: "c1", Reason: placement.Rebalance})
}

// TestGiant: what cannot be divided stays, and the light ones go.
func TestGiant(t *testing.T) {
	f := give([]float64{1000, 10, 10}, []float64{100}, []float64{100})
	plan := f.plan()
	if len(plan.Moves) != 2 || plan.After.Max != 1000 {
		t.Errorf("%v, %+v", plan.Moves, plan.After)
	}
	f.producers[0].Fixed = true
	if diff := cmp.Diff(plan, f.plan()); diff != "" {
		t.Errorf("with the giant fixed (-free +fixed):\n%s", diff)
	}
}

// TestUnknownWeightsSpread: producers of no weight do not end on one collector.
func TestUnknownWeightsSpread(t *testing.T) {
	for _, weight := range []float64{0, -1, math.NaN(), math.Inf(1), math.Inf(-1)} {
		f := even(t, 4, times(100, weight)...)
		for _, l := range f.plan().Collectors {
			if l.ProducersAfter != 25 || l.LoadAfter != 25*placement.Cost(0) {
				t.Errorf("weight %v: %+v", weight, l)
			}
		}
	}
}

// TestCapacityCounts: load is relative, and a capacity that is not told is the
// mean of the others.
func TestCapacityCounts(t *testing.T) {
	f := even(t, 3)
	f.collectors[0].Capacity, f.collectors[1].Capacity = 1000, 3000
	for i := range 600 {
		f.producers = append(f.producers, placement.Producer{ID: assignment.ProducerID(fmt.Sprint(i)), Weight: 1})
	}
	for i, l := range f.plan().Collectors {
		if want := []int{100, 300, 200}[i]; l.ProducersAfter != want || l.Capacity != float64(10*want) {
			t.Errorf("%+v, want %d producers", l, want)
		}
	}
	// An idle but small collector is no place for a heavy producer.
	f = give(times(10, 10), nil)
	f.collectors[0].Capacity, f.collectors[1].Capacity = 1000, 10
	f.producers = append(f.producers, placement.Producer{ID: "heavy", Weight: 50})
	expect(t, f, placement.Move{Producer: "heavy", To: "c0", Reason: placement.Orphan})
}

// TestZone: a zone decides where a producer goes that must go somewhere, as long
// as there is room in it, and moves none by itself.
func TestZone(t *testing.T) {
	f := give(times(50, 10), times(48, 10), times(40, 10))
	f.collectors[0].Zone, f.collectors[1].Zone, f.collectors[2].Zone = "a", "b", "a"
	f.collectors[2].Silent = true // so that c0 and c1 are even
	for i := range f.producers {
		f.producers[i].Zone = "b"
	}
	expect(t, f) // c0 and c2 have only what would rather be in b

	f = give(times(10, 10), times(10, 10), times(9, 10))
	f.collectors[0].Zone, f.collectors[1].Zone, f.collectors[2].Zone = "a", "b", "b"
	f.producers = append(f.producers, placement.Producer{ID: "new", Weight: 0, Zone: "a"})
	expect(t, f, placement.Move{Producer: "new", To: "c0", Reason: placement.Orphan})
	f.producers[29].Weight = 20
	expect(t, f, placement.Move{Producer: "new", To: "c2", Reason: placement.Orphan})
	f.producers[29] = placement.Producer{ID: "left", Weight: 0, Zone: "a", Owner: "c9"}
	f.collectors = append(f.collectors, placement.Collector{ID: "c9", Leave: true, Zone: "a"})
	expect(t, f, placement.Move{Producer: "left", From: "c9", To: "c0", Reason: placement.Leave})

	// Too much in zone a: c0 gives to the other of its zone, which has more than
	// the one in b.
	f = give(times(12, 10), times(8, 10), times(9, 10), times(11, 10))
	f.collectors[0].Zone, f.collectors[1].Zone, f.collectors[2].Zone, f.collectors[3].Zone = "a", "b", "a", "b"
	for i := range 12 {
		f.producers[i].Zone = "a"
	}
	plan := f.plan()
	if len(plan.Moves) == 0 || plan.Moves[0].To != "c2" {
		t.Errorf("%v", plan.Moves)
	}
	f.collectors[2].Open = false
	if plan = f.plan(); len(plan.Moves) == 0 || plan.Moves[0].To != "c1" {
		t.Errorf("without room in the zone: %v", plan.Moves)
	}
}

// TestNobodyOpen: without an open collector everything stays and is counted.
func TestNobodyOpen(t *testing.T) {
	f := give(times(30, 10), times(3, 10), times(2, 10))
	for i := range f.collectors {
		f.collectors[i].Open = false
	}
	f.collectors[2].Leave = true
	f.producers = append(f.producers, placement.Producer{ID: "orphan"})
	if plan := expect(t, f); plan.Stuck != 2 || plan.Unplaced != 1 || plan.After.Ratio() != 0 {
		t.Errorf("%+v", plan)
	}
	if plan := (&fleet{}).plan(); len(plan.Moves) != 0 || plan.After.Ratio() != 0 {
		t.Errorf("an empty fleet: %+v", plan)
	}
}

// TestClosed: one that is not open gives what is too much and gets nothing, and
// its idleness does not make the others look busy.
func TestClosed(t *testing.T) {
	f := give(times(10, 10), times(10, 10), nil)
	f.collectors[2].Open = false
	expect(t, f)
	f = give(times(20, 10), times(10, 10), times(10, 10))
	f.collectors[0].Open = false
	if plan := f.plan(); len(plan.Moves) != 6 || plan.Collectors[0].ProducersAfter != 14 {
		t.Errorf("%v", plan.Moves)
	}
}

// TestClosedThatGaveCountsNoMore: once one that is not open has given, it may be
// below the mean of the others, and these have room up to a higher one.
func TestClosedThatGaveCountsNoMore(t *testing.T) {
	f := give([]float64{20, 13}, []float64{4, 28}, []float64{13})
	f.collectors[0].Open, f.collectors[1].Open = false, false
	f.producers[0].Fixed, f.producers[3].Fixed = true, true
	plan := expect(t, f,
		placement.Move{Producer: "c0/01", From: "c0", To: "c2", Reason: placement.Rebalance},
		placement.Move{Producer: "c1/00", From: "c1", To: "c2", Reason: placement.Rebalance})
	if plan.Before.Mean != 26 || plan.After.Mean != 30 {
		t.Errorf("from %+v to %+v", plan.Before, plan.After)
	}
}

func TestReasonsAreWords(t *testing.T) {
	for r, want := range map[placement.Reason]string{placement.Orphan: "orphan", placement.Leave: "leave", placement.Rebalance: "rebalance", 9: "Reason(9)"} {
		if r.String() != want {
			t.Errorf("%q, want %q", r, want)
		}
	}
}
