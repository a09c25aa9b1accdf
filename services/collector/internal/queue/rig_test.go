package queue_test

import (
	"fmt"
	"math"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/value"
	"pgregory.net/rapid"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/queue"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// A got is a sample as a reader sees it; an expected one is what was written.
type got struct {
	Labels string
	Meta   *metadata.Metadata
	Point  sample.Point
}

func fromBatch(b *sample.Batch) []got {
	all := make([]got, len(b.Samples))
	for i, s := range b.Samples {
		all[i] = got{s.Series.Labels().String(), s.Series.Meta, sample.Point{Time: s.Time, Start: s.Start, Value: s.Value, Extra: s.Extra}}
	}
	return all
}

func fromRecord(r *sample.Record) []got {
	all := make([]got, len(r.Points))
	for i, p := range r.Points {
		s := r.Table.At(r.Numbers[i])
		all[i] = got{s.Labels().String(), s.Meta, p}
	}
	return all
}

// diff is exact to the bit.
func diff(want, have []got) string {
	return cmp.Diff(want, have, cmpopts.EquateEmpty(),
		cmp.Comparer(func(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) }),
		cmp.Comparer(labels.Equal))
}

// same is diff for plain samples, and fast.
func same(want []sample.Sample, have *sample.Record) bool {
	if len(want) != len(have.Points) {
		return false
	}
	for i, w := range want {
		s := have.Table.At(have.Numbers[i])
		p := have.Points[i]
		if !labels.Equal(s.Labels(), w.Series.Labels()) || !reflect.DeepEqual(s.Meta, w.Series.Meta) || p.Time != w.Time || p.Value != w.Value {
			return false
		}
	}
	return true
}

// drawSeries draws a pool of series, some with metadata and odd labels.
func drawSeries(t *rapid.T) []*sample.Series {
	metas := []*metadata.Metadata{
		nil,
		{Type: model.MetricTypeCounter, Unit: "seconds", Help: "How long."},
		{Type: model.MetricTypeHistogram, Help: "Ümläut \x00 help"},
	}
	n := rapid.IntRange(1, 40).Draw(t, "series")
	all := make([]*sample.Series, n)
	for i := range all {
		ls := labels.FromStrings("__name__", fmt.Sprintf("m%d", i%7), "n", fmt.Sprint(i),
			"odd", rapid.SampledFrom([]string{"", "x", "é\xff", "a long value that is there again and again"}).Draw(t, "odd"))
		if i == 3 {
			ls = labels.EmptyLabels()
		}
		all[i] = &sample.Series{Own: ls, Meta: rapid.SampledFrom(metas).Draw(t, "meta")}
	}
	return all
}

func drawFloat(t *rapid.T) float64 {
	return rapid.OneOf(
		rapid.Float64(),
		rapid.Map(rapid.Int64(), func(n int64) float64 { return float64(n) }),
		rapid.Map(rapid.IntRange(-1000, 1000), func(n int) float64 { return float64(n) }),
		rapid.SampledFrom([]float64{
			0, math.Copysign(0, -1), math.Inf(1), math.Inf(-1), math.NaN(), math.Float64frombits(value.StaleNaN),
			math.Float64frombits(value.NormalNaN), math.Float64frombits(0xfff8000000000123), 1 << 48, -1 << 48, 1<<48 - 1,
			math.MaxFloat64, math.SmallestNonzeroFloat64, 1 << 63, -1 << 63, 0.1,
		}),
	).Draw(t, "value")
}

func drawSpans(t *rapid.T) []histogram.Span {
	n := rapid.IntRange(0, 3).Draw(t, "spans")
	all := make([]histogram.Span, n)
	for i := range all {
		all[i] = histogram.Span{Offset: rapid.Int32().Draw(t, "offset"), Length: rapid.Uint32().Draw(t, "length")}
	}
	return all
}

func drawFloats(t *rapid.T) []float64 {
	all := make([]float64, rapid.IntRange(0, 4).Draw(t, "floats"))
	for i := range all {
		all[i] = drawFloat(t)
	}
	return all
}

func drawExtra(t *rapid.T) *sample.Extra {
	x := &sample.Extra{}
	hint := histogram.CounterResetHint(rapid.IntRange(0, 3).Draw(t, "hint"))
	schema := rapid.SampledFrom([]int32{-53, -4, 0, 8}).Draw(t, "schema")
	switch rapid.IntRange(0, 2).Draw(t, "kind") {
	case 1:
		x.Histogram = &histogram.Histogram{
			CounterResetHint: hint, Schema: schema, ZeroThreshold: drawFloat(t), ZeroCount: rapid.Uint64().Draw(t, "zeros"),
			Count: rapid.Uint64().Draw(t, "count"), Sum: drawFloat(t), PositiveSpans: drawSpans(t), NegativeSpans: drawSpans(t),
			PositiveBuckets: rapid.SliceOfN(rapid.Int64(), 0, 5).Draw(t, "buckets"),
			NegativeBuckets: rapid.SliceOfN(rapid.Int64(), 0, 5).Draw(t, "buckets"), CustomValues: drawFloats(t),
		}
	case 2:
		x.FloatHistogram = &histogram.FloatHistogram{
			CounterResetHint: hint, Schema: schema, ZeroThreshold: drawFloat(t), ZeroCount: drawFloat(t), Count: drawFloat(t),
			Sum: drawFloat(t), PositiveSpans: drawSpans(t), NegativeSpans: drawSpans(t), PositiveBuckets: drawFloats(t),
			NegativeBuckets: drawFloats(t), CustomValues: drawFloats(t),
		}
	}
	for range rapid.IntRange(0, 2).Draw(t, "exemplars") {
		x.Exemplars = append(x.Exemplars, exemplar.Exemplar{
			Labels: labels.FromStrings("trace_id", rapid.String().Draw(t, "trace")), Value: drawFloat(t),
			Ts: rapid.Int64().Draw(t, "ts"), HasTs: rapid.Bool().Draw(t, "timed"),
		})
	}
	return x
}

// drawBatch draws a batch of some of the series, in any order.
func drawBatch(t *rapid.T, series []*sample.Series) *sample.Batch {
	b := &sample.Batch{Source: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "source")}
	base := rapid.OneOf(rapid.Int64(), rapid.Int64Range(1.7e12, 1.8e12)).Draw(t, "time")
	from := rapid.IntRange(0, len(series)-1).Draw(t, "from")
	for i := range rapid.IntRange(1, 60).Draw(t, "samples") {
		s := sample.Sample{Series: series[(from+i)%len(series)], Time: base, Value: drawFloat(t)}
		switch rapid.IntRange(0, 12).Draw(t, "oddity") {
		case 0:
			s.Time = rapid.Int64().Draw(t, "own time")
		case 1, 2:
			s.Start = rapid.OneOf(rapid.Int64(), rapid.Just(base-1000)).Draw(t, "start")
		case 3:
			s.Extra = drawExtra(t)
		case 4:
			s.Series = rapid.SampledFrom(series).Draw(t, "other")
		}
		b.Samples = append(b.Samples, s)
	}
	return b
}

// metric is the value of one without labels.
func metric(tb testing.TB, m *queue.Metrics, name string) float64 {
	tb.Helper()
	reg := prometheus.NewPedanticRegistry()
	if err := reg.Register(m); err != nil {
		tb.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		tb.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "rollcall_queue_"+name {
			return f.GetMetric()[0].GetCounter().GetValue() + f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	tb.Fatalf("no metric %s", name)
	return 0
}
