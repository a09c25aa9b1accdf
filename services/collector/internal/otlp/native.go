package otlp

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
)

// maxDense is how many buckets side by side an exponential histogram is sent
// with. OTLP has no gaps: of a histogram with few buckets far apart, the
// resolution is halved until they fit.
const maxDense = 16 << 10

// shapeOf is what a native histogram is in OTLP, false when it is nothing: it is
// a gauge, one of floating point numbers (nil here), or not valid.
func shapeOf(h *histogram.Histogram) (shape, bool) {
	switch {
	case h == nil, h.CounterResetHint == histogram.GaugeType, h.Validate() != nil:
		return 0, false
	case histogram.IsCustomBucketsSchema(h.Schema):
		return shapeHistogram, true
	case histogram.IsExponentialSchema(h.Schema) && inRange(h.Schema, h.PositiveSpans) && inRange(h.Schema, h.NegativeSpans):
		return shapeExponential, true
	default:
		return 0, false
	}
}

// highest is the index of the last bucket of numbers; that behind it is of
// infinite ones, which OTLP has not.
func highest(schema int32) int64 {
	if schema < 0 {
		return 1024 >> -schema
	}
	return 1024 << schema
}

// inRange reports whether the buckets of spans are those of numbers, or of the
// infinite ones.
func inRange(schema int32, spans []histogram.Span) bool {
	lowest := int64(-1074) << max(schema, 0) >> max(-schema, 0)
	at := int64(0)
	for i, s := range spans {
		at += int64(s.Offset)
		if i == 0 && at < lowest {
			return false
		}
		at += int64(s.Length)
	}
	return at-1 <= highest(schema)+1
}

// thin is a histogram with the resolution at which its buckets fit.
func thin(h *histogram.Histogram) *histogram.Histogram {
	for breadth(h.PositiveSpans) > maxDense || breadth(h.NegativeSpans) > maxDense {
		less := h.Copy()
		if less.Schema <= histogram.ExponentialSchemaMin || less.ReduceResolution(less.Schema-1) != nil {
			return h
		}
		h = less
	}
	return h
}

func breadth(spans []histogram.Span) (n int64) {
	for i, s := range spans {
		if i > 0 {
			n += int64(s.Offset)
		}
		n += int64(s.Length)
	}
	return n
}

// spread puts the counts of buckets into dense, gaps as zeros, up to and with
// the index last. It returns what they are together.
func (p *pass) spread(spans []histogram.Span, deltas []int64, last int64) (total uint64) {
	p.dense = p.dense[:0]
	count, index := int64(0), int64(0)
	for i, s := range spans {
		index += int64(s.Offset)
		for range s.Length {
			count, deltas = count+deltas[0], deltas[1:]
			if index <= last {
				for gap := int32(0); i > 0 && gap < s.Offset; gap++ {
					p.dense = append(p.dense, 0)
				}
				p.dense = append(p.dense, uint64(count))
				total += uint64(count)
			}
			s.Offset = 0
			index++
		}
		if s.Length == 0 && i > 0 && index-1 <= last {
			for range s.Offset {
				p.dense = append(p.dense, 0)
			}
		}
	}
	return total
}

// writeExponential writes the data point of a native histogram.
func (p *pass) writeExponential(w *writer, u *unit) {
	it := &p.items[u.item]
	end := w.mark()
	if u.stale {
		w.number(tagHistogramFlags, flagNoRecordedValue)
	} else {
		p.writeNative(w, thin(it.Extra.Histogram))
		p.writeExemplars(w, tagNativeExemplar, it.Extra, it.Time)
	}
	w.time(tagTime, it.Time)
	w.time(tagStart, u.start)
	w.attributes(tagExponentialAttr, p.view.entries[it.Index].attrs)
	w.close(tagDataPoint, end)
}

func (p *pass) writeNative(w *writer, h *histogram.Histogram) {
	w.float(tagZeroThreshold, h.ZeroThreshold)
	negative := p.writeDense(w, tagNegative, h.Schema, h.NegativeSpans, h.NegativeBuckets)
	positive := p.writeDense(w, tagPositive, h.Schema, h.PositiveSpans, h.PositiveBuckets)
	w.fixed(tagZeroCount, h.ZeroCount)
	w.number(tagScale, zigzag(h.Schema))
	w.float(tagPointSum, h.Sum)
	w.fixed(tagCount, h.ZeroCount+positive+negative)
}

// writeDense writes one side of a histogram. The index of a bucket is that of
// its lower bound in OTLP, of its upper one in Prometheus.
func (p *pass) writeDense(w *writer, tag byte, schema int32, spans []histogram.Span, deltas []int64) (total uint64) {
	total = p.spread(spans, deltas, highest(schema))
	if len(p.dense) == 0 {
		return 0
	}
	end := w.mark()
	for _, count := range slices.Backward(p.dense) {
		w.varint(count)
	}
	w.close(tagDenseCounts, end)
	w.number(tagOffset, zigzag(spans[0].Offset-1))
	w.close(tag, end)
	return total
}

// writeCustom writes the data point of a native histogram with bounds of its
// own.
func (p *pass) writeCustom(w *writer, u *unit) {
	it := &p.items[u.item]
	end := w.mark()
	if u.stale {
		w.number(tagHistogramFlags, flagNoRecordedValue)
	} else {
		h := it.Extra.Histogram
		p.writeExemplars(w, tagBucketExemplar, it.Extra, it.Time)
		p.writeBounds(w, h)
		w.float(tagPointSum, h.Sum)
		w.fixed(tagCount, h.Count)
	}
	w.time(tagTime, it.Time)
	w.time(tagStart, u.start)
	w.attributes(tagHistogramAttr, p.view.entries[it.Index].attrs)
	w.close(tagDataPoint, end)
}

func (p *pass) writeBounds(w *writer, h *histogram.Histogram) {
	p.spread(h.PositiveSpans, h.PositiveBuckets, math.MaxInt64)
	before := 0
	if len(h.PositiveSpans) > 0 {
		before = int(h.PositiveSpans[0].Offset)
	}
	end := w.mark()
	for _, bound := range slices.Backward(h.CustomValues) {
		w.word(math.Float64bits(bound))
	}
	w.close(tagBounds, end)
	end = w.mark()
	for i := len(h.CustomValues); i >= 0; i-- {
		count := uint64(0)
		if n := i - before; n >= 0 && n < len(p.dense) {
			count = p.dense[n]
		}
		w.word(count)
	}
	w.close(tagBucketCounts, end)
}
