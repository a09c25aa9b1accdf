package bench

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"testing"
	"time"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/collector"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
)

// items is the size of the set: 16 B of key and about 100 B of value each.
const items = 100_000

// writers is how many batches are on their way at a time.
const writers = 4

// BenchmarkMembership registers a set, and has one subscriber take it whole: the
// registry with a whole collector (all checks, state file, schedule), and etcd
// with a client that reads a prefix into a map and watches it. Writes are
// durable in both.
func BenchmarkMembership(b *testing.B) {
	b.Run("rollcall", func(b *testing.B) {
		for b.Loop() {
			benchRollcall(b)
		}
	})
	b.Run("etcd", func(b *testing.B) {
		for b.Loop() {
			benchEtcd(b)
		}
	})
}

func benchRollcall(b *testing.B) {
	heap := heapInUse()
	s := start(b, "registry")
	conn := dial(b, s.address)
	ctx := b.Context()

	// The collector must be known and live once for the set to be its own.
	first := startCollector(b, s.address, b.TempDir(), &counter{})
	first.await(b, 0)
	began := time.Now()
	registerAll(ctx, b, conn)
	registered := time.Since(began)
	first.await(b, items)
	caught := time.Since(began)
	first.stop()

	var received counter
	cpu := s.cpu(b)
	runtime.GC()
	began = time.Now()
	own := ownCPU(b)
	second := startCollector(b, s.address, b.TempDir(), &received)
	second.await(b, items)
	took := time.Since(began)
	b.ReportMetric(ownCPU(b)-own, "client-cpu-s")
	b.ReportMetric(registered.Seconds(), "register-s")
	b.ReportMetric(caught.Seconds(), "registered-and-applied-s")
	b.ReportMetric(took.Seconds(), "subscribe-to-applied-s")
	b.ReportMetric(s.cpu(b)-cpu, "server-cpu-s")
	b.ReportMetric(s.memory(b), "server-MiB")
	b.ReportMetric((heapInUse()-heap)/(1<<20), "client-heap-MiB")
	b.ReportMetric(float64(received.received.Load())/items, "B/item")
	second.stop()
	b.ReportMetric(0, "ns/op")
}

