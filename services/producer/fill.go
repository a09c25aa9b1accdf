package producer

import (
	"cmp"
	"slices"

	dto "github.com/prometheus/client_model/go"

	producerv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/producer/v1"
)

// A filler puts samples into the columns of an answer.
type filler struct {
	answer *producerv1.CollectResponse
	series uint32 // the next one
}

// fill is an answer with the samples of what was gathered, which has this layout.
func (l *layout) fill(families []*dto.MetricFamily) *producerv1.CollectResponse {
	natives := len(l.message.GetHistogramSeries())
	f := &filler{answer: &producerv1.CollectResponse{Values: make([]float64, 0, l.series-natives)}}
	for _, family := range families {
		typ := family.GetType()
		for _, m := range family.GetMetric() {
			stamp := m.TimestampMs
			walk(typ, m, func(r row) {
				f.row(typ, r, stamp)
				f.series++
			})
		}
	}
	return f.answer
}

func (f *filler) row(typ dto.MetricType, r row, stamp *int64) {
	if stamp != nil {
		t := timestamps(f.answer)
		t.Series = append(t.Series, f.series)
		t.TimesMs = append(t.TimesMs, *stamp)
	}
	if r.histogram == nil {
		f.answer.Values = append(f.answer.Values, r.value)
		if r.exemplar != nil {
			f.exemplar(r.exemplar)
		}
		return
	}
	f.histogram(typ, r.histogram)
	for _, e := range exemplarsOf(r.histogram) {
		f.exemplar(e)
	}
}

func (f *filler) histogram(typ dto.MetricType, h *dto.Histogram) {
	c := histograms(f.answer)
	c.Schemas = append(c.Schemas, h.GetSchema())
	c.Floats = append(c.Floats, isFloat(h))
	reset := producerv1.CounterReset_COUNTER_RESET_UNSPECIFIED
	if typ == dto.MetricType_GAUGE_HISTOGRAM {
		reset = producerv1.CounterReset_COUNTER_RESET_GAUGE
	}
	c.CounterResets = append(c.CounterResets, reset)
	c.Sums = append(c.Sums, h.GetSampleSum())
	c.ZeroThresholds = append(c.ZeroThresholds, h.GetZeroThreshold())
	if isFloat(h) {
		c.FloatCounts = append(c.FloatCounts, h.GetSampleCountFloat(), h.GetZeroCountFloat())
		c.BucketCounts = append(append(c.BucketCounts, h.GetPositiveCount()...), h.GetNegativeCount()...)
	} else {
		c.Counts = append(c.Counts, h.GetSampleCount(), h.GetZeroCount())
		c.BucketDeltas = append(append(c.BucketDeltas, h.GetPositiveDelta()...), h.GetNegativeDelta()...)
	}
	c.SpanCounts = append(c.SpanCounts, uint32(len(h.GetPositiveSpan())), uint32(len(h.GetNegativeSpan())))
	for _, spans := range [][]*dto.BucketSpan{h.GetPositiveSpan(), h.GetNegativeSpan()} {
		for _, s := range spans {
			c.SpanOffsets = append(c.SpanOffsets, s.GetOffset())
			c.SpanLengths = append(c.SpanLengths, s.GetLength())
		}
	}
	c.CustomBoundCounts = append(c.CustomBoundCounts, 0)
}

// exemplarsOf are those of a native histogram that have times, in their order;
// those of its classic half when it has none of its own.
func exemplarsOf(h *dto.Histogram) []*dto.Exemplar {
	all := h.GetExemplars()
	if len(all) == 0 {
		for _, b := range h.GetBucket() {
			all = append(all, b.GetExemplar())
		}
	}
	var timed []*dto.Exemplar
	for _, e := range all {
		if e.GetTimestamp() != nil {
			timed = append(timed, e)
		}
	}
	slices.SortStableFunc(timed, func(a, b *dto.Exemplar) int {
		return cmp.Compare(exemplarTime(a), exemplarTime(b))
	})
	return timed
}

func exemplarTime(e *dto.Exemplar) int64 {
	if t := e.GetTimestamp(); t != nil {
		return t.GetSeconds()*1000 + int64(t.GetNanos())/1e6
	}
	return 0
}

func (f *filler) exemplar(e *dto.Exemplar) {
	for _, l := range e.GetLabel() {
		if len(l.GetName()) > maxString || len(l.GetValue()) > maxString {
			return // It could not be stored anyway.
		}
	}
	c := exemplars(f.answer)
	c.Series = append(c.Series, f.series)
	c.Values = append(c.Values, e.GetValue())
	c.TimesMs = append(c.TimesMs, exemplarTime(e))
	c.LabelCounts = append(c.LabelCounts, uint32(len(e.GetLabel())))
	for _, l := range e.GetLabel() {
		c.Labels = append(c.Labels, l.GetName(), l.GetValue())
	}
}
