package otlp

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

const (
	counter   = model.MetricTypeCounter
	gauge     = model.MetricTypeGauge
	classic   = model.MetricTypeHistogram
	summary   = model.MetricTypeSummary
	unknown   = model.MetricTypeUnknown
	untold    = model.MetricType("")
	oneSecond = "time_unix_nano: 1000000000 "
)

// A mapping is what one record becomes: each metric in prototext, without what
// all of this test have in common.
type mapping struct {
	name        string
	record      []one
	want        []string
	unsupported int
}

func TestWhatSamplesBecome(t *testing.T) {
	tables := [][]mapping{numbers(), histograms(), natives(), oddities()}
	for _, table := range tables {
		for _, m := range table {
			t.Run(m.name, func(t *testing.T) { m.check(t) })
		}
	}
}

func (m *mapping) check(t *testing.T) {
	t.Helper()
	c := newClient(t)
	for i := range m.record {
		if m.record[i].time == 0 {
			m.record[i].time = 1000
		}
	}
	made := c.encode(newBuilder(c).request(m.record))
	var want []*metrics.Metric
	for _, text := range m.want {
		one := &metrics.Metric{}
		if err := prototext.Unmarshal([]byte(text), one); err != nil {
			t.Fatalf("%s\n%v", text, err)
		}
		want = append(want, one)
	}
	got := metricsOf(decode(t, made))
	for _, one := range got {
		one.Description, one.Unit, one.Metadata = "", "", nil
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if made.unsupported != m.unsupported || made.samples != len(m.record) {
		t.Errorf("%d samples of which %d are unsupported, want %d of which %d", made.samples, made.unsupported, len(m.record), m.unsupported)
	}
}

func attr(key, value string) string {
	return `attributes: {key: "` + key + `" value: {string_value: "` + value + `"}} `
}

func numbers() []mapping {
	const sum = "sum: {aggregation_temporality: AGGREGATION_TEMPORALITY_CUMULATIVE "
	return []mapping{
		{name: "counter", record: []one{{labels: "x_total a b", typ: counter, value: 2, start: 500}}, want: []string{
			`name: "x_total" ` + sum + `is_monotonic: true data_points: {start_time_unix_nano: 500000000 ` + oneSecond + attr("a", "b") + `as_double: 2}}`,
		}},
		{name: "counter of unknown start", record: []one{{labels: "x_total", typ: counter, value: 2}}, want: []string{
			`name: "x_total" ` + sum + `is_monotonic: true data_points: {start_time_unix_nano: 1000000000 ` + oneSecond + `as_double: 2}}`,
		}},
		{name: "counter that began later than now", record: []one{{labels: "x_total", typ: counter, value: 2, start: 1001}}, want: []string{
			`name: "x_total" ` + sum + `is_monotonic: true data_points: {start_time_unix_nano: 1000000000 ` + oneSecond + `as_double: 2}}`,
		}},
		{name: "counter with a created line", record: []one{
			{labels: "x_total a b", typ: counter, value: 2}, {labels: "x_total a c", typ: counter, value: 3}, {labels: "x_created a b", value: .25},
		}, want: []string{
			`name: "x_total" ` + sum + `is_monotonic: true data_points: {start_time_unix_nano: 250000000 ` + oneSecond + attr("a", "b") + `as_double: 2} ` +
				`data_points: {start_time_unix_nano: 1000000000 ` + oneSecond + attr("a", "c") + `as_double: 3}}`,
		}},
		{name: "created line of nothing", record: []one{{labels: "x_created", value: .25}, {labels: "y_total", typ: counter}}, want: []string{
			`name: "x_created" gauge: {data_points: {` + oneSecond + `as_double: 0.25}}`,
			`name: "y_total" ` + sum + `is_monotonic: true data_points: {start_time_unix_nano: 1000000000 ` + oneSecond + `as_double: 0}}`,
		}},
		{name: "counter named created", record: []one{{labels: "x_created", typ: counter, value: 1, start: 1}}, want: []string{
			`name: "x_created" ` + sum + `is_monotonic: true data_points: {start_time_unix_nano: 1000000 ` + oneSecond + `as_double: 1}}`,
		}},
		{name: "gauge", record: []one{{labels: "x", typ: gauge, value: -1}}, want: []string{`name: "x" gauge: {data_points: {` + oneSecond + `as_double: -1}}`}},
		{name: "unknown", record: []one{{labels: "x", typ: unknown, value: 1}}, want: []string{`name: "x" gauge: {data_points: {` + oneSecond + `as_double: 1}}`}},
		{name: "without metadata", record: []one{{labels: "x_total", value: 1}}, want: []string{`name: "x_total" gauge: {data_points: {` + oneSecond + `as_double: 1}}`}},
		{name: "UTF-8", record: []one{{labels: "x.ü a.ß ö", value: 1}}, want: []string{`name: "x.ü" gauge: {data_points: {` + oneSecond + attr("a.ß", "ö") + `as_double: 1}}`}},
		{name: "info", record: []one{{labels: "x_info v 1", typ: model.MetricTypeInfo, value: 1}}, want: []string{
			`name: "x_info" ` + sum + `data_points: {` + oneSecond + attr("v", "1") + `as_double: 1}}`,
		}},
		{name: "state set", record: []one{{labels: "x x on", typ: model.MetricTypeStateset, value: 1}}, want: []string{
			`name: "x" ` + sum + `data_points: {` + oneSecond + attr("x", "on") + `as_double: 1}}`,
		}},
		{name: "stale", record: []one{{labels: "x", typ: gauge, value: staleNaN()}, {labels: "y_total", typ: counter, value: staleNaN()}}, want: []string{
			`name: "x" gauge: {data_points: {` + oneSecond + `flags: 1}}`,
			`name: "y_total" ` + sum + `is_monotonic: true data_points: {` + oneSecond + `flags: 1}}`,
		}},
		{name: "exemplar", record: []one{{labels: "x_total", typ: counter, value: 2, start: 1, extra: &sample.Extra{Exemplars: []exemplar.Exemplar{
			{Value: 1, Labels: labels.FromStrings("trace_id", "0102030405060708090a0b0c0d0e0f10", "span_id", "0102030405060708", "user", "u")},
			{Value: 2, HasTs: true, Ts: 900, Labels: labels.FromStrings("trace_id", "none")},
		}}}}, want: []string{
			`name: "x_total" ` + sum + `is_monotonic: true data_points: {start_time_unix_nano: 1000000 ` + oneSecond + `as_double: 2
			exemplars: {` + oneSecond + `as_double: 1 trace_id: "\001\002\003\004\005\006\007\010\011\012\013\014\015\016\017\020" span_id: "\001\002\003\004\005\006\007\010" filtered_` + attr("user", "u") + `}
			exemplars: {time_unix_nano: 900000000 as_double: 2 filtered_` + attr("trace_id", "none") + `}}}`,
		}},
	}
}

func histograms() []mapping {
	const head = `name: "x" histogram: {aggregation_temporality: AGGREGATION_TEMPORALITY_CUMULATIVE data_points: {`
	known := head + "start_time_unix_nano: 500000000 " + oneSecond
	return []mapping{
		{name: "histogram", record: []one{
			{labels: "x_bucket le 1.0 a b", typ: classic, value: 1, start: 500},
			{labels: "x_bucket le +Inf a b", typ: classic, value: 5, start: 500},
			{labels: "x_bucket le 2.0 a b", typ: classic, value: 3, start: 500},
			{labels: "x_sum a b", typ: classic, value: 9, start: 500},
			{labels: "x_count a b", typ: classic, value: 5, start: 500},
		}, want: []string{known + attr("a", "b") + `count: 5 sum: 9 explicit_bounds: [1, 2] bucket_counts: [1, 2, 2]}}`}},
		{name: "two histograms", record: []one{
			{labels: "x_bucket le +Inf", typ: classic, value: 1, start: 500},
			{labels: "x_count", typ: classic, value: 1, start: 500},
			{labels: "x_bucket le +Inf a b", typ: classic, value: 2, start: 500},
			{labels: "x_count a b", typ: classic, value: 2, start: 500},
		}, want: []string{known + `count: 1 bucket_counts: 1} data_points: {start_time_unix_nano: 500000000 ` + oneSecond + attr("a", "b") + `count: 2 bucket_counts: 2}}`}},
		{name: "histogram with a created line", record: []one{
			{labels: "x_created", value: .5}, {labels: "x_bucket le +Inf", typ: classic, value: 1}, {labels: "x_count", typ: classic, value: 1},
		}, want: []string{known + `count: 1 bucket_counts: 1}}`}},
		{name: "histogram without a count", unsupported: 2, record: []one{
			{labels: "x_bucket le +Inf", typ: classic, value: 1}, {labels: "x_sum", typ: classic, value: 1},
		}},
		{name: "histogram that falls", unsupported: 3, record: []one{
			{labels: "x_bucket le 1", typ: classic, value: 3}, {labels: "x_bucket le 2", typ: classic, value: 2}, {labels: "x_count", typ: classic, value: 3},
		}},
		{name: "histogram of parts of observations", unsupported: 2, record: []one{
			{labels: "x_bucket le 1", typ: classic, value: .5}, {labels: "x_count", typ: classic, value: 1},
		}},
		{name: "histogram without the infinite bucket", record: []one{
			{labels: "x_bucket le 1", typ: classic, value: 1, start: 500}, {labels: "x_count", typ: classic, value: 3, start: 500},
		}, want: []string{known + `count: 3 explicit_bounds: 1 bucket_counts: [1, 2]}}`}},
		{name: "stale histogram", record: []one{
			{labels: "x_bucket le 1", typ: classic, value: staleNaN()},
			{labels: "x_bucket le +Inf", typ: classic, value: staleNaN()},
			{labels: "x_sum", typ: classic, value: staleNaN()},
			{labels: "x_count", typ: classic, value: staleNaN()},
		}, want: []string{head + oneSecond + `sum: 0 explicit_bounds: 1 bucket_counts: [0, 0] flags: 1}}`}},
		{name: "stale bucket of a histogram", record: []one{
			{labels: "x_bucket le 1", typ: classic, value: staleNaN(), start: 500},
			{labels: "x_bucket le 2", typ: classic, value: 1, start: 500},
			{labels: "x_count", typ: classic, value: 1, start: 500},
		}, want: []string{known + `count: 1 explicit_bounds: 2 bucket_counts: [1, 0]}}`}},
		{name: "summary", record: []one{
			{labels: "x quantile 0.9", typ: summary, value: 3, start: 500},
			{labels: "x quantile 0.5", typ: summary, value: 2, start: 500},
			{labels: "x_sum", typ: summary, value: 9, start: 500},
			{labels: "x_count", typ: summary, value: 5, start: 500},
		}, want: []string{`name: "x" summary: {data_points: {start_time_unix_nano: 500000000 ` + oneSecond + `count: 5 sum: 9
			quantile_values: {quantile: 0.5 value: 2} quantile_values: {quantile: 0.9 value: 3}}}`}},
		{name: "stale summary", record: []one{
			{labels: "x quantile 0.9", typ: summary, value: staleNaN()},
			{labels: "x_sum", typ: summary, value: staleNaN()},
			{labels: "x_count", typ: summary, value: staleNaN()},
		}, want: []string{`name: "x" summary: {data_points: {` + oneSecond + `flags: 1 quantile_values: {quantile: 0.9}}}`}},
		{name: "summary without a count", unsupported: 1, record: []one{{labels: "x quantile 0.9", typ: summary, value: 3}}},
		{name: "exemplars of buckets", record: []one{
			{labels: "x_bucket le 1", typ: classic, value: 1, start: 500, extra: &sample.Extra{Exemplars: []exemplar.Exemplar{{Value: .5}}}},
			{labels: "x_bucket le +Inf", typ: classic, value: 2, extra: &sample.Extra{Exemplars: []exemplar.Exemplar{{Value: 7, HasTs: true, Ts: 2}}}},
			{labels: "x_count", typ: classic, value: 2},
		}, want: []string{known + `count: 2 explicit_bounds: 1 bucket_counts: [1, 1] exemplars: {` + oneSecond + `as_double: .5} exemplars: {time_unix_nano: 2000000 as_double: 7}}}`}},
	}
}

func native(h histogram.Histogram) *sample.Extra { return &sample.Extra{Histogram: &h} }

func natives() []mapping {
	const head = `name: "x" exponential_histogram: {aggregation_temporality: AGGREGATION_TEMPORALITY_CUMULATIVE data_points: {start_time_unix_nano: 500000000 ` + oneSecond
	spans := []histogram.Span{{Offset: -1, Length: 2}, {Offset: 2, Length: 1}}
	return []mapping{
		{name: "native histogram", record: []one{{labels: "x a b", typ: classic, start: 500, extra: native(histogram.Histogram{
			Schema: 3, Count: 12, Sum: 7, ZeroThreshold: .001, ZeroCount: 2, PositiveSpans: spans, PositiveBuckets: []int64{1, 2, -1},
			NegativeSpans: []histogram.Span{{Offset: 4, Length: 1}}, NegativeBuckets: []int64{4},
		})}}, want: []string{head + attr("a", "b") + `count: 12 sum: 7 scale: 3 zero_count: 2 zero_threshold: .001
			positive: {offset: -2 bucket_counts: [1, 3, 0, 0, 2]} negative: {offset: 3 bucket_counts: 4}}}`}},
		{name: "infinite observations of a native histogram", record: []one{{labels: "x", typ: classic, start: 500, extra: native(histogram.Histogram{
			Schema: 0, Count: 3, Sum: 7, PositiveSpans: []histogram.Span{{Offset: 1024, Length: 2}}, PositiveBuckets: []int64{1, 1},
		})}}, want: []string{head + `count: 1 sum: 7 zero_count: 0 positive: {offset: 1023 bucket_counts: 1}}}`}},
		{name: "native histogram with bounds of its own", record: []one{{labels: "x a b", typ: classic, start: 500, extra: native(histogram.Histogram{
			Schema: histogram.CustomBucketsSchema, Count: 3, Sum: 7, CustomValues: []float64{1, 2, 3},
			PositiveSpans: []histogram.Span{{Offset: 1, Length: 1}, {Offset: 1, Length: 1}}, PositiveBuckets: []int64{1, 1},
		})}}, want: []string{`name: "x" histogram: {aggregation_temporality: AGGREGATION_TEMPORALITY_CUMULATIVE data_points: {start_time_unix_nano: 500000000 ` +
			oneSecond + attr("a", "b") + `count: 3 sum: 7 explicit_bounds: [1, 2, 3] bucket_counts: [0, 1, 0, 2]}}`}},
		{name: "native histograms that OTLP has not", unsupported: 4, record: []one{
			{labels: "a", typ: classic, extra: &sample.Extra{FloatHistogram: &histogram.FloatHistogram{}}},
			{labels: "b", typ: classic, extra: native(histogram.Histogram{CounterResetHint: histogram.GaugeType})},
			{labels: "c", typ: classic, extra: native(histogram.Histogram{Schema: 9})},
			{labels: "d", typ: classic, extra: native(histogram.Histogram{PositiveSpans: []histogram.Span{{Length: 5}}})},
		}},
		{name: "stale native histogram that was not seen", record: []one{{labels: "x", typ: classic, value: staleNaN()}}, want: []string{
			`name: "x" exponential_histogram: {aggregation_temporality: AGGREGATION_TEMPORALITY_CUMULATIVE data_points: {` + oneSecond + `flags: 1}}`,
		}},
	}
}

func oddities() []mapping {
	return []mapping{
		{name: "gauge histogram", unsupported: 2, record: []one{
			{labels: "x_bucket le 1", typ: model.MetricTypeGaugeHistogram}, {labels: "x_gcount", typ: model.MetricTypeGaugeHistogram},
		}},
		{name: "bad bound", unsupported: 1, record: []one{{labels: "x_bucket le one", typ: classic}}},
		{name: "bucket of unknown type", record: []one{{labels: "x_bucket le 1", value: 3}}, want: []string{
			`name: "x_bucket" gauge: {data_points: {` + oneSecond + attr("le", "1") + `as_double: 3}}`,
		}},
		{name: "long label", record: []one{{labels: "x a " + strings.Repeat("b", 300), value: 3}}, want: []string{
			`name: "x" gauge: {data_points: {` + oneSecond + attr("a", strings.Repeat("b", 300)) + `as_double: 3}}`,
		}},
	}
}

func TestResources(t *testing.T) {
	c := newClient(t)
	b := newBuilder(c)
	b.metas[gauge] = nil
	first := decode(t, c.encode(b.request(
		[]one{
			{labels: "up", value: 1, time: 1000},
			{labels: "target_info version 2 service.name no", value: 1, time: 1000},
			{labels: "x otel_scope_name lib otel_scope_version v2 otel_scope_schema_url u otel_scope_k v a b", value: 1, time: 1000},
		},
		[]one{{labels: "up job other instance b:2", value: 1, time: 1000}},
	)))
	const own = `scope: {name: "github.com/rollcall-metrics/rollcall" version: "v1"} `
	up := `metrics: {name: "up" metadata: {key: "prometheus.type" value: {string_value: "unknown"}} gauge: {data_points: {` + oneSecond + `as_double: 1}}} `
	want := proto.Clone(first)
	proto.Reset(want)
	if err := prototext.Unmarshal([]byte(`
		resource_metrics: {
			resource: {`+attr("service.name", "api")+attr("service.instance.id", "a:1")+attr("version", "2")+`}
			scope_metrics: {`+own+up+`}
			scope_metrics: {scope: {name: "lib" version: "v2" `+attr("k", "v")+`} schema_url: "u" metrics: {
				name: "x" metadata: {key: "prometheus.type" value: {string_value: "unknown"}}
				gauge: {data_points: {`+oneSecond+attr("a", "b")+`as_double: 1}}}}
		}
		resource_metrics: {
			resource: {`+attr("service.name", "other")+attr("service.instance.id", "b:2")+`}
			scope_metrics: {`+own+up+`}
		}`), want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, first, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}

	// A target that is away, in the next table, is the same resource.
	later := decode(t, c.encode(newBuilder(c).request([]one{{labels: "up", time: 2000}})))
	if diff := cmp.Diff(first.GetResourceMetrics()[0].GetResource(), later.GetResourceMetrics()[0].GetResource(), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestMetadata(t *testing.T) {
	c := newClient(t)
	got := metricsOf(decode(t, c.encode(newBuilder(c).request([]one{{labels: "x", typ: gauge, time: 1}}))))[0]
	if got.GetDescription() != "Help." || got.GetUnit() != "s" || got.GetMetadata()[0].GetValue().GetStringValue() != "gauge" {
		t.Error(got)
	}
}