func registerAll(ctx context.Context, b *testing.B, conn *grpc.ClientConn) {
	b.Helper()
	client := registryv1.NewProducerServiceClient(conn)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(writers)
	for batch := range slices.Chunk(keys(), 1000) {
		group.Go(func() error {
			req := &registryv1.BatchRegisterProducersRequest{}
			for _, key := range batch {
				req.Requests = append(req.Requests, &registryv1.RegisterProducerRequest{Producer: &registryv1.Producer{
					ProducerId: key,
					Endpoint:   "http://127.0.0.1:9/metrics/" + key,
					Interval:   durationpb.New(24 * time.Hour),
					Timeout:    durationpb.New(time.Second),
					Labels:     []*registryv1.Label{{Name: "job", Value: "bench"}, {Name: "zone", Value: "here"}},
				}})
			}
			resp, err := client.BatchRegisterProducers(ctx, req)
			for _, r := range resp.GetResults() {
				if r.GetCode() != 0 {
					return fmt.Errorf("register: %s", r.GetMessage())
				}
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
}

// running is a collector in this process.
type running struct {
	cancel context.CancelFunc
	ended  chan struct{}
	client collectorv1.CollectionServiceClient
}

func startCollector(b *testing.B, registry, dir string, received *counter) *running {
	b.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	c, err := collector.New(b.Context(), collector.Config{
		ID:           "bench",
		Endpoints:    collector.EndpointPolicy{Loopback: true},
		Registries:   []string{registry},
		DataDir:      dir,
		Listener:     lis,
		Logger:       slog.New(slog.DiscardHandler),
		DialRegistry: received.dial,
		DialProducer: nobody,
		Sink:         discard{},
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{cancel: cancel, ended: make(chan struct{}), client: collectorv1.NewCollectionServiceClient(dial(b, lis.Addr().String()))}
	go func() {
		defer close(r.ended)
		_ = c.Run(ctx) // a figure, not a verdict on the stop
	}()
	return r
}

func (r *running) stop() {
	r.cancel()
	<-r.ended
}

// await waits until the collector collects so many producers and is subscribed.
func (r *running) await(b *testing.B, count int64) {
	b.Helper()
	for {
		m, err := r.client.GetMembership(b.Context(), &collectorv1.GetMembershipRequest{}, grpc.WaitForReady(true))
		if err != nil {
			b.Fatal(err)
		}
		if m.GetSubscribed() && m.GetAppliedCount() == count {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// nobody answers: what is measured is the membership.
func nobody(ctx context.Context, _, _ string) (net.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

type discard struct{}

func (discard) Write(context.Context, *collector.Batch) error { return nil }

func benchEtcd(b *testing.B) {
	s := start(b, "etcd")
	ctx := b.Context()
	writer := etcdClient(b, s.address, &counter{})
	value := string(make([]byte, 100))
	began := time.Now()
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(writers)
	for batch := range slices.Chunk(keys(), 120) {
		group.Go(func() error {
			var ops []clientv3.Op
			for _, key := range batch {
				ops = append(ops, clientv3.OpPut(key, value))
			}
			_, err := writer.Txn(gctx).Then(ops...).Commit()
			return err
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
	registered := time.Since(began)

	var received counter
	reader := etcdClient(b, s.address, &received)
	cpu := s.cpu(b)
	heap := heapInUse()
	began = time.Now()
	own := ownCPU(b)
	set := readPrefix(ctx, b, reader)
	took := time.Since(began)
	b.ReportMetric(ownCPU(b)-own, "client-cpu-s")
	if len(set) != items {
		b.Fatalf("read %d items", len(set))
	}
	b.ReportMetric(registered.Seconds(), "register-s")
	b.ReportMetric(took.Seconds(), "subscribe-to-applied-s")
	b.ReportMetric(s.cpu(b)-cpu, "server-cpu-s")
	b.ReportMetric(s.memory(b), "server-MiB")
	b.ReportMetric((heapInUse()-heap)/(1<<20), "client-heap-MiB")
	b.ReportMetric(float64(received.received.Load())/items, "B/item")
	b.ReportMetric(0, "ns/op")
	runtime.KeepAlive(set)
}

// readPrefix reads in pages at one revision, and then watches from there.
func readPrefix(ctx context.Context, b *testing.B, c *clientv3.Client) map[string][]byte {
	b.Helper()
	set := make(map[string][]byte)
	from, revision := "k", int64(0)
	for {
		resp, err := c.Get(ctx, from, clientv3.WithRange("l"), clientv3.WithLimit(10_000), clientv3.WithRev(revision))
		if err != nil {
			b.Fatal(err)
		}
		revision = resp.Header.Revision
		for _, kv := range resp.Kvs {
			set[string(kv.Key)] = kv.Value
		}
		if !resp.More {
			break
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
	watch := c.Watch(ctx, "k", clientv3.WithRange("l"), clientv3.WithRev(revision+1), clientv3.WithCreatedNotify())
	<-watch
	return set
}

func etcdClient(b *testing.B, address string, received *counter) *clientv3.Client {
	b.Helper()
	c, err := clientv3.New(clientv3.Config{
		Endpoints:          []string{address},
		MaxCallRecvMsgSize: 64 << 20,
		DialOptions:        []grpc.DialOption{grpc.WithContextDialer(received.dial)},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	return c
}

func dial(b *testing.B, address string) *grpc.ClientConn {
	b.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	return conn
}

// keys are 16 B each.
func keys() []string {
	all := make([]string, items)
	for i := range all {
		all[i] = fmt.Sprintf("k%015d", i)
	}
	return all
}

func heapInUse() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapInuse)
}
