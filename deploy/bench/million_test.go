package bench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
)

// The size of BenchmarkMillion. The defaults keep make bench short.
var (
	millionProducers  = flag.Int("producers", 20_000, "BenchmarkMillion: how many producers register")
	millionCollectors = flag.Int("collectors", 1000, "BenchmarkMillion: how many collectors they are spread over")
	millionRenewals   = flag.Duration("renewals", 5*time.Second, "BenchmarkMillion: for how long renewals are measured")
)

const (
	// renewalsPerMinute is how many healthy producers renew.
	renewalsPerMinute = 50_000

	// peerPuts is how many records a transaction of the peer puts, peerInFlight
	// how many of them are on their way: as many as the registry has of its own.
	peerPuts     = 120
	peerInFlight = 32
)

// BenchmarkMillion measures what a large fleet costs: its registration, beside
// that of the same records in etcd, the start of a replica on what is stored,
// renewals of the healthy, and the join of all collectors.
func BenchmarkMillion(b *testing.B) {
	for b.Loop() {
		m := &million{loadBefore: loadAverage(b)}
		m.registry(b)
		m.peer(b)
		m.report(b)
	}
}

// million are the figures of one run.
type million struct {
	loadBefore string

	ours, raw filled

	start, startCPU        float64 // s
	startMemory, startHeap float64 // MiB

	renewed            int
	renewTime          float64 // s
	renewCPU, idleCPU  float64 // s in as long a time
	revisions, commits float64
	join, joinCPU      float64 // s
	joinBytes, retries float64
}

// filled is what a store took for all records.
type filled struct {
	wall, cpu, memory, disk float64 // s, s, MiB, MiB
}

func (f filled) rate() float64 { return float64(*millionProducers) / f.wall }

func (m *million) registry(b *testing.B) {
	b.Helper()
	dir := b.TempDir()
	s := startIn(b, "registry", dir)
	for i := range *millionCollectors {
		enlist(b, s, millionCollector(i))
	}
	cpu, began := s.cpu(b), time.Now()
	registerMillion(b, s)
	m.ours.wall = time.Since(began).Seconds()
	m.ours.cpu, m.ours.memory = s.cpu(b)-cpu, s.memory(b)
	s.stop()
	m.ours.disk = diskUsage(b, dir)

	began = time.Now()
	s = startIn(b, "registry", dir)
	s.awaitReady(b)
	m.start, m.startCPU = time.Since(began).Seconds(), s.cpu(b)
	m.startMemory, m.startHeap = s.memory(b), s.gauge(b, "go_memstats_heap_alloc_bytes")/(1<<20)
	m.renew(b, s)
	m.joinAll(b, s)
	s.stop()
}

func millionCollector(i int) string { return fmt.Sprintf("collector-%04d", i%*millionCollectors) }

// millionMember is a producer as many are: about 300 B in the store.
func millionMember(i int) *registryv1.Producer {
	id := fmt.Sprintf("checkout-%07d.example:9100", i)
	return &registryv1.Producer{
		ProducerId:      id,
		InstanceId:      fmt.Sprintf("6ba7b810-9dad-11d1-80b4-%012d", i),
		Endpoint:        fmt.Sprintf("http://10.%d.%d.%d:9100/metrics", i>>16&255, i>>8&255, i&255),
		LastCollectorId: millionCollector(i),
		Zone:            fmt.Sprintf("eu-west-%d", i%3),
		Labels: []*registryv1.Label{
			{Name: "env", Value: "production"},
			{Name: "host", Value: id},
			{Name: "service", Value: "checkout"},
			{Name: "team", Value: "payments"},
			{Name: "zone", Value: fmt.Sprintf("eu-west-%d", i%3)},
		},
	}
}

