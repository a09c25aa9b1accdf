package sink

import (
	"errors"

	"github.com/prometheus/prometheus/storage"
)

// errInvalid says that a histogram contradicts itself.
var errInvalid = errors.New("an invalid histogram")

// Refused counts what the store did not take of a batch whose rest it took.
type Refused struct {
	// OutOfOrder samples came after a newer one of their series and outside of
	// the window for such.
	OutOfOrder int

	// Duplicate samples have the time of a stored one and another value. The
	// same value again is no refusal.
	Duplicate int

	// TooOld samples lie before what the store can still write.
	TooOld int

	// TooNew samples lie more than ten minutes in the future.
	TooNew int

	// Invalid samples are histograms that contradict themselves.
	Invalid int

	// Exemplars counts exemplars; their samples were stored.
	Exemplars int
}

// Samples is the number of samples refused, for whatever reason.
func (r Refused) Samples() int { return r.OutOfOrder + r.Duplicate + r.TooOld + r.TooNew + r.Invalid }

// byReason has every reason under its name in the metric.
func (r Refused) byReason() map[string]int {
	return map[string]int{
		"out_of_order": r.OutOfOrder,
		"duplicate":    r.Duplicate,
		"too_old":      r.TooOld,
		"too_new":      r.TooNew,
		"invalid":      r.Invalid,
	}
}

// add counts a refusal. It answers false when err is none.
func (r *Refused) add(err error) bool {
	var partial *storage.AppendPartialError
	switch {
	case errors.As(err, &partial):
		r.Exemplars += len(partial.ExemplarErrors)
	case errors.Is(err, storage.ErrOutOfOrderSample):
		r.OutOfOrder++
	case errors.Is(err, storage.ErrDuplicateSampleForTimestamp):
		r.Duplicate++
	case errors.Is(err, errInvalid):
		r.Invalid++
	case errors.Is(err, storage.ErrOutOfBounds), errors.Is(err, storage.ErrTooOldSample):
		r.TooOld++
	default:
		return false
	}
	return true
}

// count adds the refusals to the metrics.
func (r Refused) count(m *tsdbMetrics) {
	if r == (Refused{}) {
		return
	}
	for reason, n := range r.byReason() {
		m.refused.WithLabelValues(reason).Add(float64(n))
	}
	m.exemplarsRefused.Add(float64(r.Exemplars))
}
