package placement_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/placement"
	"pgregory.net/rapid"
)

// TestMovesAreAllowed: a move is of a producer that is where the move says, at
// most one of each, for the reason that it gives, and to a collector that may
// have it. Those that wait come first, heaviest first. Rebalancing takes nothing that is fixed, and neither from nor to one
// that is silent.
func TestMovesAreAllowed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFleet(t)
		f.options.MaxMoves = rapid.IntRange(0, 5).Draw(t, "max moves")
		plan := f.plan()
		producers := map[assignment.ProducerID]*placement.Producer{}
		for i := range f.producers {
			producers[f.producers[i].ID] = &f.producers[i]
		}
		balancing, lightest := 0, math.Inf(1)
		for _, m := range plan.Moves {
			p := producers[m.Producer]
			if p == nil {
				t.Fatalf("%v: no such producer, or moved twice", m)
			}
			delete(producers, m.Producer)
			to := f.collector(m.To)
			if m.From != p.Owner || m.To == m.From || to == nil || !f.target(p.ID, to) {
				t.Fatalf("%v of %+v to %+v", m, p, to)
			}
			why := f.waits(p)
			if why != 0 && m.Reason != why || why == 0 && m.Reason != placement.Rebalance {
				t.Fatalf("%v, of %+v", m, p)
			}
			if m.Reason != placement.Rebalance {
				if placement.Cost(p.Weight) > lightest || balancing > 0 {
					t.Fatalf("%v comes after lighter ones", m)
				}
				lightest = placement.Cost(p.Weight)
			} else {
				balancing++
				if !f.options.Rebalance || p.Fixed || to.Silent || f.collector(m.From).Silent {
					t.Fatalf("%v of %+v to %+v", m, p, to)
				}
			}
		}
		if f.options.MaxMoves > 0 && balancing > f.options.MaxMoves {
			t.Fatalf("%d moves for balance, %d are allowed", balancing, f.options.MaxMoves)
		}
	})
}

// TestAllThatWaitArePlaced: whoever has no collector, or must leave it, is moved
// if anybody may have it, whatever the cap; and the others are counted.
func TestAllThatWaitArePlaced(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFleet(t)
		f.options.MaxMoves = 1
		plan := f.plan()
		moved := map[assignment.ProducerID]bool{}
		for _, m := range plan.Moves {
			moved[m.Producer] = true
		}
		stuck, unplaced := 0, 0
		for i := range f.producers {
			p := &f.producers[i]
			why := f.waits(p)
			if why == 0 || moved[p.ID] {
				continue
			}
			for c := range f.collectors {
				if f.target(p.ID, &f.collectors[c]) {
					t.Fatalf("%+v could go to %+v", p, f.collectors[c])
				}
			}
			if why == placement.Orphan {
				unplaced++
			} else {
				stuck++
			}
		}
		if plan.Stuck != stuck || plan.Unplaced != unplaced {
			t.Fatalf("%d stuck and %d unplaced, want %d and %d", plan.Stuck, plan.Unplaced, stuck, unplaced)
		}
	})
}

// TestLoadsAddUp: what a plan tells of loads is what its moves come to.
func TestLoadsAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFleet(t)
		plan := f.plan()
		loads := func() map[assignment.CollectorID]placement.CollectorLoad {
			of := map[assignment.CollectorID]placement.CollectorLoad{}
			for _, p := range f.producers {
				l := of[p.Owner]
				l.LoadAfter += placement.Cost(p.Weight)
				l.ProducersAfter++
				of[p.Owner] = l
			}
			return of
		}
		check := func(of string, load float64, n int, want placement.CollectorLoad) {
			if math.Abs(load-want.LoadAfter) > 1e-6*max(1, load) || n != want.ProducersAfter {
				t.Fatalf("%s: load %v of %d producers, want %+v", of, load, n, want)
			}
		}
		before := loads()
		f.apply(plan)
		after := loads()
		if len(plan.Collectors) != len(f.collectors) {
			t.Fatalf("%d loads of %d collectors", len(plan.Collectors), len(f.collectors))
		}
		for _, l := range plan.Collectors {
			check("before", l.LoadBefore, l.ProducersBefore, before[l.Collector])
			check("after", l.LoadAfter, l.ProducersAfter, after[l.Collector])
		}
		if mean, most := reckon(f, plan); math.Abs(mean-plan.After.Mean) > 1e-9*mean || math.Abs(most-plan.After.Max) > 1e-9*most {
			t.Fatalf("balance %+v, want mean %v and max %v", plan.After, mean, most)
		}
	})
}

// reckon is the balance after a plan, from its loads: the highest mean of the
// open and any of the closed.
func reckon(f *fleet, plan *placement.Plan) (mean, most float64) {
	var load, capacity float64
	var closed []placement.CollectorLoad
	for _, l := range plan.Collectors {
		c := f.collector(l.Collector)
		if c.Leave || c.Silent {
			continue
		}
		most = max(most, l.LoadAfter/l.Capacity)
		if c.Open {
			load, capacity = load+l.LoadAfter, capacity+l.Capacity
		} else {
			closed = append(closed, l)
		}
	}
	if capacity == 0 {
		return 0, 0
	}
	for some := range 1 << len(closed) {
		l, c := load, capacity
		for i := range closed {
			if some>>i&1 == 1 {
				l, c = l+closed[i].LoadAfter, c+closed[i].Capacity
			}
		}
		mean = max(mean, l/c)
	}
	return mean, most
}

