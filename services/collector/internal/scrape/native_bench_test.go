package scrape_test

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/protobuf/proto"

	producerv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/producer/v1"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/scrape"
)

// steady answers with n samples, and with their layout to who has it not.
func steady(tb testing.TB, n int) func(grpc.ServiceRegistrar) {
	tb.Helper()
	m := begun("l1")
	m.Layout = &producerv1.Layout{Symbols: []string{"a", "n"}, FamilyNames: []uint32{1}, FamilyTypes: []producerv1.MetricType{2}, FamilyHelps: []uint32{0}, FamilyUnits: []uint32{0}}
	for i := range n {
		m.Layout.Symbols = append(m.Layout.Symbols, fmt.Sprint("series ", i))
		m.Layout.SeriesFamilies, m.Layout.SeriesNames = append(m.Layout.SeriesFamilies, 0), append(m.Layout.SeriesNames, 1)
		m.Layout.SeriesLabelCounts, m.Layout.LabelSymbols = append(m.Layout.SeriesLabelCounts, 1), append(m.Layout.LabelSymbols, 2, uint32(i+3))
		m.Values = append(m.Values, float64(i*1234567))
	}
	m.Seal = &producerv1.Seal{ChunkCount: 1, SampleCount: int64(n)}
	first, err := proto.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	m.Layout = nil
	next, err := proto.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	return answering(func(req *producerv1.CollectRequest, stream grpc.ServerStreamingServer[producerv1.CollectResponse]) error {
		if string(req.GetKnownLayoutId()) == "l1" {
			return stream.SendMsg(rawChunk(next))
		}
		return stream.SendMsg(rawChunk(first))
	})
}

// serveSteady serves on loopback.
func serveSteady(tb testing.TB, n int) string {
	tb.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	server := grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{encoding.GetCodecV2("proto")}))
	steady(tb, n)(server)
	go func() { _ = server.Serve(lis) }()
	tb.Cleanup(server.Stop)
	return "grpc://" + lis.Addr().String()
}

// BenchmarkCollectColumns is BenchmarkCollect/http for columns: over loopback,
// with the server's work in the same process.
func BenchmarkCollectColumns(b *testing.B) {
	for _, n := range []int{200, 2000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := openBench(b, scrape.Config{Sink: &discard{}}, serveSteady(b, n))
			at := time.Now()
			b.ReportAllocs()
			for b.Loop() {
				if result := c.Collect(b.Context(), at); result.Reason != schedule.ReasonNone {
					b.Fatalf("%+v", result)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/sample")
		})
	}
}

// BenchmarkIdleChannel measures what one kept connection costs, both ends
// together: goroutines, and bytes of heap and stacks.
func BenchmarkIdleChannel(b *testing.B) {
	const producers = 200
	url := serveSteady(b, 1)
	_, port, err := net.SplitHostPort(url[len("grpc://"):])
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s := scrape.New(scrape.Config{Sink: &discard{}, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, "127.0.0.1:"+port)
		}})
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		goroutines := runtime.NumGoroutine()
		for i := range producers {
			a := producer()
			a.Endpoint = fmt.Sprintf("grpc://node%d:9100", i)
			c, err := s.Open(a)
			if err != nil {
				b.Fatal(err)
			}
			if result := c.Collect(b.Context(), time.Now()); result.Reason != schedule.ReasonNone {
				b.Fatalf("%+v", result)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc+after.StackInuse-before.HeapAlloc-before.StackInuse)/producers, "B/channel")
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/producers, "goroutines/channel")
		s.Close()
	}
}
