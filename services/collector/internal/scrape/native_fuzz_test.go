package scrape_test

import (
	"context"
	varint "encoding/binary"
	"math"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	producerv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/producer/v1"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/scrape"
)

// FuzzNative answers with two answers of encoded chunks, each behind its length.
// Whatever they are, nothing panics, batches are sound, a failure stores nothing
// but the report and stale markers, and no byte stays in flight.
func FuzzNative(f *testing.F) {
	join := func(all ...*producerv1.CollectResponse) (out []byte) {
		for _, c := range all {
			b, err := proto.Marshal(c)
			if err != nil {
				f.Fatal(err)
			}
			out = append(varint.AppendUvarint(out, uint64(len(b))), b...)
		}
		return out
	}
	f.Add(join(whole()), join(whole()))
	f.Add(join(withNative()), join(changed(withNative(), func(m *producerv1.CollectResponse) { m.Layout = nil })...))
	for _, lie := range lies() {
		f.Add(join(whole()), join(lie.chunks...))
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		answers := [][]byte{first, second, second}
		n := 0
		lis := bufconn.Listen(1 << 16)
		server := grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{encoding.GetCodecV2("proto")}))
		answering(func(_ *producerv1.CollectRequest, s grpc.ServerStreamingServer[producerv1.CollectResponse]) error {
			rest := answers[n]
			n++
			for len(rest) > 0 {
				size, used := varint.Uvarint(rest)
				if used <= 0 {
					return nil
				}
				rest = rest[used:]
				size = min(size, uint64(len(rest)))
				if err := s.SendMsg(rawChunk(rest[:size])); err != nil {
					return err
				}
				rest = rest[size:]
			}
			return nil
		})(server)
		served := make(chan struct{})
		go func() { _ = server.Serve(lis); close(served) }()
		defer func() { server.Stop(); <-served }()
		out, metrics := &sink{t: t}, scrape.NewMetrics()
		s := scrape.New(scrape.Config{Sink: out, Metrics: metrics, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return lis.DialContext(ctx) }})
		defer s.Close()
		c, err := s.Open(nativeProducer())
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for i := range answers {
			result := c.Collect(t.Context(), start.Add(time.Duration(i)*time.Minute))
			for _, batch := range out.take() {
				checkFailed(t, result, batch)
			}
		}
		if got := gauge(t, metrics, "rollcall_collector_scrape_in_flight_bytes"); got != 0 {
			t.Errorf("%v bytes are still in flight", got)
		}
	})
}

// checkFailed reports samples in the batch of a failure, and a report that says
// otherwise than the result.
func checkFailed(t *testing.T, result schedule.Result, batch []sample.Sample) {
	t.Helper()
	up := math.NaN()
	for _, s := range batch {
		name := s.Series.Labels().Get("__name__")
		if name == "up" && s.Series.Labels().Get("instance") == "node1:9100" {
			up = s.Value
		}
	}
	if (up == 1) != (result.Reason == schedule.ReasonNone) {
		t.Errorf("up is %v, %+v", up, result)
	}
	if result.Reason != schedule.ReasonNone && len(exposedValues(batch)) > 0 {
		t.Errorf("a failure stored %v: %+v", exposedValues(batch), result)
	}
}
