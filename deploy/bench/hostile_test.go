package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"testing"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	// hostile subscribers: as many observers of one large set as are let in, and
	// collectors with a set of their own.
	hostile   = 200
	observers = 64
	large     = 10_000
	ownSet    = 10

	// honest subscribers, and what each of them is assigned.
	honest    = 4
	honestSet = 100

	// changes are measured for each figure, with a pause of pace between them:
	// few enough that they end before the registry ends a stopped reader's
	// stream, after 30 s.
	changes = 500
	pace    = 5 * time.Millisecond
)

// BenchmarkHostileSubscribers measures what subscribers that never read cost the
// registry, and those who do. Each has a connection of its own, whose HTTP/2
// windows are shut, so that everything for it stays with the server.
func BenchmarkHostileSubscribers(b *testing.B) {
	for b.Loop() {
		benchHostile(b)
	}
}

func benchHostile(b *testing.B) {
	dir := b.TempDir()
	s := startIn(b, "registry", dir)
	fillHostile(b, s)
	s.stop()
	s = startIn(b, "registry", dir) // without the garbage of the registrations

	f := newFollowers(b, s)
	f.measure(b, 100) // what is done once is done
	alone := f.measure(b, changes)
	rest, restHeap := s.memory(b), s.heap(b)

	first := stopReading(b, s, observer())
	one := f.measure(b, changes)
	_ = first.Close()
	var requests []*registryv1.SubscribeRequest
	for i := range hostile {
		m := observer()
		if i >= observers {
			m = enlist(b, s, fmt.Sprintf("hostile-%03d", i))
		}
		requests = append(requests, m)
	}
	var stopped []net.Conn
	for _, m := range requests {
		stopped = append(stopped, stopReading(b, s, m))
	}
	all := f.measure(b, changes)
	full, fullHeap := s.memory(b), s.heap(b)
	if n := s.gauge(b, "rollcall_registry_subscriptions"); n != hostile+honest {
		b.Fatalf("%v subscriptions stand", n)
	}
	for _, conn := range stopped {
		_ = conn.Close()
	}

	if most := 64 + hostile*64.0/1024; full-rest > most {
		b.Errorf("%.1f MiB above rest, at most %.1f are allowed", full-rest, most)
	}
	b.ReportMetric(rest, "rest-MiB")
	b.ReportMetric(full-rest, "above-rest-MiB")
	b.ReportMetric((full-rest)*1024/hostile, "KiB/subscriber")
	b.ReportMetric(restHeap, "rest-heap-MiB")
	b.ReportMetric((fullHeap-restHeap)*1024/hostile, "heap-KiB/subscriber")
	alone.report(b, "alone")
	one.report(b, "one")
	all.report(b, "all")
	b.ReportMetric(one.p99()/alone.p99(), "one-p99-ratio")
	b.ReportMetric(all.p99()/alone.p99(), "all-p99-ratio")
	b.ReportMetric(0, "ns/op")
}

// fillHostile makes the collectors known, and registers everybody's producers.
func fillHostile(b *testing.B, s *server) {
	b.Helper()
	client := registryv1.NewProducerServiceClient(dial(b, s.address))
	var batch registryv1.BatchRegisterProducersRequest
	flush := func() {
		resp, err := client.BatchRegisterProducers(b.Context(), &batch)
		if err != nil {
			b.Fatal(err)
		}
		for _, r := range resp.GetResults() {
			if r.GetCode() != 0 || r.GetResponse().GetProducer().GetPlacements()[0].GetReason() != registryv1.PlacementReason_PLACEMENT_REASON_HINT {
				b.Fatalf("%v", r)
			}
		}
		batch.Requests = nil
	}
	fill := func(collector string, count int) {
		enlist(b, s, collector)
		for i := range count {
			batch.Requests = append(batch.Requests, &registryv1.RegisterProducerRequest{Producer: member(collector, i, 0)})
			if len(batch.GetRequests()) == 1000 {
				flush()
			}
		}
	}
	fill("large", large)
	for i := observers; i < hostile; i++ {
		fill(fmt.Sprintf("hostile-%03d", i), ownSet)
	}
	for i := range honest {
		fill(fmt.Sprintf("honest-%d", i), honestSet)
	}
	flush()
}

// member is a producer of a collector's, at a version.
func member(collector string, i, version int) *registryv1.Producer {
	id := fmt.Sprintf("%s/%05d", collector, i)
	return &registryv1.Producer{
		ProducerId: id, LastCollectorId: collector,
		Endpoint: fmt.Sprintf("http://127.0.0.1:9/metrics/%s?version=%d", id, version),
		Labels:   []*registryv1.Label{{Name: "job", Value: "bench"}, {Name: "zone", Value: "here"}},
	}
}

// enlist makes a collector known and returns what it subscribes with.
func enlist(b *testing.B, s *server, id string) *registryv1.SubscribeRequest {
	b.Helper()
	for {
		resp, err := registryv1.NewCollectorServiceClient(s.client(b)).RegisterCollector(b.Context(), &registryv1.RegisterCollectorRequest{
			Collector: &registryv1.Collector{CollectorId: id, InstanceId: id},
		})
		switch {
		case err == nil:
			return &registryv1.SubscribeRequest{CollectorId: id, InstanceId: id, Generation: resp.GetCollector().GetGeneration()}
		case grpcstatus.Code(err) != codes.Unavailable:
			b.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // it has only just started
	}
}

func observer() *registryv1.SubscribeRequest {
	return &registryv1.SubscribeRequest{CollectorId: "large", Observe: true}
}

// stopReading subscribes by HTTP/2 frames of its own making, with a window of
// nothing, and never reads a byte.
func stopReading(b *testing.B, s *server, m *registryv1.SubscribeRequest) net.Conn {
	b.Helper()
	conn, err := (&net.Dialer{}).DialContext(b.Context(), "tcp", s.address)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	body, err := proto.Marshal(m)
	if err != nil {
		b.Fatal(err)
	}
	var headers bytes.Buffer
	encoder := hpack.NewEncoder(&headers)
	for _, h := range [][2]string{
		{":method", "POST"},
		{":scheme", "http"},
		{":path", registryv1.AssignmentService_Subscribe_FullMethodName},
		{":authority", "registry"},
		{"content-type", "application/grpc"},
		{"te", "trailers"},
	} {
		if err := encoder.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
			b.Fatal(err)
		}
	}
	message := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...)
	framer := http2.NewFramer(conn, conn)
	for _, write := range []func() error{
		func() error { _, err := conn.Write([]byte(http2.ClientPreface)); return err },
		func() error { return framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}) },
		func() error {
			return framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headers.Bytes(), EndHeaders: true})
		},
		func() error { return framer.WriteData(1, true, message) },
	} {
		if err := write(); err != nil {
			b.Fatal(err)
		}
	}
	return conn
}

// churn changes producers of the hostile subscribers until ctx ends, so that
// there is always something more for them.
func churn(ctx context.Context, client registryv1.ProducerServiceClient) {
	for n := 1; ctx.Err() == nil; n++ {
		p := member("large", n%large, n)
		if n%2 == 0 {
			p = member(fmt.Sprintf("hostile-%03d", observers+n%(hostile-observers)), 0, n)
		}
		_, _ = client.RegisterProducer(ctx, &registryv1.RegisterProducerRequest{Producer: p})
		time.Sleep(pace)
	}
}
