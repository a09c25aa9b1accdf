package peers_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/peers"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sink"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"
)

// BenchmarkFleet reads 10,000 series of an hour at 15 s: from the own store, and
// from another collector's over a connection.
func BenchmarkFleet(b *testing.B) {
	const series, samples = 10_000, 240
	store := func() *sink.TSDB {
		s, err := sink.OpenTSDB(sink.TSDBConfig{Dir: b.TempDir(), Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = s.Close() })
		return s
	}
	empty, full := store(), store()
	all := make([]*sample.Series, series)
	for i := range all {
		lset := labels.FromStrings("__name__", "m", "job", "api", "instance", fmt.Sprintf("10.0.%d.%d:9090", i>>8, i&255))
		all[i] = &sample.Series{Own: lset}
	}
	for n := range int64(samples) {
		batch := &sample.Batch{Samples: make([]sample.Sample, series)}
		for i, s := range all {
			batch.Samples[i] = sample.Sample{Series: s, Time: n * 15_000, Value: float64(n * int64(i))}
		}
		if _, err := full.Append(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	hosts := map[string]*bufconn.Listener{"registry:1": bufconn.Listen(1 << 20), "c-2:1": bufconn.Listen(1 << 20)}
	s := grpc.NewServer()
	collectorv1.RegisterCollectionServiceServer(s, &peer{answer: peers.NewServer(peers.ServerConfig{Self: "c-2", Store: full}).Select})
	r := &rig{hosts: hosts}
	r.list("c-2", "c-2:1")
	registryv1.RegisterCollectorServiceServer(s, registryOf{r: r})
	for _, lis := range hosts {
		go func() { _ = s.Serve(lis) }()
	}
	defer s.Stop()
	dial := func(ctx context.Context, address string) (net.Conn, error) { return hosts[address].DialContext(ctx) }
	fleet := peers.New(peers.Config{
		Self: "c-1", Registries: []string{"registry:1"}, DialRegistry: dial, DialPeer: dial, Local: empty,
		ScopeOf: func(context.Context) peers.Scope { return peers.Scope{} },
		Logger:  slog.New(slog.DiscardHandler), Metrics: peers.NewMetrics(),
	})
	go func() { _ = fleet.Run(b.Context()) }()
	defer fleet.Close()
	for name, q := range map[string]storage.Queryable{"own": full, "other": fleet} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if n := readAll(b, q); n != series*samples {
					b.Fatalf("%d samples", n)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/series/samples, "ns/sample")
		})
	}
}

func readAll(b *testing.B, from storage.Queryable) (n int) {
	b.Helper()
	q, err := from.Querier(0, 3_600_000)
	if err != nil {
		b.Fatal(err)
	}
	defer q.Close()
	set := q.Select(b.Context(), true, nil, everyM)
	var it chunkenc.Iterator
	for set.Next() {
		it = set.At().Iterator(it)
		for it.Next() != chunkenc.ValNone {
			n++
		}
	}
	if set.Err() != nil || len(set.Warnings()) > 0 {
		b.Fatal(set.Err(), set.Warnings())
	}
	return n
}
