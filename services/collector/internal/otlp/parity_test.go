package otlp

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"pgregory.net/rapid"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// A shelf is where Prometheus puts what it makes of OTLP: one line for each
// sample.
type shelf struct{ lines []string }

func (s *shelf) AppenderV2(context.Context) storage.AppenderV2 { return s }
func (s *shelf) Commit() error                                 { return nil }
func (s *shelf) Rollback() error                               { return nil }

func (s *shelf) Append(
	_ storage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, _ *histogram.FloatHistogram, o storage.AOptions,
) (storage.SeriesRef, error) {
	s.lines = append(s.lines, line(ls, st, t, v, h, o.Exemplars))
	return 1, nil
}

// line writes a sample so that what means the same is written in the same way.
func line(ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, exemplars []exemplar.Exemplar) string {
	set := labels.NewBuilder(ls)
	for _, name := range []string{model.BucketLabel, model.QuantileLabel} {
		if f, err := strconv.ParseFloat(ls.Get(name), 64); err == nil {
			set.Set(name, strconv.FormatFloat(f, 'g', -1, 64))
		}
	}
	said := fmt.Sprintf("%s %d..%d ", set.Labels(), st, t)
	if h != nil {
		same := h.Copy()
		same.ZeroThreshold, same.CounterResetHint = 0, 0 // Prometheus does not read the one, and says nothing of the other.
		said += same.Compact(0).String() + fmt.Sprint(same.Schema)
	} else {
		said += strconv.FormatUint(math.Float64bits(v), 16)
	}
	for _, e := range exemplars {
		said += fmt.Sprintf(" # %s %v %d", e.Labels, e.Value, e.Ts)
	}
	return said
}

// ingest gives a message to Prometheus's own handler.
func ingest(t interface{ Fatal(...any) }, body []byte, suffixes bool) []string {
	got := &shelf{}
	cfg := config.DefaultConfig
	cfg.OTLPConfig.TranslationStrategy = "NoTranslation"
	if suffixes {
		cfg.OTLPConfig.TranslationStrategy = "UnderscoreEscapingWithSuffixes"
	}
	h := remote.NewOTLPWriteHandler(slog.New(slog.DiscardHandler), prometheus.NewRegistry(), got, func() config.Config { return cfg }, remote.OTLPOptions{})
	r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/x-protobuf")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatal(w.Code, w.Body.String())
	}
	slices.Sort(got.lines)
	return got.lines
}

// drawRecord draws what one producer could tell.
func drawRecord(t *rapid.T, at int64) (record []one) {
	start := rapid.Int64Range(1, at).Draw(t, "start")
	stale := rapid.IntRange(0, 4).Draw(t, "stale") == 0
	val := func(v float64) float64 {
		if stale {
			return staleNaN()
		}
		return v
	}
	for f := range rapid.IntRange(1, 6).Draw(t, "families") {
		name := fmt.Sprintf("m%d", f)
		kind := rapid.SampledFrom([]model.MetricType{counter, gauge, unknown, untold, classic, summary, "native", "custom"}).Draw(t, "kind")
		for i := range rapid.IntRange(1, 3).Draw(t, "instances") {
			attrs := fmt.Sprintf(" i %d%s", i, strings.Repeat(" zone a.b", i%2))
			switch kind {
			case classic:
				record = append(record, drawBuckets(t, name, attrs, at, start, val)...)
			case summary:
				record = append(record, one{labels: name + attrs + " quantile 0.5", typ: kind, value: val(rapid.Float64().Draw(t, "v")), time: at, start: start})
				record = append(record, drawTotals(t, name, attrs, kind, at, start, val)...)
			case "native", "custom":
				if !stale {
					record = append(record, one{labels: name + attrs, typ: classic, time: at, start: start, extra: drawNative(t, kind == "custom")})
				}
			case counter:
				record = append(record, one{labels: name + "_total" + attrs, typ: kind, value: val(rapid.Float64Min(0).Draw(t, "v")), time: at, start: start, extra: drawExemplar(t, at, stale)})
			default:
				record = append(record, one{labels: name + attrs, typ: kind, value: val(rapid.Float64().Draw(t, "v")), time: at})
			}
		}
	}
	return record
}

func drawExemplar(t *rapid.T, at int64, stale bool) *sample.Extra {
	if stale || rapid.Bool().Draw(t, "exemplar") {
		return nil
	}
	return &sample.Extra{Exemplars: []exemplar.Exemplar{{
		Value: 1, HasTs: true, Ts: at, Labels: labels.FromStrings("span_id", "0102030405060708", "user", "u"),
	}}}
}

func drawTotals(t *rapid.T, name, attrs string, kind model.MetricType, at, start int64, val func(float64) float64) []one {
	return []one{
		{labels: name + "_sum" + attrs, typ: kind, value: val(rapid.Float64().Draw(t, "sum")), time: at, start: start},
		{labels: name + "_count" + attrs, typ: kind, value: val(float64(rapid.IntRange(1000, 1e9).Draw(t, "count"))), time: at, start: start},
	}
}

func drawBuckets(t *rapid.T, name, attrs string, at, start int64, val func(float64) float64) []one {
	record := drawTotals(t, name, attrs, classic, at, start, val)
	total := 0
	for le := range rapid.IntRange(0, 6).Draw(t, "buckets") {
		total += rapid.IntRange(0, 100).Draw(t, "n")
		record = append(record, one{labels: fmt.Sprintf("%s_bucket%s le %d.0", name, attrs, le), typ: classic, value: val(float64(total)), time: at, start: start})
	}
	return append(record, one{labels: name + "_bucket" + attrs + " le +Inf", typ: classic, value: record[1].value, time: at, start: start})
}

