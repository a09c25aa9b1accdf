package otlp

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// A source gives what a fuzzer has to say, and zeros after that.
type source []byte

func (s *source) next(n int) uint64 {
	var b [8]byte
	n = copy(b[:n], *s)
	*s = (*s)[n:]
	return binary.LittleEndian.Uint64(b[:])
}

func (s *source) text() string {
	n := min(int(s.next(1)%16), len(*s))
	t := string((*s)[:n])
	*s = (*s)[n:]
	return t
}

func (s *source) number() float64 {
	switch s.next(1) % 4 {
	case 0:
		return float64(s.next(1))
	case 1:
		return staleNaN()
	default:
		return math.Float64frombits(s.next(8))
	}
}

func (s *source) labels() labels.Labels {
	known := []string{"job", "instance", "le", "quantile", "otel_scope_name", "a"}
	set := labels.NewBuilder(labels.FromStrings("__name__", "x"))
	names := []string{"x", "x_bucket", "x_sum", "x_count", "x_total", "x_created", "target_info", s.text()}
	set.Set("__name__", names[s.next(1)%uint64(len(names))])
	for range s.next(1) % 4 {
		name := s.text()
		if n := s.next(1) % 8; n < uint64(len(known)) {
			name = known[n]
		}
		set.Set(name, s.text())
	}
	return set.Labels()
}

func (s *source) extra() *sample.Extra {
	switch s.next(1) % 4 {
	case 0:
		return &sample.Extra{Histogram: &histogram.Histogram{
			Schema: int32(int8(s.next(1))), Count: s.next(1), ZeroCount: s.next(1), Sum: s.number(),
			PositiveSpans:   []histogram.Span{{Offset: int32(s.next(4)), Length: uint32(s.next(1))}, {Offset: int32(s.next(4)), Length: 1}},
			PositiveBuckets: []int64{int64(s.next(1)), int64(int8(s.next(1)))}, CustomValues: []float64{s.number(), s.number()}[:s.next(1)%3],
		}}
	case 1:
		return &sample.Extra{Exemplars: []exemplar.Exemplar{{Labels: s.labels(), Value: s.number(), Ts: int64(s.next(8)), HasTs: true}}}
	default:
		return nil
	}
}

// FuzzMapping gives anything to the mapping. Whatever it is, each sample is sent
// or counted, and what is sent can be read and is consistent.
func FuzzMapping(f *testing.F) {
	f.Add([]byte("0123456789abcdefghijklmnopqrstuvwxyz"), uint8(3))
	types := []model.MetricType{"", counter, gauge, classic, summary, unknown, "gaugehistogram", "info", "stateset", "\xff"}
	f.Fuzz(func(t *testing.T, data []byte, records uint8) {
		c := newClient(t)
		s := source(data)
		r := &deliver.Request{Series: c.NewSeries()}
		for range records % 8 {
			for range s.next(1) % 8 {
				r.Series.Add(s.labels(), &metadata.Metadata{Type: types[s.next(1)%uint64(len(types))], Help: s.text(), Unit: s.text()})
				r.Items = append(r.Items, deliver.Item{
					Index: uint32(s.next(1)), Point: sample.Point{Time: int64(s.next(8)), Start: int64(s.next(8)), Value: s.number(), Extra: s.extra()},
				})
			}
			r.Ends = append(r.Ends, len(r.Items))
		}
		m := c.encode(r)
		if m.unsupported > m.samples || m.points > m.samples {
			t.Fatalf("%d points and %d unsupported samples of %d", m.points, m.unsupported, m.samples)
		}
		points := 0
		for _, one := range metricsOf(decode(t, m)) {
			points += checkMetric(t, one)
		}
		if points != m.points {
			t.Fatalf("%d points, counted %d", points, m.points)
		}
	})
}

// checkMetric checks what must hold for every metric, and counts its points.
func checkMetric(t *testing.T, one *metrics.Metric) int {
	t.Helper()
	if one.GetName() == "" || one.GetData() == nil {
		t.Fatal("a metric without a name or data")
	}
	for _, p := range one.GetHistogram().GetDataPoints() {
		total := uint64(0)
		for _, n := range p.GetBucketCounts() {
			total += n
		}
		bounds := p.GetExplicitBounds()
		for i := 1; i < len(bounds); i++ {
			if !(bounds[i-1] < bounds[i]) {
				t.Fatalf("bounds %v", bounds)
			}
		}
		if n := len(p.GetBucketCounts()); n > 0 && (total != p.GetCount() || n != len(bounds)+1) {
			t.Fatalf("%v", p)
		}
	}
	for _, p := range one.GetExponentialHistogram().GetDataPoints() {
		total := p.GetZeroCount()
		for _, n := range append(p.GetPositive().GetBucketCounts(), p.GetNegative().GetBucketCounts()...) {
			total += n
		}
		if total != p.GetCount() || p.GetScale() < -4 || p.GetScale() > 8 {
			t.Fatalf("%v", p)
		}
	}
	return len(one.GetGauge().GetDataPoints()) + len(one.GetSum().GetDataPoints()) + len(one.GetHistogram().GetDataPoints()) +
		len(one.GetExponentialHistogram().GetDataPoints()) + len(one.GetSummary().GetDataPoints())
}

// FuzzAnswer reads answers of strangers.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte("\x0a\x05\x08\x01\x12\x01x"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		var a answer
		_ = a.parse(data)
	})
}
