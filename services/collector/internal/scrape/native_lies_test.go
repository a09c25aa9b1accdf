package scrape_test

import (
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"

	producerv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/producer/v1"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
)

// begun is the first chunk of the default producer.
func begun(layoutID string) *producerv1.CollectResponse {
	return &producerv1.CollectResponse{Begin: &producerv1.Begin{ProducerId: "p1", LayoutId: []byte(layoutID)}}
}

// whole is a sound answer of one chunk: a 1, b{x="y"} 2.
func whole() *producerv1.CollectResponse {
	m := begun("l1")
	m.Layout = &producerv1.Layout{
		Symbols: []string{"a", "b", "x", "y"}, FamilyNames: []uint32{1, 2}, FamilyTypes: []producerv1.MetricType{2, 2},
		FamilyHelps: []uint32{0, 0}, FamilyUnits: []uint32{0, 0},
		SeriesFamilies: []uint32{0, 1}, SeriesNames: []uint32{1, 2}, SeriesLabelCounts: []uint32{0, 1}, LabelSymbols: []uint32{3, 4},
	}
	m.Values = []float64{1, 2}
	m.Seal = &producerv1.Seal{ChunkCount: 1, SampleCount: 2}
	return m
}

// withNative is a sound answer with a native histogram: h.
func withNative() *producerv1.CollectResponse {
	m := begun("l2")
	m.Layout = &producerv1.Layout{
		Symbols: []string{"h"}, FamilyNames: []uint32{1}, FamilyTypes: []producerv1.MetricType{3}, FamilyHelps: []uint32{0},
		FamilyUnits: []uint32{0}, SeriesFamilies: []uint32{0}, SeriesNames: []uint32{1}, SeriesLabelCounts: []uint32{0}, HistogramSeries: []uint32{0},
	}
	m.Histograms = &producerv1.Histograms{
		Schemas: []int32{0}, Floats: []bool{false}, CounterResets: []producerv1.CounterReset{0}, Sums: []float64{3},
		ZeroThresholds: []float64{0}, Counts: []uint64{3, 0}, SpanCounts: []uint32{1, 0}, SpanOffsets: []int32{0}, SpanLengths: []uint32{2},
		BucketDeltas: []int64{1, 1}, CustomBoundCounts: []uint32{0},
	}
	m.Seal = &producerv1.Seal{ChunkCount: 1, SampleCount: 1}
	return m
}

func changed(m *producerv1.CollectResponse, change func(*producerv1.CollectResponse)) []*producerv1.CollectResponse {
	change(m)
	return []*producerv1.CollectResponse{m}
}

