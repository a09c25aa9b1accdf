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

// A fleet is what a plan is made of.
type fleet struct {
	producers  []placement.Producer
	collectors []placement.Collector
	options    placement.Options
	avoided    map[[2]string]bool
}

func (f *fleet) plan() *placement.Plan {
	return placement.Decide(f.producers, f.collectors, f.options)
}

// apply carries a plan out.
func (f *fleet) apply(p *placement.Plan) {
	to := map[assignment.ProducerID]assignment.CollectorID{}
	for _, m := range p.Moves {
		to[m.Producer] = m.To
	}
	for i := range f.producers {
		if c, ok := to[f.producers[i].ID]; ok {
			f.producers[i].Owner = c
		}
	}
}

func (f *fleet) collector(id assignment.CollectorID) *placement.Collector {
	for i := range f.collectors {
		if f.collectors[i].ID == id {
			return &f.collectors[i]
		}
	}
	return nil
}

// target tells whether a producer may be given to a collector at all.
func (f *fleet) target(p assignment.ProducerID, c *placement.Collector) bool {
	return c.Open && !c.Leave && !f.avoided[[2]string{string(p), string(c.ID)}]
}

// waits tells whether a producer has to be given to somebody, and why.
func (f *fleet) waits(p *placement.Producer) placement.Reason {
	if p.Owner == "" {
		return placement.Orphan
	}
	if c := f.collector(p.Owner); c == nil || c.Leave {
		return placement.Leave
	}
	return 0
}

func (f *fleet) shuffle(seed uint64) {
	r := rand.New(rand.NewPCG(seed, 0))
	r.Shuffle(len(f.producers), func(i, j int) { f.producers[i], f.producers[j] = f.producers[j], f.producers[i] })
	r.Shuffle(len(f.collectors), func(i, j int) { f.collectors[i], f.collectors[j] = f.collectors[j], f.collectors[i] })
}

// drawFleet draws a small fleet in which anything may be.
func drawFleet(t *rapid.T) *fleet {
	f := &fleet{avoided: map[[2]string]bool{}}
	zones := rapid.SampledFrom([]string{"", "", "east", "west"})
	capacities := rapid.SampledFrom([]float64{0, 0, 1000, 1000, 2500, 100, -1, math.NaN(), math.Inf(1)})
	sized, often := rapid.Bool().Draw(t, "sized"), rapid.IntRange(0, 9)
	for i := range rapid.IntRange(0, 7).Draw(t, "collectors") {
		c := placement.Collector{
			ID: assignment.CollectorID(fmt.Sprintf("c%d", i)), Zone: zones.Draw(t, "zone"),
			Open: often.Draw(t, "open") > 1, Leave: often.Draw(t, "leave") == 0, Silent: often.Draw(t, "silent") == 0,
		}
		if sized {
			c.Capacity = capacities.Draw(t, "capacity")
		}
		f.collectors = append(f.collectors, c)
	}
	weights := rapid.OneOf(
		rapid.SampledFrom([]float64{0, 1, 10, 50, -3, math.NaN(), math.Inf(1), math.Inf(-1), 1e300}),
		rapid.Custom(func(t *rapid.T) float64 { return math.Exp(float64(rapid.IntRange(-20, 70).Draw(t, "ln10")) / 10) }),
		rapid.Just(20.0),
	)
	crowd := often.Draw(t, "crowd") > 4 // most are with one collector
	for i := range rapid.IntRange(0, 60).Draw(t, "producers") {
		p := placement.Producer{
			ID: assignment.ProducerID(fmt.Sprintf("p%02d", i)), Weight: weights.Draw(t, "weight"),
			Zone: zones.Draw(t, "zone"), Fixed: often.Draw(t, "fixed") == 0,
		}
		switch n := often.Draw(t, "owned"); {
		case n == 0 || len(f.collectors) == 0:
		case n == 1:
			p.Owner = "unheard-of"
		case n < 6 && crowd:
			p.Owner = f.collectors[0].ID
		default:
			p.Owner = rapid.SampledFrom(f.collectors).Draw(t, "owner").ID
		}
		f.producers = append(f.producers, p)
		if len(f.collectors) > 0 && often.Draw(t, "avoids") == 0 {
			f.avoided[[2]string{string(p.ID), string(rapid.SampledFrom(f.collectors).Draw(t, "avoided").ID)}] = true
		}
	}
	f.options = placement.Options{
		Rebalance: often.Draw(t, "rebalance") > 0,
		Band:      rapid.SampledFrom([]float64{0, 0.1, 0.1, 0.3, 0.02, 1e-9}).Draw(t, "band"),
		Settle:    rapid.SampledFrom([]float64{0, 0.05, 1}).Draw(t, "settle"),
	}
	if len(f.avoided) > 0 {
		f.options.Avoid = func(p assignment.ProducerID, c assignment.CollectorID) bool {
			return f.avoided[[2]string{string(p), string(c)}]
		}
	}
	return f
}

// band is the band that a fleet's options come to.
func (f *fleet) band() float64 {
	if f.options.Band == 0 {
		return placement.DefaultBand
	}
	return max(f.options.Band, 0.001)
}

// byCollector is a plan's loads by collector.
func byCollector(p *placement.Plan) map[assignment.CollectorID]placement.CollectorLoad {
	loads := map[assignment.CollectorID]placement.CollectorLoad{}
	for _, l := range p.Collectors {
		loads[l.Collector] = l
	}
	return loads
}

// even is a fleet of n open collectors and as many producers as there are
// weights, dealt out by Decide.
func even(t *testing.T, n int, weights ...float64) *fleet {
	t.Helper()
	f := &fleet{options: placement.Options{Rebalance: true}}
	for i := range n {
		f.collectors = append(f.collectors, placement.Collector{ID: assignment.CollectorID(fmt.Sprintf("c%d", i)), Open: true})
	}
	for i, w := range weights {
		f.producers = append(f.producers, placement.Producer{ID: assignment.ProducerID(fmt.Sprintf("p%04d", i)), Weight: w})
	}
	f.apply(f.plan())
	return f
}

// lognormal is n weights of median 50 samples/s, whose logarithms have standard
// deviation sigma.
func lognormal(n int, sigma float64, seed uint64) []float64 {
	r := rand.New(rand.NewPCG(seed, 1))
	weights := make([]float64, n)
	for i := range weights {
		weights[i] = 50 * math.Exp(sigma*r.NormFloat64())
	}
	return weights
}

// median of some numbers, which it reorders.
func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}
