package bench

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/grpc"
)

// followers read what honest collectors are assigned, and time it.
type followers struct {
	client  registryv1.ProducerServiceClient
	version int

	mu      sync.Mutex // guards all below
	sent    map[string]time.Time
	applied latencies
	done    chan struct{} // gets a token for each change that is applied
}

// latencies are the times from a change to its seal at the subscriber.
type latencies []time.Duration

func newFollowers(b *testing.B, s *server) *followers {
	b.Helper()
	f := &followers{client: registryv1.NewProducerServiceClient(dial(b, s.address)), sent: map[string]time.Time{}, done: make(chan struct{}, changes)}
	var ready sync.WaitGroup
	for i := range honest {
		stream, err := registryv1.NewAssignmentServiceClient(dial(b, s.address)).Subscribe(b.Context(), enlist(b, s, fmt.Sprintf("honest-%d", i)))
		if err != nil {
			b.Fatal(err)
		}
		ready.Add(1)
		go f.follow(stream, ready.Done)
	}
	ready.Wait()
	return f
}

// follow notes, at each seal, which changes it brings.
func (f *followers) follow(stream grpc.ServerStreamingClient[registryv1.SubscribeResponse], ready func()) {
	var staged []string
	for sealed := false; ; {
		m, err := stream.Recv()
		if err != nil {
			return
		}
		for _, a := range m.GetSnapshotChunk().GetAssignments() {
			staged = append(staged, a.GetEndpoint())
		}
		if m.GetSnapshotEnd() == nil {
			continue
		}
		f.seal(staged)
		staged = nil
		if !sealed {
			sealed = true
			ready()
		}
	}
}

func (f *followers) seal(endpoints []string) {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range endpoints {
		if at, changed := f.sent[e]; changed {
			delete(f.sent, e)
			f.applied = append(f.applied, now.Sub(at))
			f.done <- struct{}{}
		}
	}
}

// measure makes so many changes, one after another at the pace, and waits until
// all of them are applied. Meanwhile others change, too.
func (f *followers) measure(b *testing.B, count int) latencies {
	b.Helper()
	ctx, stop := context.WithCancel(b.Context())
	var churning sync.WaitGroup
	churning.Go(func() { churn(ctx, f.client) })
	for i := range count {
		f.version++
		p := member(fmt.Sprintf("honest-%d", i%honest), i/honest%honestSet, f.version)
		f.mu.Lock()
		f.sent[p.GetEndpoint()] = time.Now()
		f.mu.Unlock()
		if _, err := f.client.RegisterProducer(ctx, &registryv1.RegisterProducerRequest{Producer: p}); err != nil {
			b.Fatal(err)
		}
		time.Sleep(pace)
	}
	for range count {
		<-f.done
	}
	stop()
	churning.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.applied
	f.applied = nil
	slices.Sort(all)
	return all
}

func (l latencies) p50() float64 { return milliseconds(l[len(l)/2]) }
func (l latencies) p99() float64 { return milliseconds(l[len(l)*99/100]) }

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func (l latencies) report(b *testing.B, name string) {
	b.Helper()
	b.ReportMetric(l.p50(), name+"-p50-ms")
	b.ReportMetric(l.p99(), name+"-p99-ms")
}

// client is a connection to the server, made once.
func (s *server) client(b *testing.B) *grpc.ClientConn {
	b.Helper()
	if s.conn == nil {
		s.conn = dial(b, s.address)
	}
	return s.conn
}

// heap is the server's heap in use, in MiB, by its own metrics.
func (s *server) heap(b *testing.B) float64 {
	b.Helper()
	return s.gauge(b, "go_memstats_heap_inuse_bytes") / (1 << 20)
}

// gauge is one of the server's metrics that has no labels.
func (s *server) gauge(b *testing.B, name string) float64 {
	b.Helper()
	value, ok := s.metrics(b)[name]
	if !ok {
		b.Fatalf("no metric %s", name)
	}
	return value
}

// metrics are all of the server's, by name and labels.
func (s *server) metrics(b *testing.B) map[string]float64 {
	b.Helper()
	resp, err := s.ask("/metrics")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	all := map[string]float64{}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		at := strings.LastIndexByte(lines.Text(), ' ')
		if at < 0 || lines.Text()[0] == '#' {
			continue
		}
		n, err := strconv.ParseFloat(lines.Text()[at+1:], 64)
		if err != nil {
			b.Fatal(err)
		}
		all[lines.Text()[:at]] = n
	}
	return all
}