// lies are answers that are no answers, and why.
func lies() map[string]struct {
	chunks []*producerv1.CollectResponse
	reason schedule.Reason
} {
	type lie = struct {
		chunks []*producerv1.CollectResponse
		reason schedule.Reason
	}
	one := func(change func(*producerv1.CollectResponse)) lie {
		return lie{changed(whole(), change), schedule.ReasonMalformed}
	}
	native := func(change func(*producerv1.Histograms)) lie {
		return lie{changed(withNative(), func(m *producerv1.CollectResponse) { change(m.GetHistograms()) }), schedule.ReasonMalformed}
	}
	type response = *producerv1.CollectResponse
	sealed := func() response {
		return &producerv1.CollectResponse{Seal: &producerv1.Seal{ChunkCount: 2, SampleCount: 2}}
	}
	all := map[string]lie{
		"nothing":                 {nil, schedule.ReasonMalformed},
		"no seal":                 one(func(m response) { m.Seal = nil }),
		"two seals":               {[]response{whole(), sealed()}, schedule.ReasonMalformed},
		"a chunk behind the seal": {[]response{whole(), {}}, schedule.ReasonMalformed},
		"seal of other chunks":    one(func(m response) { m.Seal.ChunkCount = 2 }),
		"seal of other samples":   one(func(m response) { m.Seal.SampleCount = 3 }),
		"no begin":                one(func(m response) { m.Begin = nil }),
		"two begins":              {[]response{begun("l1"), whole()}, schedule.ReasonMalformed},
		"no layout id":            one(func(m response) { m.Begin.LayoutId = nil }),
		"long layout id":          one(func(m response) { m.Begin.LayoutId = make([]byte, 65) }),
		"layout never sent":       one(func(m response) { m.Layout = nil }),
		"empty symbol":            one(func(m response) { m.Layout.Symbols[3] = "" }),
		"symbol beyond":           one(func(m response) { m.Layout.LabelSymbols[1] = 5 }),
		"symbol far beyond":       one(func(m response) { m.Layout.SeriesNames[0] = 1 << 31 }),
		"family beyond":           one(func(m response) { m.Layout.SeriesFamilies[1] = 2 }),
		"family name beyond":      one(func(m response) { m.Layout.FamilyNames[1] = 99 }),
		"family without a name":   one(func(m response) { m.Layout.FamilyNames[1] = 0 }),
		"series without a name":   one(func(m response) { m.Layout.SeriesNames[1] = 0 }),
		"families descend":        one(func(m response) { m.Layout.SeriesFamilies = []uint32{1, 0} }),
		"too few helps":           one(func(m response) { m.Layout.FamilyHelps = nil }),
		"too few label counts":    one(func(m response) { m.Layout.SeriesLabelCounts = []uint32{0} }),
		"labels disagree":         one(func(m response) { m.Layout.SeriesLabelCounts[1] = 2 }),
		"start times disagree":    one(func(m response) { m.Layout.SeriesStartTimesMs = []int64{1} }),
		"histogram beyond":        one(func(m response) { m.Layout.HistogramSeries = []uint32{7} }),
		"histogram without one":   one(func(m response) { m.Layout.HistogramSeries = []uint32{1} }),
		"too few values":          one(func(m response) { m.Values = m.GetValues()[:1]; m.Seal.SampleCount = 1 }),
		"too many values":         one(func(m response) { m.Values = append(m.Values, 1); m.Seal.SampleCount = 3 }),
		"duplicate labels": one(func(m response) {
			m.Layout.SeriesLabelCounts[1], m.Layout.LabelSymbols = 2, []uint32{3, 4, 3, 4}
		}),
		"2^31 labels":        {changed(whole(), func(m response) { m.Layout.SeriesLabelCounts[1] = 1 << 31 }), schedule.ReasonTooLarge},
		"another's":          {changed(whole(), func(m response) { m.Begin.ProducerId = "p2" }), schedule.ReasonWrongProducer},
		"time stamps beyond": one(func(m response) { m.Timestamps = &producerv1.Timestamps{Series: []uint32{2}, TimesMs: []int64{1}} }),
		"time stamps twice": one(func(m response) {
			m.Timestamps = &producerv1.Timestamps{Series: []uint32{1, 1}, TimesMs: []int64{1, 2}}
		}),
		"time stamps missing": one(func(m response) { m.Timestamps = &producerv1.Timestamps{Series: []uint32{1}} }),
		"exemplar labels": one(func(m response) {
			m.Exemplars = &producerv1.Exemplars{Series: []uint32{1}, Values: []float64{1}, TimesMs: []int64{0}, LabelCounts: []uint32{2}, Labels: []string{"a", "b"}}
		}),
		"more exemplar labels than any may have": {changed(whole(), func(m response) {
			m.Exemplars = &producerv1.Exemplars{Series: []uint32{1}, Values: []float64{1}, TimesMs: []int64{0}, LabelCounts: []uint32{1 << 31}, Labels: []string{"a", "b"}}
		}), schedule.ReasonTooLarge},
		"a family twice": one(func(m response) { m.Layout.FamilyNames[1] = 1 }),
		"more families than samples are allowed": {changed(whole(), func(m response) {
			l := m.GetLayout()
			l.FamilyNames, l.FamilyTypes = append(l.GetFamilyNames(), make([]uint32, 50_000)...), append(l.GetFamilyTypes(), make([]producerv1.MetricType, 50_000)...)
			l.FamilyHelps, l.FamilyUnits = make([]uint32, 50_002), make([]uint32, 50_002)
		}), schedule.ReasonTooManySamples},
		"exemplars descend": one(func(m response) {
			m.Exemplars = &producerv1.Exemplars{Series: []uint32{1, 0}, Values: []float64{1, 1}, TimesMs: []int64{0, 0}, LabelCounts: []uint32{0, 0}}
		}),
		"two exemplars of a value": one(func(m response) {
			m.Exemplars = &producerv1.Exemplars{Series: []uint32{1, 1}, Values: []float64{1, 1}, TimesMs: []int64{0, 0}, LabelCounts: []uint32{0, 0}}
		}),
		"2^31 buckets":     {changed(withNative(), func(m response) { m.Histograms.SpanLengths[0] = 1 << 31 }), schedule.ReasonTooLarge},
		"2^31 spans":       {changed(withNative(), func(m response) { m.Histograms.SpanCounts[1] = 1 << 31 }), schedule.ReasonTooLarge},
		"2^31 bounds":      native(func(h *producerv1.Histograms) { h.CustomBoundCounts[0] = 1 << 31 }),
		"no such span":     native(func(h *producerv1.Histograms) { h.SpanCounts[0] = 2 }),
		"a span too many":  native(func(h *producerv1.Histograms) { h.SpanCounts[0] = 0 }),
		"no such buckets":  native(func(h *producerv1.Histograms) { h.SpanLengths[0] = 3 }),
		"counts disagree":  native(func(h *producerv1.Histograms) { h.Counts[0] = 4 }),
		"counts are short": native(func(h *producerv1.Histograms) { h.Counts = h.GetCounts()[:1] }),
		"spans overflow":   native(func(h *producerv1.Histograms) { h.SpanOffsets[0] = 1<<31 - 1 }),
		"unknown schema":   native(func(h *producerv1.Histograms) { h.Schemas[0] = 77 }),
	}
	return all
}

// Each lie fails the collection, with its reason, and costs nothing of what was
// known: the next good answer, of the layout from before, is stored.
func TestLiesInColumns(t *testing.T) {
	for name, lie := range lies() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				r := newNativeRig(t, nil, answering(func(_ *producerv1.CollectRequest, stream grpc.ServerStreamingServer[producerv1.CollectResponse]) error {
					n++
					if n != 2 {
						return stream.Send(whole())
					}
					for _, c := range lie.chunks {
						if err := stream.Send(c); err != nil {
							return err
						}
					}
					return nil
				}))
				// What is lied about for the first time.
				first := newNativeRig(t, nil, chunks(lie.chunks...))
				_, _, result := first.collect(first.open(nativeProducer()))
				if result.Reason != lie.reason {
					t.Errorf("first: %+v, want %v", result, lie.reason)
				}
				c := r.open(nativeProducer())
				want := []string{series("a") + " 1", series("b", "x", "y") + " 2"}
				equal(t, r.good(c), want)
				samples, at, result := r.collect(c)
				// With the layout from before, an answer without one is right.
				if name != "layout never sent" {
					if result.Reason != lie.reason {
						t.Errorf("%+v, want %v", result, lie.reason)
					}
					equal(t, exposed(samples, at), []string{series("a") + " stale", series("b", "x", "y") + " stale"})
				}
				equal(t, r.good(c), want)
			})
		})
	}
}