func drawNative(t *rapid.T, custom bool) *sample.Extra {
	h := &histogram.Histogram{Schema: int32(rapid.IntRange(-4, 8).Draw(t, "schema")), Sum: rapid.Float64().Draw(t, "sum")}
	draw := func(first int) (spans []histogram.Span, deltas []int64) {
		last := int64(0)
		for i := range rapid.IntRange(0, 3).Draw(t, "spans") {
			s := histogram.Span{Offset: int32(rapid.IntRange(1, 5).Draw(t, "offset")), Length: uint32(rapid.IntRange(1, 4).Draw(t, "length"))}
			if i == 0 {
				s.Offset = int32(rapid.IntRange(first, 7).Draw(t, "first"))
			}
			for range s.Length {
				n := int64(rapid.IntRange(0, 9).Draw(t, "n"))
				deltas = append(deltas, n-last)
				last = n
				h.Count += uint64(n)
			}
			spans = append(spans, s)
		}
		return spans, deltas
	}
	if custom {
		h.Schema = histogram.CustomBucketsSchema
		for i := range 40 {
			h.CustomValues = append(h.CustomValues, float64(i)/2)
		}
		h.PositiveSpans, h.PositiveBuckets = draw(0)
		return &sample.Extra{Histogram: h}
	}
	h.PositiveSpans, h.PositiveBuckets = draw(-7)
	h.NegativeSpans, h.NegativeBuckets = draw(-7)
	h.ZeroCount = uint64(rapid.IntRange(0, 9).Draw(t, "zeros"))
	h.Count += h.ZeroCount
	return &sample.Extra{Histogram: h}
}

// lines are what Prometheus should make of a record.
func lines(record []one) (all []string) {
	for _, o := range record {
		ls := named(o.labels)
		var exemplars []exemplar.Exemplar
		if o.extra != nil && o.extra.Histogram != nil && o.extra.Histogram.Schema == histogram.CustomBucketsSchema {
			all = append(all, expanded(ls, o)...)
			continue
		}
		var h *histogram.Histogram
		if o.extra != nil {
			h, exemplars = o.extra.Histogram, o.extra.Exemplars
		}
		all = append(all, line(ls, o.start, o.time, o.value, h, exemplars))
	}
	slices.Sort(all)
	return all
}

// expanded are the series of a native histogram with bounds of its own: OTLP has
// one kind of those for both.
func expanded(ls labels.Labels, o one) (all []string) {
	h := o.extra.Histogram
	with := func(suffix, le string, v float64) {
		set := labels.NewBuilder(ls).Set("__name__", ls.Get("__name__")+suffix).Set("le", le)
		all = append(all, line(set.Labels(), o.start, o.time, v, nil, nil))
	}
	with("_sum", "", h.Sum)
	with("_count", "", float64(h.Count))
	with("_bucket", "+Inf", float64(h.Count))
	for _, bound := range h.CustomValues {
		below := 0.0
		for b := h.PositiveBucketIterator(); b.Next(); {
			if b.At().Upper <= bound {
				below += float64(b.At().Count)
			}
		}
		with("_bucket", strconv.FormatFloat(bound, 'g', -1, 64), below)
	}
	return all
}

// TestPrometheusReadsWhatWasSent gives messages to Prometheus's own receiver of
// OTLP: it has to store the series that there were.
func TestPrometheusReadsWhatWasSent(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		at := rapid.Int64Range(1, 1e12).Draw(rt, "at")
		record := drawRecord(rt, at)
		c := newClient(t)
		m := c.encode(newBuilder(c).request(record))
		if m.unsupported != 0 {
			rt.Fatalf("%d samples are unsupported", m.unsupported)
		}
		want := lines(record)
		// Stale points tell no start here: nothing was counted before.
		if diff := cmp.Diff(unstarted(want), unstarted(ingest(rt, m.buffer.ReadOnlyData(), false))); diff != "" {
			rt.Fatal(diff)
		}
	})
}

// unstarted takes the start off stale markers.
func unstarted(lines []string) (all []string) {
	for _, l := range lines {
		if head, ok := strings.CutSuffix(l, " 7ff0000000000002"); ok {
			set, span, _ := strings.Cut(head, "} ")
			_, at, _ := strings.Cut(span, "..")
			l = set + "} 0.." + at + " stale"
		}
		all = append(all, l)
	}
	slices.Sort(all)
	return all
}

// TestPrometheusKeepsNames is about how Prometheus reads names by default: it
// puts a unit and _total behind them, which must be there already.
func TestPrometheusKeepsNames(t *testing.T) {
	record := []one{
		{labels: "x_seconds_total a b", typ: counter, value: 1, time: 5, start: 1},
		{labels: "y_seconds", typ: gauge, value: 1, time: 5},
		{labels: "z_seconds_sum", typ: classic, value: 1, time: 5, start: 1},
		{labels: "z_seconds_count", typ: classic, value: 1, time: 5, start: 1},
		{labels: "z_seconds_bucket le +Inf", typ: classic, value: 1, time: 5, start: 1},
	}
	c := newClient(t)
	m := c.encode(newBuilder(c).request(append(slices.Clone(record), one{labels: "target_info v 1", value: 1, time: 5})))
	want := append(lines(record), line(named("target_info v 1"), 0, 5, 1, nil, nil))
	slices.Sort(want)
	if diff := cmp.Diff(want, ingest(t, m.buffer.ReadOnlyData(), true)); diff != "" {
		t.Error(diff)
	}
}
