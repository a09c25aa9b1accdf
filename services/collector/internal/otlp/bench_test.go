package otlp

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	colmetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// A load is a request of 10 producers with 200 series each, as a node exporter
// has them: a fifth counters, a tenth in histograms, and gauges.
func newLoad(c *Client) *deliver.Request {
	r := &deliver.Request{Series: c.NewSeries()}
	add := func(typ model.MetricType, value float64, words ...string) {
		r.Series.Add(labels.FromStrings(words...), &metadata.Metadata{Type: typ, Help: "What this is about, in some words."})
		r.Items = append(r.Items, deliver.Item{Index: uint32(len(r.Items)), Point: sample.Point{Time: 1790000000000, Value: value}})
	}
	for p := range 10 {
		instance := fmt.Sprintf("10.0.0.%d:9100", p)
		for i := range 180 {
			typ, name := gauge, fmt.Sprintf("node_memory_thing_%d_bytes", i/4)
			if i < 40 {
				typ, name = counter, fmt.Sprintf("node_network_receive_%d_total", i/4)
			}
			add(typ, float64(i)*1.7e6, "__name__", name, "job", "node", "instance", instance, "device", fmt.Sprintf("eth%d", i%4), "cluster", "eu-west", "zone", "b")
		}
		for i := range 18 {
			add(classic, float64(i), "__name__", "request_seconds_bucket", "job", "node", "instance", instance, "le", fmt.Sprint(i), "cluster", "eu-west")
		}
		add(classic, 17, "__name__", "request_seconds_count", "job", "node", "instance", instance, "cluster", "eu-west")
		add(classic, 17, "__name__", "request_seconds_sum", "job", "node", "instance", instance, "cluster", "eu-west")
		r.Ends = append(r.Ends, len(r.Items))
	}
	return r
}

func perSample(b *testing.B, samples int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(samples), "ns/sample")
}

func BenchmarkEncode(b *testing.B) {
	c := newClient(b)
	r := newLoad(c)
	b.ReportAllocs()
	size := 0
	for b.Loop() {
		for i := range r.Items {
			r.Items[i].Time += 10000
		}
		m := c.encode(r)
		size = m.buffer.Len()
		m.free()
	}
	perSample(b, len(r.Items))
	b.ReportMetric(float64(size)/float64(len(r.Items)), "B/sample")
}

// BenchmarkMarshal is what the encoding alone costs with OpenTelemetry's own
// code, of a message that is there already.
func BenchmarkMarshal(b *testing.B) {
	c := newClient(b)
	r := newLoad(c)
	m := decode(b, c.encode(r))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := proto.Marshal(m); err != nil {
			b.Fatal(err)
		}
	}
	perSample(b, len(r.Items))
}

func BenchmarkGzip(b *testing.B) {
	c := newClient(b)
	r := newLoad(c)
	m := c.encode(r)
	g := newGzip()
	var w counting
	for b.Loop() {
		w = 0
		if err := g.Do(&w, m.buffer.ReadOnlyData()); err != nil {
			b.Fatal(err)
		}
	}
	perSample(b, len(r.Items))
	b.ReportMetric(float64(w)/float64(len(r.Items)), "B/sample")
}

type counting int

func (c *counting) Write(p []byte) (int, error) {
	*c += counting(len(p))
	return len(p), nil
}

var _ io.Writer = new(counting)

func BenchmarkAdd(b *testing.B) {
	c := newClient(b)
	ls := labels.FromStrings("__name__", "node_network_receive_total", "job", "node", "instance", "10.0.0.1:9100", "device", "eth0", "cluster", "eu-west")
	meta := &metadata.Metadata{Type: counter, Help: "What this is about, in some words."}
	s := c.NewSeries()
	b.ReportAllocs()
	for b.Loop() {
		s.Add(ls, meta)
	}
}

// BenchmarkSend sends over loopback, to a server that does not read what it
// gets.
func BenchmarkSend(b *testing.B) {
	for _, compression := range []Compression{CompressionGzip, CompressionNone} {
		b.Run(string(compression), func(b *testing.B) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			server := grpc.NewServer(grpc.ForceServerCodecV2(deaf{}))
			colmetrics.RegisterMetricsServiceServer(server, quiet{})
			go func() { _ = server.Serve(l) }()
			defer server.Stop()
			c := newClient(b, func(cfg *Config) { cfg.Target, cfg.Compression = l.Addr().String(), compression })
			r := newLoad(c)
			b.ReportAllocs()
			for b.Loop() {
				for i := range r.Items {
					r.Items[i].Time += 10000
				}
				if out := c.Send(b.Context(), r); out.Err != nil || out.Refused > 0 {
					b.Fatal(out)
				}
			}
			perSample(b, len(r.Items))
		})
	}
}

type quiet struct {
	colmetrics.UnimplementedMetricsServiceServer
}

func (quiet) Export(context.Context, *colmetrics.ExportMetricsServiceRequest) (*colmetrics.ExportMetricsServiceResponse, error) {
	return &colmetrics.ExportMetricsServiceResponse{}, nil
}

// A deaf codec does not read what it gets.
type deaf struct{}

func (deaf) Name() string                         { return "proto" }
func (deaf) Unmarshal(mem.BufferSlice, any) error { return nil }
func (deaf) Marshal(any) (mem.BufferSlice, error) { return mem.BufferSlice{mem.SliceBuffer{}}, nil }