// TestNothingMovesInsideTheBand: while the fleet is inside the band once all
// that wait are placed, nothing is moved for balance.
func TestNothingMovesInsideTheBand(t *testing.T) {
	inside := 0
	rapid.Check(t, func(t *rapid.T) {
		f := drawFleet(t)
		f.options.Rebalance = false
		placed := f.plan()
		f.options.Rebalance = true
		if placed.After.Ratio() > 1+f.band() {
			return
		}
		inside++
		if diff := cmp.Diff(placed, f.plan()); diff != "" {
			t.Fatalf("inside the band with %+v, and yet (-placed +rebalanced):\n%s", placed.After, diff)
		}
	})
	if inside == 0 {
		t.Error("no fleet was inside the band")
	}
}

// TestRebalancingAttainsTheBand is what Decide says that it attains, for each
// pair of collectors.
func TestRebalancingAttainsTheBand(t *testing.T) {
	relieved := 0
	rapid.Check(t, func(t *rapid.T) {
		f := drawFleet(t)
		f.options.Rebalance = true
		plan := f.plan()
		f.apply(plan)
		if slices.ContainsFunc(plan.Moves, func(m placement.Move) bool { return m.Reason == placement.Rebalance }) {
			relieved++
		}
		const rounding = 1e-9
		loads, band, mean := byCollector(plan), f.band(), plan.After.Mean
		for _, g := range f.collectors {
			giver := loads[g.ID].LoadAfter / loads[g.ID].Capacity
			if g.Leave || g.Silent || giver <= (1+band)*mean*(1+rounding) {
				continue
			}
			for _, to := range f.collectors {
				if to.ID == g.ID || to.Silent {
					continue
				}
				lightest := math.Inf(1)
				for _, p := range f.producers {
					if p.Owner == g.ID && !p.Fixed && f.target(p.ID, &to) {
						lightest = min(lightest, placement.Cost(p.Weight))
					}
				}
				with := (loads[to.ID].LoadAfter + lightest) / loads[to.ID].Capacity
				if with <= (1+band)*mean*(1-rounding) || giver > (with+band*mean)*(1+rounding) {
					t.Fatalf("%s has %v with mean %v, and could give to %s, which would then have %v", g.ID, giver, mean, to.ID, with)
				}
			}
		}
	})
	if relieved == 0 {
		t.Error("no fleet was rebalanced")
	}
}

// TestAgainMovesNothing: once a plan is carried out there is nothing to do, even
// where it could not attain the band.
func TestAgainMovesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFleet(t)
		first := f.plan()
		f.apply(first)
		if again := f.plan(); len(again.Moves) > 0 {
			t.Fatalf("after %v: %v", first.Moves, again.Moves)
		}
	})
}

// TestCappedPlansArrive: plan after plan with a cap ends, and then one without a
// cap moves nothing either.
func TestCappedPlansArrive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFleet(t)
		f.options.MaxMoves = rapid.IntRange(1, 4).Draw(t, "max moves")
		for range 4*len(f.producers) + 10 {
			plan := f.plan()
			f.apply(plan)
			if len(plan.Moves) == 0 {
				f.options.MaxMoves = 0
				if more := f.plan(); len(more.Moves) > 0 {
					t.Fatalf("a plan without a cap goes on with %v", more.Moves)
				}
				return
			}
		}
		t.Fatalf("it still moves: %v", f.plan().Moves)
	})
}

// TestOrderDoesNotMatter: a plan is a function of the fleet as a set.
func TestOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFleet(t)
		plan := f.plan()
		f.shuffle(rapid.Uint64().Draw(t, "order"))
		if diff := cmp.Diff(plan, f.plan()); diff != "" {
			t.Fatalf("in another order (-first +second):\n%s", diff)
		}
	})
}

// TestInputIsLeftAlone: planning changes nothing of what it is given.
func TestInputIsLeftAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFleet(t)
		producers, collectors := fmt.Sprint(f.producers), fmt.Sprint(f.collectors)
		f.plan()
		if fmt.Sprint(f.producers) != producers || fmt.Sprint(f.collectors) != collectors {
			t.Fatal("the fleet is another after the plan")
		}
	})
}

// TestBounceMovesNothing: a collector that leaves and is back before its leaving
// was carried out has all that it had, and nobody else has moved.
func TestBounceMovesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFleet(t)
		f.apply(f.plan())
		if len(f.collectors) == 0 {
			return
		}
		c := rapid.SampledFrom(f.collectors).Draw(t, "bounces").ID
		was := *f.collector(c)
		f.collector(c).Leave = true
		f.plan() // that it is asked is no promise
		*f.collector(c) = was
		if plan := f.plan(); len(plan.Moves) > 0 {
			t.Fatalf("%s is back, and %v", c, plan.Moves)
		}
	})
}
