package otlp

import (
	"math"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/value"
	colmetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/proto"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// A one is one sample as a test writes it.
type one struct {
	labels string // pairs "name value", by spaces; the first word is the metric's name
	typ    model.MetricType
	value  float64
	time   int64
	start  int64
	extra  *sample.Extra
}

// A builder makes requests of samples.
type builder struct {
	series  deliver.Series
	numbers map[string]uint32
	metas   map[model.MetricType]*metadata.Metadata
}

func newBuilder(c *Client) *builder {
	return &builder{series: c.NewSeries(), numbers: map[string]uint32{}, metas: map[model.MetricType]*metadata.Metadata{}}
}

// number is that of a series, added if need be.
func (b *builder) number(ls labels.Labels, meta *metadata.Metadata) uint32 {
	key := ls.String()
	if meta != nil {
		key += string(meta.Type)
	}
	n, ok := b.numbers[key]
	if !ok {
		n = uint32(len(b.numbers))
		b.numbers[key] = n
		b.series.Add(ls, meta)
	}
	return n
}

func (b *builder) meta(typ model.MetricType) *metadata.Metadata {
	if typ == "" {
		return nil
	}
	if b.metas[typ] == nil {
		b.metas[typ] = &metadata.Metadata{Type: typ, Help: "Help.", Unit: "seconds"}
	}
	return b.metas[typ]
}

// request makes a request of records.
func (b *builder) request(records ...[]one) *deliver.Request {
	r := &deliver.Request{Series: b.series}
	for _, rec := range records {
		for _, o := range rec {
			r.Items = append(r.Items, deliver.Item{
				Index: b.number(named(o.labels), b.meta(o.typ)),
				Point: sample.Point{Time: o.time, Start: o.start, Value: o.value, Extra: o.extra},
			})
		}
		r.Ends = append(r.Ends, len(r.Items))
	}
	return r
}

// named are labels with those of a target, unless the text tells some.
func named(text string) labels.Labels {
	words := strings.Fields(text)
	set := labels.NewBuilder(labels.FromStrings("job", "api", "instance", "a:1", "__name__", words[0]))
	for i := 1; i+1 < len(words); i += 2 {
		set.Set(words[i], words[i+1])
	}
	return set.Labels()
}

func newClient(t testing.TB, edit ...func(*Config)) *Client {
	t.Helper()
	cfg := Config{Name: "otel", Target: "receiver:4317", Insecure: true, Version: "v1"}
	for _, e := range edit {
		e(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// decode reads a message with OpenTelemetry's own code.
func decode(t testing.TB, m *message) *colmetrics.ExportMetricsServiceRequest {
	t.Helper()
	got := &colmetrics.ExportMetricsServiceRequest{}
	if err := proto.Unmarshal(m.buffer.ReadOnlyData(), got); err != nil {
		t.Fatal(err)
	}
	if n := len(got.ProtoReflect().GetUnknown()); n > 0 {
		t.Fatalf("%d bytes of unknown fields", n)
	}
	return got
}

// metricsOf are all metrics of a request, in order.
func metricsOf(r *colmetrics.ExportMetricsServiceRequest) (all []*metrics.Metric) {
	for _, rm := range r.GetResourceMetrics() {
		for _, sm := range rm.GetScopeMetrics() {
			all = append(all, sm.GetMetrics()...)
		}
	}
	return all
}

func staleNaN() float64 { return math.Float64frombits(value.StaleNaN) }
