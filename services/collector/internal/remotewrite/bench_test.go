package remotewrite

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

const (
	producers   = 2000
	perProducer = 200
	perRequest  = 10000
)

// A fleet is what producers like node_exporter have to say.
type fleet struct {
	labels   []labels.Labels // producer after producer
	metas    []*metadata.Metadata
	requests []*deliver.Request
}

func newFleet() *fleet {
	f := &fleet{}
	metas := make([]*metadata.Metadata, 40)
	for i := range metas {
		metas[i] = &metadata.Metadata{Type: model.MetricTypeCounter, Help: fmt.Sprintf("Network device statistic or another thing, number %d.", i)}
	}
	random := rand.New(rand.NewPCG(1, 2))
	series := NewSeries()
	items := make([]deliver.Item, 0, producers*perProducer)
	for p := range producers {
		for i := range perProducer {
			family := i / 5
			ls := labels.FromStrings(
				"__name__", fmt.Sprintf("node_network_statistic_%d_total", family), "device", fmt.Sprintf("eth%d", i%5),
				"instance", fmt.Sprintf("host-%04d.example.com:9100", p), "job", "node", "mode", []string{"idle", "system", "user"}[i%3],
				"zone", fmt.Sprintf("eu-west-1%c", 'a'+p%3),
			)
			f.labels = append(f.labels, ls)
			f.metas = append(f.metas, metas[family])
			series.Add(ls, metas[family])
			v := float64(random.IntN(1 << 30))
			if i%4 == 0 {
				v = random.Float64() * 1e6
			}
			items = append(items, deliver.Item{
				Index: uint32(len(items)), Point: sample.Point{Time: 1700000000000 + int64(p), Value: v},
			})
		}
	}
	for len(items) > 0 {
		f.requests = append(f.requests, &deliver.Request{Series: series, Items: items[:perRequest]})
		items = items[perRequest:]
	}
	return f
}

// BenchmarkEncode encodes and compresses requests of 10,000 samples, of 50
// producers each. An operation is one sample. Beside it are Prometheus's types,
// filled from labels as its queue does it.
func BenchmarkEncode(b *testing.B) {
	f := newFleet()
	report := func(b *testing.B, bytes int) {
		b.ReportMetric(float64(bytes)/perRequest, "wireB/sample")
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N), "ns/sample")
	}
	for _, p := range []Protocol{V2, V1} {
		b.Run(p.String(), func(b *testing.B) {
			b.ReportAllocs()
			var s scratch
			var body []byte
			for n := 0; n < b.N; n += perRequest {
				var err error
				body, _, err = s.encode(body, p, f.requests[n/perRequest%len(f.requests)], options{true, true})
				if err != nil {
					b.Fatal(err)
				}
			}
			report(b, len(body))
		})
	}
	b.Run("prometheus 2.0", func(b *testing.B) {
		b.ReportAllocs()
		report(b, benchPrometheus2(b, f, true))
	})
	b.Run("prometheus 2.0 without symbols", func(b *testing.B) {
		b.ReportAllocs()
		report(b, benchPrometheus2(b, f, false))
	})
	b.Run("prometheus 1.0", func(b *testing.B) {
		b.ReportAllocs()
		report(b, benchPrometheus1(b, f))
	})
}

func benchPrometheus2(b *testing.B, f *fleet, symbolize bool) int {
	table := writev2.NewSymbolTable()
	all := make([]writev2.TimeSeries, perRequest)
	fill := func(r *deliver.Request) {
		table.Reset()
		for i := range r.Items {
			item, s := &r.Items[i], &all[i]
			s.LabelsRefs = table.SymbolizeLabels(f.labels[item.Index], s.LabelsRefs)
			s.Samples = append(s.Samples[:0], writev2.Sample{Value: item.Value, Timestamp: item.Time})
			m := f.metas[item.Index]
			s.Metadata.Type = writev2.FromMetadataType(m.Type)
			s.Metadata.HelpRef, s.Metadata.UnitRef = table.Symbolize(m.Help), table.Symbolize(m.Unit)
		}
	}
	var raw, body []byte
	fill(f.requests[0])
	b.ResetTimer()
	for n := 0; n < b.N; n += perRequest {
		if symbolize {
			fill(f.requests[n/perRequest%len(f.requests)])
		}
		request := writev2.Request{Symbols: table.Symbols(), Timeseries: all}
		var err error
		if raw, err = request.OptimizedMarshal(raw); err != nil {
			b.Fatal(err)
		}
		body = snappy.Encode(body[:cap(body)], raw)
	}
	return len(body)
}

func benchPrometheus1(b *testing.B, f *fleet) int {
	all := make([]prompb.TimeSeries, perRequest)
	var raw, body []byte
	for n := 0; n < b.N; n += perRequest {
		r := f.requests[n/perRequest%len(f.requests)]
		for i := range r.Items {
			item, s := &r.Items[i], &all[i]
			s.Labels = prompb.FromLabels(f.labels[item.Index], s.Labels)
			s.Samples = append(s.Samples[:0], prompb.Sample{Value: item.Value, Timestamp: item.Time})
		}
		request := prompb.WriteRequest{Timeseries: all}
		size := request.Size()
		if cap(raw) < size {
			raw = make([]byte, size)
		}
		raw = raw[:size]
		if _, err := request.MarshalToSizedBuffer(raw); err != nil {
			b.Fatal(err)
		}
		body = snappy.Encode(body[:cap(body)], raw)
	}
	return len(body)
}

// BenchmarkAdd compiles series. An operation is one series.
func BenchmarkAdd(b *testing.B) {
	f := newFleet()
	b.ReportAllocs()
	b.ResetTimer()
	var s *Series
	for n := range b.N {
		i := n % len(f.labels)
		if i == 0 {
			s = NewSeries()
		}
		s.Add(f.labels[i], f.metas[i])
	}
}
