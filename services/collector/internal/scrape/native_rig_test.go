package scrape_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec
	"google.golang.org/grpc/mem"

	producerv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/producer/v1"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/scrape"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	exposer "github.com/rollcall-metrics/rollcall/services/producer"
)

// A nativeRig is a scraper and a producer that it asks over gRPC.
type nativeRig struct {
	*rig
	server *grpc.Server
}

// newNativeRig serves what register puts onto the producer's server.
func newNativeRig(t testing.TB, change func(*scrape.Config), register func(grpc.ServiceRegistrar)) *nativeRig {
	t.Helper()
	r := &nativeRig{
		rig:    &rig{t: t, sink: &sink{t: t}, net: newPipeNet()},
		server: grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{encoding.GetCodecV2("proto")})),
	}
	cfg := scrape.Config{Sink: r.sink, DialContext: r.net.dial, CollectorID: "c1"}
	if change != nil {
		change(&cfg)
	}
	r.scraper = scrape.New(cfg)
	register(r.server)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = r.server.Serve(r.net)
	}()
	t.Cleanup(func() {
		r.scraper.Close()
		r.server.Stop()
		<-served
		time.Sleep(time.Minute) // for handlers that are asleep
	})
	return r
}

// exposing registers the default producer with what a registry has.
func exposing(g prometheus.Gatherer) func(grpc.ServiceRegistrar) {
	return func(s grpc.ServiceRegistrar) { exposer.Expose(s, "p1", g) }
}

func nativeProducer() *assignment.Assignment {
	a := producer()
	a.Endpoint = "grpc://node1:9100"
	return a
}

// A script answers with chunks as they are.
type script struct {
	producerv1.UnimplementedExpositionServiceServer
	answer func(*producerv1.CollectRequest, grpc.ServerStreamingServer[producerv1.CollectResponse]) error
}

func (s *script) Collect(req *producerv1.CollectRequest, stream grpc.ServerStreamingServer[producerv1.CollectResponse]) error {
	return s.answer(req, stream)
}

// answering registers a script.
func answering(answer func(*producerv1.CollectRequest, grpc.ServerStreamingServer[producerv1.CollectResponse]) error) func(grpc.ServiceRegistrar) {
	return func(s grpc.ServiceRegistrar) {
		producerv1.RegisterExpositionServiceServer(s, &script{answer: answer})
	}
}

// chunks answers with these.
func chunks(all ...*producerv1.CollectResponse) func(grpc.ServiceRegistrar) {
	return answering(func(_ *producerv1.CollectRequest, stream grpc.ServerStreamingServer[producerv1.CollectResponse]) error {
		for _, c := range all {
			if err := stream.Send(c); err != nil {
				return err
			}
		}
		return nil
	})
}

// A rawChunk is bytes that are sent as they are.
type rawChunk string

// A rawCodec is gRPC's own, but for raw chunks.
type rawCodec struct{ encoding.CodecV2 }

// Marshal is the codec's.
func (c rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	if raw, ok := v.(rawChunk); ok {
		return mem.BufferSlice{mem.SliceBuffer(raw)}, nil
	}
	return c.CodecV2.Marshal(v)
}

// gauge is the value of one metric of the scraper's.
func gauge(t testing.TB, c prometheus.Collector, name string) float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}

// exposedValues are the series of samples that are neither the report's nor
// stale markers.
func exposedValues(batch []sample.Sample) (all []string) {
	for _, line := range exposed(batch, time.Time{}) {
		if !strings.Contains(line, " stale") {
			all = append(all, line)
		}
	}
	return all
}

// endless answers with a begin, and then with this chunk as long as it is taken.
func endless(chunk *producerv1.CollectResponse) func(grpc.ServiceRegistrar) {
	return answering(func(_ *producerv1.CollectRequest, stream grpc.ServerStreamingServer[producerv1.CollectResponse]) error {
		err := stream.Send(begun("l1"))
		for err == nil {
			err = stream.Send(chunk)
		}
		return err
	})
}
