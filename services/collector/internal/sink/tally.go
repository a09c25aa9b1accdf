package sink

import (
	"math"

	"github.com/prometheus/prometheus/storage"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
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
	extra *sample.Extra // with a histogram, or nil
}

// same reports whether two samples of one time are one and the same.
func (s tallied) same(o tallied) bool {
	switch {
	case s.extra == nil && o.extra == nil:
		return math.Float64bits(s.value) == math.Float64bits(o.value)
	case s.extra == nil || o.extra == nil:
		return false
	case s.extra.Histogram != nil:
		return s.extra.Histogram.Equals(o.extra.Histogram)
	default:
		return s.extra.FloatHistogram.Equals(o.extra.FloatHistogram)
	}
}

// tallyOf is a sample under the store's reference.
func tallyOf(ref storage.SeriesRef, s *sample.Sample) tallied {
	all := tallied{ref: ref, time: s.Time, value: s.Value}
	if e := s.Extra; e != nil && (e.Histogram != nil || e.FloatHistogram != nil) {
		all.value, all.extra = 0, e
	}
	return all
}

// check refuses a sample that the commit would drop for one that is in the
// transaction already. A ref of zero is a new series.
func (t *tally) check(s tallied) error {
	ref := s.ref
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
	case newest.time == s.time && !newest.same(s):
		return storage.ErrDuplicateSampleForTimestamp
	case newest.time > s.time && !t.takesOlder:
		return storage.ErrOutOfOrderSample
	default:
		return nil
	}
}

// add takes a sample that the transaction took.
func (t *tally) add(s tallied) {
	t.samples = append(t.samples, s)
	t.highest = max(t.highest, s.ref)
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
	clear(t.samples) // They hold histograms.
	t.samples = t.samples[:0]
	t.highest = 0
	t.indexed = false
	if len(t.index) > maxTallyIndex {
		t.index = nil
	}
	clear(t.index)
}
