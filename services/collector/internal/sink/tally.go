package sink

import (
	"math"

	"github.com/prometheus/prometheus/storage"
)

// maxTallyIndex bounds what a tally keeps for the next batch.
const maxTallyIndex = 10_000

// A tally remembers what is in a transaction so far. The store compares a new
// sample with what is committed only, and drops a second value for one time at
// the commit without a word.
//
// The references of a producer's series rise in nearly every batch, since they
// were given in the order of its exposition; the index is made only when they
// do not. The zero value is ready, for a store without an out-of-order window.
type tally struct {
	// takesOlder says that the store has an out-of-order window.
	takesOlder bool

	samples []tallied
	highest storage.SeriesRef
	indexed bool
	index   map[storage.SeriesRef]int // The newest of each series, in samples.
}

type tallied struct {
	ref   storage.SeriesRef
	time  int64
	value float64
}

// check refuses a sample that the commit would drop for one that is in the
// transaction already. A ref of zero is a new series.
func (t *tally) check(ref storage.SeriesRef, time int64, value float64) error {
	if ref == 0 || ref > t.highest {
		return nil
	}
	if !t.indexed {
		t.makeIndex()
	}
	i, ok := t.index[ref]
	if !ok {
		return nil
	}
	newest := t.samples[i]
	switch {
	case newest.time == time && math.Float64bits(newest.value) != math.Float64bits(value):
		return storage.ErrDuplicateSampleForTimestamp
	case newest.time > time && !t.takesOlder:
		return storage.ErrOutOfOrderSample
	default:
		return nil
	}
}

// add takes a sample that the transaction took.
func (t *tally) add(ref storage.SeriesRef, time int64, value float64) {
	t.samples = append(t.samples, tallied{ref, time, value})
	t.highest = max(t.highest, ref)
	if t.indexed {
		t.put(len(t.samples) - 1)
	}
}

func (t *tally) makeIndex() {
	t.indexed = true
	if t.index == nil {
		t.index = make(map[storage.SeriesRef]int, len(t.samples))
	}
	for i := range t.samples {
		t.put(i)
	}
}

func (t *tally) put(i int) {
	s := t.samples[i]
	if old, ok := t.index[s.ref]; !ok || t.samples[old].time <= s.time {
		t.index[s.ref] = i
	}
}

// reset makes the tally ready for another batch.
func (t *tally) reset() {
	t.samples = t.samples[:0]
	t.highest = 0
	t.indexed = false
	if len(t.index) > maxTallyIndex {
		t.index = nil
	}
	clear(t.index)
}
