package producer_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	producerv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/producer/v1"
	"github.com/rollcall-metrics/rollcall/services/producer"
)

// expose serves a gatherer as producer p1.
func expose(tb testing.TB, g prometheus.Gatherer) producerv1.ExpositionServiceClient {
	tb.Helper()
	lis := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	producer.Expose(server, "p1", g)
	served := make(chan struct{})
	go func() { _ = server.Serve(lis); close(served) }()
	conn, err := grpc.NewClient("passthrough:///p1",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		conn.Close()
		server.Stop()
		<-served
	})
	return producerv1.NewExpositionServiceClient(conn)
}

// collect asks once, and returns the chunks as they are and as one.
func collect(tb testing.TB, client producerv1.ExpositionServiceClient, req *producerv1.CollectRequest) (chunks []*producerv1.CollectResponse, whole *producerv1.CollectResponse, err error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), time.Minute)
	defer cancel()
	stream, err := client.Collect(ctx, req)
	if err != nil {
		return nil, nil, err
	}
	whole = &producerv1.CollectResponse{}
	for {
		chunk, err := stream.Recv()
		if err != nil {
			return chunks, whole, err
		}
		if size := proto.Size(chunk); size > 256<<10 {
			tb.Errorf("a chunk of %d bytes", size)
		}
		chunks = append(chunks, chunk)
		proto.Merge(whole, chunk)
		if chunk.GetSeal() != nil {
			return chunks, whole, nil
		}
	}
}

func counters(n int) (*prometheus.Registry, *prometheus.CounterVec) {
	r := prometheus.NewRegistry()
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "work_total", Help: "Work."}, []string{"method", "route", "status"})
	r.MustRegister(v)
	for i := range n {
		v.WithLabelValues("GET", fmt.Sprint("/api/v1/things/", i), "200").Add(float64(i))
	}
	return r, v
}

// A large answer comes in chunks that are within bounds, and together it is
// whole; the next one has no layout until the series change.
func TestExposeInChunks(t *testing.T) {
	r, v := counters(30_000)
	client := expose(t, r)
	chunks, whole, err := collect(t, client, &producerv1.CollectRequest{ProducerId: "p1"})
	if err != nil || len(chunks) < 3 {
		t.Fatalf("%d chunks, %v", len(chunks), err)
	}
	l := whole.GetLayout()
	if len(l.GetSeriesNames()) != 30_000 || len(l.GetLabelSymbols()) != 180_000 || len(whole.GetValues()) != 30_000 || len(l.GetSeriesStartTimesMs()) != 30_000 {
		t.Errorf("%d series, %d label symbols, %d values", len(l.GetSeriesNames()), len(l.GetLabelSymbols()), len(whole.GetValues()))
	}
	if s := whole.GetSeal(); s.GetChunkCount() != int64(len(chunks)) || s.GetSampleCount() != 30_000 || whole.GetBegin().GetProducerId() != "p1" {
		t.Errorf("%d chunks, %v, %v", len(chunks), s, whole.GetBegin())
	}
	known := whole.GetBegin().GetLayoutId()
	_, next, err := collect(t, client, &producerv1.CollectRequest{ProducerId: "p1", KnownLayoutId: known})
	if err != nil || next.Layout != nil || string(next.GetBegin().GetLayoutId()) != string(known) {
		t.Errorf("%v, layout of %d series", err, len(next.GetLayout().GetSeriesNames()))
	}
	v.WithLabelValues("PUT", "/", "200").Inc()
	_, next, err = collect(t, client, &producerv1.CollectRequest{ProducerId: "p1", KnownLayoutId: known})
	if err != nil || len(next.GetLayout().GetSeriesNames()) != 30_001 || string(next.GetBegin().GetLayoutId()) == string(known) {
		t.Errorf("%v, layout of %d series", err, len(next.GetLayout().GetSeriesNames()))
	}
}

// An empty registry has a layout, too: an empty one.
func TestExposeNothing(t *testing.T) {
	_, whole, err := collect(t, expose(t, prometheus.NewRegistry()), &producerv1.CollectRequest{ProducerId: "p1"})
	if err != nil || whole.Layout == nil || len(whole.GetValues()) != 0 || len(whole.GetBegin().GetLayoutId()) == 0 {
		t.Errorf("%v, %v", whole, err)
	}
}