func registerMillion(b *testing.B, s *server) {
	b.Helper()
	client := registryv1.NewProducerServiceClient(s.client(b))
	group, ctx := errgroup.WithContext(b.Context())
	group.SetLimit(writers)
	for from := 0; from < *millionProducers; from += 1000 {
		group.Go(func() error {
			req := &registryv1.BatchRegisterProducersRequest{}
			for i := from; i < min(from+1000, *millionProducers); i++ {
				req.Requests = append(req.Requests, &registryv1.RegisterProducerRequest{Producer: millionMember(i)})
			}
			resp, err := client.BatchRegisterProducers(ctx, req)
			for _, r := range resp.GetResults() {
				if r.GetCode() != 0 || !r.GetResponse().GetChanged() {
					return fmt.Errorf("register: %v", r)
				}
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
}

// renew lets healthy producers renew at their pace, and then rests as long, to
// tell what of it is the renewals'.
func (m *million) renew(b *testing.B, s *server) {
	b.Helper()
	client := registryv1.NewProducerServiceClient(s.client(b))
	s.awaitQuiet(b)
	m.renewed = int(millionRenewals.Seconds() * renewalsPerMinute / 60)
	revision, commits, cpu, began := s.gauge(b, "rollcall_registry_view_revision"), s.commits(b), s.cpu(b), time.Now()
	group, ctx := errgroup.WithContext(b.Context())
	group.SetLimit(64)
	for n := range m.renewed {
		time.Sleep(time.Until(began.Add(time.Duration(n) * time.Minute / renewalsPerMinute)))
		group.Go(func() error {
			i := n * 7919 % *millionProducers
			resp, err := client.RegisterProducer(ctx, &registryv1.RegisterProducerRequest{Producer: millionMember(i)})
			if err == nil && resp.GetChanged() {
				err = fmt.Errorf("the renewal of %d changed something", i)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
	took := time.Since(began)
	m.renewTime, m.renewCPU = took.Seconds(), s.cpu(b)-cpu
	m.revisions, m.commits = s.gauge(b, "rollcall_registry_view_revision")-revision, s.commits(b)-commits
	cpu = s.cpu(b)
	time.Sleep(took)
	m.idleCPU = s.cpu(b) - cpu
}

// joinAll subscribes all collectors at once and waits until each has its set.
func (m *million) joinAll(b *testing.B, s *server) {
	b.Helper()
	var requests []*registryv1.SubscribeRequest
	for i := range *millionCollectors {
		requests = append(requests, enlist(b, s, millionCollector(i)))
	}
	var received counter
	conns := make([]*grpc.ClientConn, 50)
	for i := range conns {
		conns[i] = dialCounted(b, s.address, &received)
	}
	var sealed sync.WaitGroup
	var total, retries atomic.Int64
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	cpu, began := s.cpu(b), time.Now()
	for i, r := range requests {
		sealed.Go(func() {
			client := registryv1.NewAssignmentServiceClient(conns[i%len(conns)])
			count, err := readSet(ctx, client, r)
			for ; isLater(err); count, err = readSet(ctx, client, r) {
				retries.Add(1)
				time.Sleep(laterAfter(err))
			}
			if total.Add(count); err != nil {
				b.Error(err)
			}
		})
	}
	sealed.Wait()
	m.join, m.joinCPU, m.joinBytes = time.Since(began).Seconds(), s.cpu(b)-cpu, float64(received.received.Load())
	m.retries = float64(retries.Load())
	if total.Load() != int64(*millionProducers) {
		b.Errorf("%d producers were assigned", total.Load())
	}
}

// isLater tells whether a registry that has too much to send wants it tried again.
func isLater(err error) bool {
	code := grpcstatus.Code(err)
	return code == codes.Unavailable || code == codes.ResourceExhausted
}

// laterAfter is when: what the registry says, as collectors heed it.
func laterAfter(err error) time.Duration {
	for _, detail := range grpcstatus.Convert(err).Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay().AsDuration()
		}
	}
	return 100 * time.Millisecond
}

// readSet subscribes and returns the size of the set once it is sealed. The
// subscription stands until ctx ends.
func readSet(ctx context.Context, client registryv1.AssignmentServiceClient, r *registryv1.SubscribeRequest) (int64, error) {
	stream, err := client.Subscribe(ctx, r)
	for err == nil {
		var f *registryv1.SubscribeResponse
		if f, err = stream.Recv(); f.GetSnapshotEnd() != nil {
			return f.GetSnapshotEnd().GetSetCount(), nil
		}
	}
	return 0, err
}

// peer puts the same records into etcd, under the same conditions.
func (m *million) peer(b *testing.B) {
	b.Helper()
	dir := b.TempDir()
	s := startIn(b, "etcd", dir)
	client := etcdClient(b, s.address, &counter{})
	cpu, began := s.cpu(b), time.Now()
	group, ctx := errgroup.WithContext(b.Context())
	group.SetLimit(peerInFlight)
	for from := 0; from < *millionProducers; from += peerPuts {
		group.Go(func() error {
			var compares []clientv3.Cmp
			var puts []clientv3.Op
			for i := from; i < min(from+peerPuts, *millionProducers); i++ {
				id, value := millionRecord(i)
				compares = append(compares, absent("/rollcall/v1/producers/"+id), absent("/rollcall/v1/removed/"+id))
				puts = append(puts, clientv3.OpPut("/rollcall/v1/producers/"+id, value))
			}
			resp, err := client.Txn(ctx).If(compares...).Then(puts...).Commit()
			if err == nil && !resp.Succeeded {
				err = errors.New("a compare of the peer failed")
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
	m.raw.wall = time.Since(began).Seconds()
	m.raw.cpu, m.raw.memory = s.cpu(b)-cpu, s.memory(b)
	s.stop()
	m.raw.disk = diskUsage(b, dir)
}

func absent(key string) clientv3.Cmp { return clientv3.Compare(clientv3.ModRevision(key), "=", 0) }

// report tells the figures, and a line for the table.
func (m *million) report(b *testing.B) {
	b.Helper()
	n := float64(*millionProducers)
	minute := 60 / m.renewTime
	for name, value := range map[string]float64{
		"registered/s": m.ours.rate(), "etcd-puts/s": m.raw.rate(), "rate-of-etcd": m.ours.rate() / m.raw.rate(),
		"register-server-cpu-s": m.ours.cpu, "etcd-cpu-s": m.raw.cpu, "registered-MiB": m.ours.memory, "etcd-MiB": m.raw.memory,
		"disk-MiB": m.ours.disk, "etcd-disk-MiB": m.raw.disk,
		"start-s": m.start, "start-cpu-s": m.startCPU, "started-MiB": m.startMemory, "started-heap-B/producer": m.startHeap * (1 << 20) / n,
		"renewals/min": float64(m.renewed) * minute, "renewals-cpu-s/min": (m.renewCPU - m.idleCPU) * minute, "idle-cpu-s/min": m.idleCPU * minute,
		"renewals-revisions": m.revisions, "renewals-commits": m.commits,
		"join-s": m.join, "join-server-cpu-s": m.joinCPU, "join-B/item": m.joinBytes / n, "join-retries": m.retries,
	} {
		b.ReportMetric(value, name)
	}
	b.ReportMetric(0, "ns/op")
	b.Logf("\n| producers | registered/s | etcd | ratio | start to serving | renewals/min: CPU, revisions, commits | %d collectors join | load average |\n"+
		"| %d | %.0f | %.0f | %.2f | %.1f s | %.0f: %.1f s, %.0f, %.0f | %.1f s | %s; %s |",
		*millionCollectors, *millionProducers, m.ours.rate(), m.raw.rate(), m.ours.rate()/m.raw.rate(), m.start,
		float64(m.renewed)*minute, (m.renewCPU-m.idleCPU)*minute, m.revisions, m.commits, m.join, m.loadBefore, loadAverage(b))
}
