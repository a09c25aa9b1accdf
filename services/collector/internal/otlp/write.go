package otlp

import (
	"encoding/hex"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// maxMessage is how large a message may be, in bytes. One that is larger is not
// written to its end: a label that is in each point could else take all memory.
const maxMessage = 32 << 20

// write writes the request of all units. Lists are from last to first, as is
// the writing.
func (p *pass) write(w *writer) {
	for _, n := range slices.Backward(p.touched) {
		res := &p.view.resources[n]
		end := w.mark()
		for sc := p.resources[n].head; sc != none; sc = p.scopes[sc].next {
			p.writeScope(w, sc)
		}
		inner := w.mark()
		w.raw(res.target.told(p.now))
		w.raw(res.attrs)
		w.close(tagResource, inner)
		w.close(tagResourceMetrics, end)
	}
}

func (p *pass) writeScope(w *writer, sc int32) {
	end := w.mark()
	for m := p.scopes[sc].head; m != none && w.mark() <= maxMessage; m = p.metrics[m].next {
		p.writeMetric(w, m)
	}
	w.raw(p.view.scopes[sc].header)
	w.close(tagScopeMetrics, end)
}

func (p *pass) writeMetric(w *writer, m int32) {
	f := p.view.metrics[m].family
	end := w.mark()
	if f.shape == shapeCounter {
		w.number(tagMonotonic, 1)
	}
	if f.shape != shapeGauge && f.shape != shapeSummary {
		w.number(tagTemporality, temporalityCumulative)
	}
	for i := p.metrics[m].head; i != none && w.mark() <= maxMessage; i = p.units[i].next {
		p.writePoint(w, f.shape, &p.units[i])
	}
	w.close(dataTag(f.shape), end)
	w.raw(f.header)
	w.close(tagMetric, end)
}

func dataTag(s shape) byte {
	switch s {
	case shapeCounter, shapeCount:
		return tagSum
	case shapeHistogram:
		return tagHistogram
	case shapeExponential:
		return tagExponential
	case shapeSummary:
		return tagSummary
	default:
		return tagGauge
	}
}

func (p *pass) writePoint(w *writer, s shape, u *unit) {
	switch {
	case s == shapeExponential:
		p.writeExponential(w, u)
	case s == shapeHistogram && u.point == none:
		p.writeCustom(w, u)
	case s == shapeHistogram:
		p.writeHistogram(w, u)
	case s == shapeSummary && u.point != none:
		p.writeSummary(w, u)
	default:
		p.writeNumber(w, u)
	}
}

func (p *pass) writeNumber(w *writer, u *unit) {
	it := &p.items[u.item]
	end := w.mark()
	if it.Extra != nil {
		p.writeExemplars(w, tagNumberExemplar, it.Extra, it.Time)
	}
	w.raw(p.view.entries[it.Index].attrs)
	if u.stale {
		w.number(tagNumberFlags, flagNoRecordedValue)
	} else {
		w.float(tagNumberValue, it.Value)
	}
	w.time(tagTime, it.Time)
	w.time(tagStart, u.start)
	w.close(tagDataPoint, end)
}

// writeHistogram writes the data point of a classic histogram. One without a
// value has its bounds all the same: they tell which series end.
func (p *pass) writeHistogram(w *writer, u *unit) {
	c := &p.compounds[u.point]
	parts := p.ordered[c.from:c.to]
	end := w.mark()
	if u.stale {
		w.number(tagHistogramFlags, flagNoRecordedValue)
	}
	for _, one := range slices.Backward(parts) {
		if x := p.items[one.item].Extra; x != nil {
			p.writeExemplars(w, tagBucketExemplar, x, c.time)
		}
	}
	if len(parts) > 0 {
		p.writeBuckets(w, c, parts, u.stale)
	}
	count, sum := c.count, c.sum
	if u.stale {
		count, sum = 0, 0
	}
	if c.hasSum {
		w.float(tagPointSum, sum)
	}
	w.fixed(tagCount, uint64(count))
	w.time(tagTime, c.time)
	w.time(tagStart, u.start)
	w.attributes(tagHistogramAttr, p.view.groups[c.group].attrs)
	w.close(tagDataPoint, end)
}

func (p *pass) writeBuckets(w *writer, c *compound, parts []part, stale bool) {
	if n := len(parts); math.IsInf(parts[n-1].bound, 1) {
		parts = parts[:n-1]
	}
	end := w.mark()
	for _, one := range slices.Backward(parts) {
		w.word(math.Float64bits(one.bound))
	}
	w.close(tagBounds, end)
	end = w.mark()
	above := uint64(0)
	if !stale {
		above = uint64(c.count)
	}
	for _, one := range slices.Backward(parts) {
		below := uint64(0)
		if !stale {
			below = uint64(one.value)
		}
		w.word(above - below)
		above = below
	}
	w.word(above)
	w.close(tagBucketCounts, end)
}

func (p *pass) writeSummary(w *writer, u *unit) {
	c := &p.compounds[u.point]
	parts := p.ordered[c.from:c.to]
	end := w.mark()
	w.raw(p.view.groups[c.group].attrs)
	if u.stale {
		w.number(tagNumberFlags, flagNoRecordedValue)
	}
	for _, one := range slices.Backward(parts) {
		inner := w.mark()
		if !u.stale {
			w.float(tagQuantileValue, one.value)
		}
		w.float(tagQuantileRank, one.bound)
		w.close(tagQuantile, inner)
	}
	if !u.stale {
		w.float(tagPointSum, c.sum)
		w.fixed(tagCount, uint64(c.count))
	}
	w.time(tagTime, c.time)
	w.time(tagStart, u.start)
	w.close(tagDataPoint, end)
}

// writeExemplars writes the exemplars of a sample of that time.
func (p *pass) writeExemplars(w *writer, tag byte, x *sample.Extra, at int64) {
	for i := len(x.Exemplars) - 1; i >= 0; i-- {
		e := &x.Exemplars[i]
		end := w.mark()
		trace, span := writeExemplarLabels(w, e.Labels)
		if trace != nil {
			w.bytes(tagExemplarTrace, trace)
		}
		if span != nil {
			w.bytes(tagExemplarSpan, span)
		}
		w.float(tagExemplarValue, e.Value)
		w.time(tagExemplarTime, timeOf(e, at))
		w.close(tag, end)
	}
}

func timeOf(e *exemplar.Exemplar, at int64) int64 {
	if e.HasTs {
		return e.Ts
	}
	return at
}

// writeExemplarLabels writes labels as attributes, but for ids of a trace and a
// span, which it returns.
func writeExemplarLabels(w *writer, ls labels.Labels) (trace, span []byte) {
	ls.Range(func(l labels.Label) {
		switch {
		case l.Name == "trace_id" && trace == nil:
			if trace = id(l.Value, 16); trace != nil {
				return
			}
		case l.Name == "span_id" && span == nil:
			if span = id(l.Value, 8); span != nil {
				return
			}
		}
		w.attribute(tagExemplarAttr, l.Name, l.Value)
	})
	return trace, span
}

// id is an id in hexadecimal of n bytes, nil when it is none. One of zeros alone
// is none.
func id(s string, n int) []byte {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != n {
		return nil
	}
	for _, c := range b {
		if c != 0 {
			return b
		}
	}
	return nil
}
