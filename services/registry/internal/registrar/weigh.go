package registrar

import (
	"slices"
	"sync"
	"time"

	"github.com/google/btree"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/placement"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// unknownRate is what a producer is thought to yield, in samples per second, as
// long as none has been measured.
const unknownRate = 1

// smoothing is how much the newest measure counts in a producer's rate.
const smoothing = 0.3

// weights are how many samples a second each producer yields, as its collector
// says. It is safe for concurrent use.
type weights struct {
	mu     sync.RWMutex                         // guards all below
	rates  map[assignment.Hash]float32          // by what keyOf gives
	heard  map[assignment.CollectorID]time.Time // when each collector last told
	loads  map[assignment.CollectorID]measured
	median float64
}

// keyOf is a producer's place among the rates: a hash takes a third of the memory
// of an id. Two that share one share a rate, which is a guess anyway.
func keyOf(id assignment.ProducerID) assignment.Hash { return assignment.HashOf(id, 0, 0) }

// measured is a collector's load, as placement reckons it, when that was last summed up, and how many
// producers it had.
type measured struct {
	load     float64
	assigned int
}

func newWeights() *weights {
	return &weights{
		rates:  map[assignment.Hash]float32{},
		heard:  map[assignment.CollectorID]time.Time{},
		loads:  map[assignment.CollectorID]measured{},
		median: unknownRate,
	}
}

// expect is the weight of a producer that is not measured yet; rate is what its
// registration says, zero for nothing.
func (w *weights) expect(rate float64) float64 {
	if rate > 0 {
		return rate
	}
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.median
}

// load is that of a collector that has so many producers now.
func (w *weights) load(id assignment.CollectorID, assigned int) float64 {
	w.mu.RLock()
	defer w.mu.RUnlock()
	m := w.loads[id]
	return max(0, m.load+float64(assigned-m.assigned)*placement.Cost(w.median))
}

// of is the weight of a producer. The caller holds mu.
func (w *weights) of(e *roster.Entry) float64 {
	if rate, ok := w.rates[keyOf(e.ID)]; ok {
		return float64(rate)
	}
	if e.Rate > 0 {
		return e.Rate
	}
	return w.median
}

// take notes what a collector tells.
func (w *weights) take(collector assignment.CollectorID, rates map[assignment.ProducerID]float64, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.heard[collector] = now
	for id, rate := range rates {
		key := keyOf(id)
		if old, ok := w.rates[key]; ok {
			rate = float64(old) + smoothing*(rate-float64(old))
		}
		w.rates[key] = float32(rate)
	}
}

const (
	// stretch is how many producers are summed up before others may have the lock.
	stretch = 4096

	// samples is of how many rates the median is taken.
	samples = 10_000
)

// A tally is the load of one collector in the making.
type tally struct {
	measured
	unknown int // how many are neither measured nor have told
}

// sum adds up the loads of all collectors, and forgets producers that left. One
// at a time.
func (w *weights) sum(producers *btree.BTreeG[*roster.Entry]) {
	var (
		tallies        = map[assignment.CollectorID]*tally{}
		sample         []float32
		scanned, rated int
	)
	w.mu.RLock()
	step := max(1, len(w.rates)/samples)
	producers.Ascend(func(e *roster.Entry) bool {
		if scanned++; scanned%stretch == 0 {
			w.mu.RUnlock()
			w.mu.RLock()
		}
		rate, ok := w.rates[keyOf(e.ID)]
		if ok {
			if rated++; rated%step == 0 {
				sample = append(sample, rate)
			}
		}
		tallyOf(tallies, e.Collector).count(float64(rate), ok, e.Rate)
		return true
	})
	w.mu.RUnlock()
	delete(tallies, "")

	w.mu.Lock()
	defer w.mu.Unlock()
	if len(sample) > 0 {
		slices.Sort(sample)
		w.median = float64(sample[len(sample)/2])
	}
	w.loads = make(map[assignment.CollectorID]measured, len(tallies))
	for id, t := range tallies {
		t.load += float64(t.unknown) * placement.Cost(w.median)
		w.loads[id] = t.measured
	}
	if len(w.rates) > rated+rated/8+samples {
		w.forget(producers)
	}
}

func tallyOf(tallies map[assignment.CollectorID]*tally, id assignment.CollectorID) *tally {
	t := tallies[id]
	if t == nil {
		t = &tally{}
		tallies[id] = t
	}
	return t
}

// count adds a producer of a rate, if that is known, or else of what it has told,
// zero for nothing.
func (t *tally) count(rate float64, known bool, told float64) {
	t.assigned++
	switch {
	case known:
		t.load += placement.Cost(rate)
	case told > 0:
		t.load += placement.Cost(told)
	default:
		t.unknown++
	}
}

// forget drops the rates of producers that left. The caller holds mu.
func (w *weights) forget(producers *btree.BTreeG[*roster.Entry]) {
	kept := make(map[assignment.Hash]float32, producers.Len())
	producers.Ascend(func(e *roster.Entry) bool {
		key := keyOf(e.ID)
		if rate, ok := w.rates[key]; ok {
			kept[key] = rate
		}
		return true
	})
	w.rates = kept
}

// Weigh takes what a collector says its producers yield, in samples per second. It
// owns rates from now on.
func (r *Registrar) Weigh(collector assignment.CollectorID, rates map[assignment.ProducerID]float64) {
	r.mu.RLock()
	for id := range rates {
		if e := r.view.Producer(id); e == nil || e.RoleOf(collector) == assignment.RoleUnspecified {
			delete(rates, id) // not its own
		}
	}
	r.mu.RUnlock()
	r.weights.take(collector, rates, time.Now())
}

// SumWeights adds up what every collector has to do. It is called when all have
// been asked.
func (r *Registrar) SumWeights() {
	r.mu.Lock() // not RLock: cloning a tree marks its nodes as shared
	producers := r.view.Snapshot()
	r.mu.Unlock()
	r.weights.sum(producers)
}

// Weight is how many samples a second a producer yields, as far as is known.
func (r *Registrar) Weight(e *roster.Entry) float64 {
	r.weights.mu.RLock()
	defer r.weights.mu.RUnlock()
	return r.weights.of(e)
}

// Heard is when a collector last told what its producers yield; zero for never.
func (r *Registrar) Heard(id assignment.CollectorID) time.Time {
	r.weights.mu.RLock()
	defer r.weights.mu.RUnlock()
	return r.weights.heard[id]
}