// The layout changes with all that it has, and with nothing else.
func TestLayoutFollowsMetrics(t *testing.T) {
	base := func() *dto.MetricFamily {
		return &dto.MetricFamily{
			Name: new("h"), Help: new("Help."), Type: dto.MetricType_HISTOGRAM.Enum(),
			Metric: []*dto.Metric{{
				Label:     []*dto.LabelPair{{Name: new("a"), Value: new("b")}},
				Histogram: &dto.Histogram{SampleCount: proto.Uint64(1), Bucket: []*dto.Bucket{{UpperBound: new(float64(1)), CumulativeCount: proto.Uint64(1)}}},
			}},
		}
	}
	now := base()
	client := expose(t, prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return []*dto.MetricFamily{now}, nil }))
	_, first, err := collect(t, client, &producerv1.CollectRequest{ProducerId: "p1"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*dto.MetricFamily)
		same   bool
	}{
		"nothing":  {func(*dto.MetricFamily) {}, true},
		"a count":  {func(f *dto.MetricFamily) { f.Metric[0].Histogram.SampleCount = proto.Uint64(9) }, true},
		"a time":   {func(f *dto.MetricFamily) { f.Metric[0].TimestampMs = proto.Int64(9) }, true},
		"name":     {func(f *dto.MetricFamily) { f.Name = new("i") }, false},
		"help":     {func(f *dto.MetricFamily) { f.Help = new("i") }, false},
		"unit":     {func(f *dto.MetricFamily) { f.Unit = new("i") }, false},
		"label":    {func(f *dto.MetricFamily) { f.Metric[0].Label[0].Name = new("i") }, false},
		"value":    {func(f *dto.MetricFamily) { f.Metric[0].Label[0].Value = new("i") }, false},
		"no label": {func(f *dto.MetricFamily) { f.Metric[0].Label = nil }, false},
		"bound":    {func(f *dto.MetricFamily) { f.Metric[0].Histogram.Bucket[0].UpperBound = new(float64(2)) }, false},
		"bucket": {func(f *dto.MetricFamily) {
			f.Metric[0].Histogram.Bucket = append(f.Metric[0].Histogram.Bucket, &dto.Bucket{UpperBound: new(float64(2))})
		}, false},
		"native": {func(f *dto.MetricFamily) { f.Metric[0].Histogram.ZeroThreshold = new(float64(1)) }, false},
		"metric": {func(f *dto.MetricFamily) { f.Metric = append(f.Metric, base().Metric...) }, false},
		"type":   {func(f *dto.MetricFamily) { f.Type = dto.MetricType_GAUGE_HISTOGRAM.Enum() }, false},
	} {
		now = base()
		c.change(now)
		_, got, err := collect(t, client, &producerv1.CollectRequest{ProducerId: "p1", KnownLayoutId: first.GetBegin().GetLayoutId()})
		if err != nil || (got.Layout == nil) != c.same || len(got.GetValues())+len(got.GetHistograms().GetSchemas()) != int(got.GetSeal().GetSampleCount()) {
			t.Errorf("%s: %v, layout %v, want the same: %v", name, err, got.GetLayout(), c.same)
		}
	}
}

// What cannot be answered has its code and reason.
func TestExposeRefuses(t *testing.T) {
	r, _ := counters(3)
	broken := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		return nil, errors.New("broken \xff " + strings.Repeat("x", 10_000))
	})
	odd := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		return []*dto.MetricFamily{{Name: new("a"), Type: dto.MetricType_COUNTER.Enum(), Metric: []*dto.Metric{{Gauge: &dto.Gauge{}}}}}, nil
	})
	for name, c := range map[string]struct {
		gatherer prometheus.Gatherer
		req      *producerv1.CollectRequest
		code     codes.Code
		reason   string
	}{
		"another producer": {r, &producerv1.CollectRequest{ProducerId: "p2"}, codes.FailedPrecondition, "WRONG_PRODUCER"},
		"too many":         {r, &producerv1.CollectRequest{ProducerId: "p1", MaxSampleCount: 2}, codes.ResourceExhausted, "TOO_MANY_SAMPLES"},
		"just enough":      {r, &producerv1.CollectRequest{ProducerId: "p1", MaxSampleCount: 3}, codes.OK, ""},
		"broken":           {broken, &producerv1.CollectRequest{ProducerId: "p1"}, codes.Internal, ""},
		"odd":              {odd, &producerv1.CollectRequest{ProducerId: "p1"}, codes.Internal, ""},
	} {
		_, _, err := collect(t, expose(t, c.gatherer), c.req)
		if status.Code(err) != c.code || reasonOf(err) != c.reason || err != nil && len(err.Error()) > 500 {
			t.Errorf("%s: %v, want %v %s", name, err, c.code, c.reason)
		}
	}
	stream, err := expose(t, r).Collect(t.Context(), &producerv1.CollectRequest{ProducerId: "p1"})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("without a deadline: %v", err)
	}
}

func reasonOf(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// Collections that hang take no more than their slots.
func TestExposeIsBounded(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	client := expose(t, prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		begun <- struct{}{}
		<-end
		return nil, nil
	}))
	done := make(chan error)
	for range 4 {
		go func() {
			_, _, err := collect(t, client, &producerv1.CollectRequest{ProducerId: "p1"})
			done <- err
		}()
	}
	for range 4 {
		<-begun
	}
	_, _, err := collect(t, client, &producerv1.CollectRequest{ProducerId: "p1"})
	if status.Code(err) != codes.ResourceExhausted || reasonOf(err) != "BUSY" {
		t.Errorf("the fifth: %v", err)
	}
	close(end)
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// BenchmarkExpose is what an answer costs a producer: gathering, and then a text
// (promhttp, without compression) or columns.
func BenchmarkExpose(b *testing.B) {
	for _, n := range []int{200, 2000} {
		r, _ := counters(n)
		b.Run(fmt.Sprint("gather/", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Gather(); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprint("promhttp/", n), func(b *testing.B) {
			h := promhttp.HandlerFor(r, promhttp.HandlerOpts{DisableCompression: true})
			req := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/metrics", nil)
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(httptest.NewRecorder(), req)
			}
		})
		b.Run(fmt.Sprint("columns/", n), func(b *testing.B) {
			client := expose(b, r)
			_, whole, err := collect(b, client, &producerv1.CollectRequest{ProducerId: "p1"})
			if err != nil {
				b.Fatal(err)
			}
			req := &producerv1.CollectRequest{ProducerId: "p1", KnownLayoutId: whole.GetBegin().GetLayoutId()}
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := collect(b, client, req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
