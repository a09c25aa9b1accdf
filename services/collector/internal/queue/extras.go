package queue

import (
	"encoding/binary"
	"math"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// What an extra has.
const (
	extraHistogram = 1 << iota
	extraFloatHistogram
	extraExemplars
	extraKnown = extraHistogram | extraFloatHistogram | extraExemplars
)

func appendExtras(b []byte, samples []sample.Sample) []byte {
	count := 0
	for i := range samples {
		if samples[i].Extra != nil {
			count++
		}
	}
	b = binary.AppendUvarint(b, uint64(count))
	last := 0
	for i := range samples {
		if x := samples[i].Extra; x != nil {
			b = binary.AppendUvarint(b, uint64(i-last))
			b = appendExtra(b, x, samples[i].Time)
			last = i + 1
		}
	}
	return b
}

func appendExtra(b []byte, x *sample.Extra, time int64) []byte {
	var kind byte
	if x.Histogram != nil {
		kind |= extraHistogram
	}
	if x.FloatHistogram != nil {
		kind |= extraFloatHistogram
	}
	if len(x.Exemplars) > 0 {
		kind |= extraExemplars
	}
	b = append(b, kind)
	if h := x.Histogram; h != nil {
		b = appendShape(b, h.CounterResetHint, h.Schema, h.ZeroThreshold, h.Sum, h.PositiveSpans, h.NegativeSpans, h.CustomValues)
		b = binary.AppendUvarint(b, h.ZeroCount)
		b = binary.AppendUvarint(b, h.Count)
		b = appendIntegers(b, h.PositiveBuckets)
		b = appendIntegers(b, h.NegativeBuckets)
	}
	if h := x.FloatHistogram; h != nil {
		b = appendShape(b, h.CounterResetHint, h.Schema, h.ZeroThreshold, h.Sum, h.PositiveSpans, h.NegativeSpans, h.CustomValues)
		b = appendFloat(b, h.ZeroCount)
		b = appendFloat(b, h.Count)
		b = appendFloats(b, h.PositiveBuckets)
		b = appendFloats(b, h.NegativeBuckets)
	}
	if len(x.Exemplars) > 0 {
		b = appendExemplars(b, x.Exemplars, time)
	}
	return b
}

// appendShape appends what both kinds of histogram have.
func appendShape(b []byte, hint histogram.CounterResetHint, schema int32, threshold, sum float64, positive, negative []histogram.Span, custom []float64) []byte {
	b = append(b, byte(hint))
	b = binary.AppendVarint(b, int64(schema))
	b = appendFloat(b, threshold)
	b = appendFloat(b, sum)
	for _, spans := range [2][]histogram.Span{positive, negative} {
		b = binary.AppendUvarint(b, uint64(len(spans)))
		for _, s := range spans {
			b = binary.AppendVarint(b, int64(s.Offset))
			b = binary.AppendUvarint(b, uint64(s.Length))
		}
	}
	return appendFloats(b, custom)
}

func appendIntegers(b []byte, all []int64) []byte {
	b = binary.AppendUvarint(b, uint64(len(all)))
	for _, n := range all {
		b = binary.AppendVarint(b, n)
	}
	return b
}

func appendFloat(b []byte, f float64) []byte {
	return binary.LittleEndian.AppendUint64(b, math.Float64bits(f))
}

func appendFloats(b []byte, all []float64) []byte {
	b = binary.AppendUvarint(b, uint64(len(all)))
	for _, f := range all {
		b = appendFloat(b, f)
	}
	return b
}

func appendExemplars(b []byte, all []exemplar.Exemplar, time int64) []byte {
	b = binary.AppendUvarint(b, uint64(len(all)))
	for _, e := range all {
		var timed byte
		if e.HasTs {
			timed = 1
		}
		b = append(b, timed)
		b = binary.AppendVarint(b, e.Ts-time)
		b = appendFloat(b, e.Value)
		b = binary.AppendUvarint(b, uint64(e.Labels.Len()))
		e.Labels.Range(func(l labels.Label) {
			b = appendString(b, l.Name)
			b = appendString(b, l.Value)
		})
	}
	return b
}

// extras decodes what appendExtras has made.
func (d *decoder) extras(in *input, points []sample.Point) {
	count := in.count(2)
	at := 0
	for range count {
		at += in.upTo(len(points) - 1 - at)
		if in.bad {
			return
		}
		points[at].Extra = d.extra(in, points[at].Time)
		at++
	}
}

func (d *decoder) extra(in *input, time int64) *sample.Extra {
	kind := in.byte()
	if kind&^extraKnown != 0 {
		in.bad = true
	}
	x := &sample.Extra{}
	if kind&extraHistogram != 0 {
		h := &histogram.Histogram{}
		in.shape(&h.CounterResetHint, &h.Schema, &h.ZeroThreshold, &h.Sum, &h.PositiveSpans, &h.NegativeSpans, &h.CustomValues)
		h.ZeroCount = in.uvarint()
		h.Count = in.uvarint()
		h.PositiveBuckets = in.integers()
		h.NegativeBuckets = in.integers()
		x.Histogram = h
	}
	if kind&extraFloatHistogram != 0 {
		h := &histogram.FloatHistogram{}
		in.shape(&h.CounterResetHint, &h.Schema, &h.ZeroThreshold, &h.Sum, &h.PositiveSpans, &h.NegativeSpans, &h.CustomValues)
		h.ZeroCount = in.float()
		h.Count = in.float()
		h.PositiveBuckets = in.floats()
		h.NegativeBuckets = in.floats()
		x.FloatHistogram = h
	}
	if kind&extraExemplars != 0 {
		x.Exemplars = d.exemplars(in, time)
	}
	return x
}

func (in *input) shape(hint *histogram.CounterResetHint, schema *int32, threshold, sum *float64, positive, negative *[]histogram.Span, custom *[]float64) {
	*hint = histogram.CounterResetHint(in.byte())
	*schema = in.int32()
	*threshold = in.float()
	*sum = in.float()
	for _, spans := range [2]*[]histogram.Span{positive, negative} {
		if n := in.count(2); n > 0 {
			*spans = make([]histogram.Span, n)
		}
		for i := range *spans {
			(*spans)[i] = histogram.Span{Offset: in.int32(), Length: in.uint32()}
		}
	}
	*custom = in.floats()
}

func (d *decoder) exemplars(in *input, time int64) []exemplar.Exemplar {
	all := make([]exemplar.Exemplar, in.count(11))
	for i := range all {
		e := &all[i]
		e.HasTs = in.byte() != 0
		e.Ts = in.varint() + time
		e.Value = in.float()
		d.builder.Reset()
		for range in.count(2) {
			name := in.string()
			d.builder.Add(name, in.string())
		}
		e.Labels = d.builder.Labels()
	}
	return all
}
