package remotewrite_test

import (
	"math"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/value"
	"pgregory.net/rapid"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

func drawFloat(r *rapid.T, name string) float64 {
	if rapid.IntRange(0, 3).Draw(r, name+" is odd") == 0 {
		return rapid.SampledFrom([]float64{
			0, math.Copysign(0, -1), math.Inf(1), math.Inf(-1), math.NaN(), math.Float64frombits(value.StaleNaN),
			math.MaxFloat64, math.SmallestNonzeroFloat64,
		}).Draw(r, name)
	}
	return math.Float64frombits(rapid.Uint64().Draw(r, name))
}

func drawLabels(r *rapid.T, name string) labels.Labels {
	b := labels.NewScratchBuilder(0)
	seen := map[string]bool{}
	for range rapid.IntRange(0, 6).Draw(r, name+" size") {
		n := rapid.StringN(1, 8, 200).Draw(r, name+" name")
		if seen[n] {
			continue
		}
		seen[n] = true
		b.Add(n, rapid.OneOf(rapid.StringN(0, 12, -1), rapid.SampledFrom([]string{"a", "b"})).Draw(r, name+" value"))
	}
	b.Sort()
	return b.Labels()
}

func drawSpans(r *rapid.T, name string) ([]histogram.Span, int) {
	var all []histogram.Span
	buckets := 0
	for range rapid.IntRange(0, 3).Draw(r, name) {
		s := histogram.Span{Offset: rapid.Int32().Draw(r, "offset"), Length: rapid.Uint32Range(0, 40).Draw(r, "length")}
		all = append(all, s)
		buckets += int(s.Length)
	}
	return all, buckets
}

func drawFloats(r *rapid.T, n int) []float64 {
	var all []float64
	for range n {
		all = append(all, drawFloat(r, "number"))
	}
	return all
}

func drawInts(r *rapid.T, n int) []int64 {
	var all []int64
	for range n {
		all = append(all, rapid.Int64().Draw(r, "delta"))
	}
	return all
}

func drawExtra(r *rapid.T) *sample.Extra {
	x := &sample.Extra{}
	schema := rapid.SampledFrom([]int32{-4, 0, 8, histogram.CustomBucketsSchema}).Draw(r, "schema")
	hint := histogram.CounterResetHint(rapid.IntRange(0, 3).Draw(r, "hint"))
	positive, p := drawSpans(r, "positive")
	negative, n := drawSpans(r, "negative")
	customs := drawFloats(r, rapid.IntRange(0, 20).Draw(r, "custom"))
	switch rapid.IntRange(0, 2).Draw(r, "kind") {
	case 0:
		x.Histogram = &histogram.Histogram{
			CounterResetHint: hint, Schema: schema, ZeroThreshold: drawFloat(r, "threshold"), Sum: drawFloat(r, "sum"),
			Count: rapid.Uint64().Draw(r, "count"), ZeroCount: rapid.Uint64().Draw(r, "zero"),
			PositiveSpans: positive, PositiveBuckets: drawInts(r, p), NegativeSpans: negative, NegativeBuckets: drawInts(r, n),
			CustomValues: customs,
		}
	case 1:
		x.FloatHistogram = &histogram.FloatHistogram{
			CounterResetHint: hint, Schema: schema, ZeroThreshold: drawFloat(r, "threshold"), Sum: drawFloat(r, "sum"),
			Count: drawFloat(r, "count"), ZeroCount: drawFloat(r, "zero"),
			PositiveSpans: positive, PositiveBuckets: drawFloats(r, p), NegativeSpans: negative, NegativeBuckets: drawFloats(r, n),
			CustomValues: customs,
		}
	}
	for range rapid.IntRange(0, 2).Draw(r, "exemplars") {
		x.Exemplars = append(x.Exemplars, exemplar.Exemplar{
			Labels: drawLabels(r, "exemplar"), Value: drawFloat(r, "exemplar"),
			Ts: rapid.Int64().Draw(r, "exemplar time"), HasTs: rapid.Bool().Draw(r, "has time"),
		})
	}
	return x
}

func drawSamples(r *rapid.T) []one {
	type series struct {
		ls   labels.Labels
		meta *metadata.Metadata
	}
	var known []series
	for range rapid.IntRange(1, 8).Draw(r, "series") {
		s := series{ls: drawLabels(r, "label")}
		if rapid.Bool().Draw(r, "has metadata") {
			s.meta = &metadata.Metadata{
				Type: rapid.SampledFrom([]model.MetricType{
					model.MetricTypeCounter, model.MetricTypeGauge, model.MetricTypeHistogram, model.MetricTypeGaugeHistogram,
					model.MetricTypeSummary, model.MetricTypeInfo, model.MetricTypeStateset, model.MetricTypeUnknown,
				}).Draw(r, "type"),
				Help: rapid.StringN(0, 40, -1).Draw(r, "help"), Unit: rapid.StringN(0, 10, -1).Draw(r, "unit"),
			}
		}
		known = append(known, s)
	}
	var all []one
	for range rapid.IntRange(1, 40).Draw(r, "samples") {
		s := known[rapid.IntRange(0, len(known)-1).Draw(r, "which")]
		p := sample.Point{Time: rapid.Int64().Draw(r, "time"), Start: rapid.Int64().Draw(r, "start"), Value: drawFloat(r, "value")}
		if rapid.IntRange(0, 4).Draw(r, "plain") == 0 {
			p.Extra = drawExtra(r)
		}
		all = append(all, one{s.ls, s.meta, p})
	}
	return all
}
