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
	mu     sync.RWMutex // guards all below
	rates  map[assignment.ProducerID]float32
	heard  map[assignment.CollectorID]time.Time // when each collector last told
	loads  map[assignment.CollectorID]measured
	median float64
}

// measured is a collector's load, as placement reckons it, when that was last summed up, and how many
// producers it had.
type measured struct {
	load     float64
	assigned int
}

func newWeights() *weights {
	return &weights{
		rates:  map[assignment.ProducerID]float32{},
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
	if rate, ok := w.rates[e.ID]; ok {
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
		if old, ok := w.rates[id]; ok {
			rate = float64(old) + smoothing*(rate-float64(old))
		}
		w.rates[id] = float32(rate)
	}
}

// sum adds up the loads of all collectors, and forgets producers that left.
func (w *weights) sum(producers *btree.BTreeG[*roster.Entry]) {
	w.mu.Lock()
	defer w.mu.Unlock()
	kept := make(map[assignment.ProducerID]float32, len(w.rates))
	all := make([]float32, 0, len(w.rates))
	producers.Ascend(func(e *roster.Entry) bool {
		if rate, ok := w.rates[e.ID]; ok {
			kept[e.ID] = rate
			all = append(all, rate)
		}
		return true
	})
	w.rates = kept
	if len(all) > 0 {
		slices.Sort(all)
		w.median = float64(all[len(all)/2])
	}
	w.loads = map[assignment.CollectorID]measured{}
	producers.Ascend(func(e *roster.Entry) bool {
		if e.Collector != "" {
			m := w.loads[e.Collector]
			w.loads[e.Collector] = measured{m.load + placement.Cost(w.of(e)), m.assigned + 1}
		}
		return true
	})
}

// Weigh takes what a collector says its producers yield, in samples per second.
func (r *Registrar) Weigh(collector assignment.CollectorID, rates map[assignment.ProducerID]float64) {
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
