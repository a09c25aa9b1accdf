package scrape

import (
	"errors"
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
)

// histogram takes one native histogram. It is one sample.
func (r *reading) histogram() *failure {
	if f := r.count(); f != nil {
		return f
	}
	r.natives++
	raw, stamp, extra, err := r.parseHistogram()
	if err != nil {
		return fail(schedule.ReasonMalformed, "the histogram %s: %v", shown(raw), err)
	}
	return r.sample(raw, stamp, 0, extra)
}

// parseHistogram is the parser's Histogram, if it is one that can be stored.
func (r *reading) parseHistogram() (raw []byte, stamp *int64, extra *sample.Extra, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the parser failed: %v", p)
		}
	}()
	var (
		h  *histogram.Histogram
		fh *histogram.FloatHistogram
	)
	raw, stamp, h, fh = r.parser.Histogram()
	switch {
	case h != nil:
		err = errors.Join(h.Validate(), checkSpans(h.PositiveSpans), checkSpans(h.NegativeSpans))
	case fh != nil:
		err = errors.Join(fh.Validate(), checkSpans(fh.PositiveSpans), checkSpans(fh.NegativeSpans))
	default:
		err = errors.New("there is none")
	}
	return raw, stamp, &sample.Extra{Histogram: h, FloatHistogram: fh}, err
}

// checkSpans refuses spans that reach beyond the numbers that buckets have:
// whoever reads them counts in 32 bits.
func checkSpans(spans []histogram.Span) error {
	end := int64(0)
	for _, span := range spans {
		end += int64(span.Offset) + int64(span.Length)
		if end > math.MaxInt32 {
			return errors.New("its buckets lie beyond all numbers")
		}
	}
	return nil
}
