package peers_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/peers"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sink"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"
)

// A rig is a fleet of one collector, c-1, with others that the test plays.
type rig struct {
	t     *testing.T
	store *sink.TSDB
	asked *peers.Metrics
	fleet *peers.Fleet
	scope peers.Scope
	stop  func()

	mu     sync.Mutex
	hosts  map[string]*bufconn.Listener
	listed []*registryv1.Collector
	refuse error // of the registry
}

// bubble runs a test in fake time.
func bubble(t *testing.T, test func(t *testing.T, r *rig), change ...func(*peers.Config)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, hosts: map[string]*bufconn.Listener{}}
		r.store = r.open(dir)
		r.serve("registry:1", func(s *grpc.Server) { registryv1.RegisterCollectorServiceServer(s, registryOf{r: r}) })
		c := peers.Config{
			Self: "c-1", Registries: []string{"gone:1", "registry:1"}, DialRegistry: r.dial, DialPeer: r.dial,
			Local: r.store, ScopeOf: func(context.Context) peers.Scope { return r.scope },
			Logger: slog.New(slog.DiscardHandler), Metrics: peers.NewMetrics(),
		}
		for _, f := range change {
			f(&c)
		}
		r.fleet, r.asked = peers.New(c), c.Metrics
		r.list("c-1", "c-1:1")
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			if err := r.fleet.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		r.stop = func() { cancel(); running.Wait() }
		defer r.fleet.Close()
		defer r.stop()
		synctest.Wait()
		test(t, r)
	})
}

func (r *rig) open(dir string) *sink.TSDB {
	r.t.Helper()
	store, err := sink.OpenTSDB(sink.TSDBConfig{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = store.Close() })
	return store
}

func (r *rig) dial(ctx context.Context, address string) (net.Conn, error) {
	r.mu.Lock()
	lis := r.hosts[address]
	r.mu.Unlock()
	if lis == nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	}
	return lis.DialContext(ctx)
}

// serve runs a gRPC server at an address until the test ends.
func (r *rig) serve(address string, register func(*grpc.Server)) (stop func()) {
	r.t.Helper()
	lis := bufconn.Listen(64 << 10)
	s := grpc.NewServer()
	register(s)
	r.mu.Lock()
	r.hosts[address] = lis
	r.mu.Unlock()
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(lis) })
	stop = sync.OnceFunc(func() {
		r.mu.Lock()
		delete(r.hosts, address)
		r.mu.Unlock()
		s.Stop()
		serving.Wait()
	})
	r.t.Cleanup(stop)
	return stop
}

// list has the registry name a collector, by default as one that is away: it is
// asked all the same.
func (r *rig) list(id, address string, state ...registryv1.CollectorState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := &registryv1.Collector{CollectorId: id, IntrospectionEndpoint: address, State: registryv1.CollectorState_COLLECTOR_STATE_AWAY}
	if len(state) > 0 {
		c.State = state[0]
	}
	byID := map[string]*registryv1.Collector{}
	for _, known := range r.listed {
		byID[known.GetCollectorId()] = known
	}
	byID[id] = c
	r.listed = nil
	for _, id := range slices.Sorted(maps.Keys(byID)) {
		r.listed = append(r.listed, byID[id])
	}
}

// names has the registry answer with an error, or name exactly these.
func (r *rig) names(err error, all ...*registryv1.Collector) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuse, r.listed = err, all
}

// registryOf lists what the rig has, two on a page.
type registryOf struct {
	registryv1.UnimplementedCollectorServiceServer
	r *rig
}

// ListCollectors answers a page.
func (s registryOf) ListCollectors(_ context.Context, m *registryv1.ListCollectorsRequest) (*registryv1.ListCollectorsResponse, error) {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	resp := &registryv1.ListCollectorsResponse{}
	for _, c := range s.r.listed {
		switch {
		case c.GetCollectorId() <= m.GetPageToken():
		case len(resp.GetCollectors()) == 2:
			resp.NextPageToken = resp.GetCollectors()[1].GetCollectorId()
			return resp, s.r.refuse
		default:
			resp.Collectors = append(resp.Collectors, c)
		}
	}
	return resp, s.r.refuse
}

// learn lets the fleet ask the registry again.
func (r *rig) learn() {
	time.Sleep(40 * time.Second)
	synctest.Wait()
}

// A peer is another collector as the test plays it.
type peer struct {
	collectorv1.UnimplementedCollectionServiceServer
	answer func(*collectorv1.SelectRequest, grpc.ServerStreamingServer[collectorv1.SelectResponse]) error
}

// Select answers as the test says.
func (p *peer) Select(m *collectorv1.SelectRequest, s grpc.ServerStreamingServer[collectorv1.SelectResponse]) error {
	return p.answer(m, s)
}

// play begins another collector, which the fleet knows from now on.
func (r *rig) play(id string, answer func(*collectorv1.SelectRequest, grpc.ServerStreamingServer[collectorv1.SelectResponse]) error) (stop func()) {
	r.t.Helper()
	stop = r.serve(id+":1", func(s *grpc.Server) { collectorv1.RegisterCollectionServiceServer(s, &peer{answer: answer}) })
	r.list(id, id+":1")
	r.learn()
	return stop
}

// write writes samples of a series, whose time and value are the same.
func write(t testing.TB, store *sink.TSDB, series string, times ...int64) {
	t.Helper()
	lset := labels.FromStrings("__name__", "m", "s", series)
	s := &sample.Series{Own: lset}
	for _, ms := range times {
		b := &sample.Batch{Samples: []sample.Sample{{Series: s, Time: ms, Value: float64(ms), Extra: &sample.Extra{
			Exemplars: []exemplar.Exemplar{{Labels: labels.FromStrings("id", "x"), Value: 1, Ts: ms, HasTs: true}},
		}}}}
		if refused, err := store.Append(t.Context(), b); err != nil || refused != (sink.Refused{}) {
			t.Fatal(refused, err)
		}
	}
}

var (
	everyM  = labels.MustNewMatcher(labels.MatchEqual, "__name__", "m")
	between = [2]int64{0, 1_000_000}
)

// query returns the samples of all series.
func (r *rig) query(matchers ...*labels.Matcher) (map[string][]int64, annotations.Annotations, error) {
	r.t.Helper()
	q, err := r.fleet.Querier(between[0], between[1])
	if err != nil {
		return nil, nil, err
	}
	defer q.Close()
	if len(matchers) == 0 {
		matchers = []*labels.Matcher{everyM}
	}
	return read(r.t, q.Select(r.t.Context(), true, nil, matchers...))
}

func read(t testing.TB, set storage.SeriesSet) (map[string][]int64, annotations.Annotations, error) {
	t.Helper()
	all := map[string][]int64{}
	var it chunkenc.Iterator
	for set.Next() {
		name := set.At().Labels().Get("s")
		if all[name] != nil {
			t.Errorf("series %s comes twice", name)
		}
		it = set.At().Iterator(it)
		times := []int64{}
		for it.Next() != chunkenc.ValNone {
			ms, v := it.At()
			if v != float64(ms) {
				t.Errorf("%s at %d is %v", name, ms, v)
			}
			times = append(times, ms)
		}
		if it.Err() != nil {
			t.Error(it.Err())
		}
		all[name] = times
	}
	return all, set.Warnings(), set.Err()
}

// warned tells whether there is exactly one warning, with these texts in it.
func warned(warnings annotations.Annotations, texts ...string) bool {
	if len(warnings) != 1 {
		return false
	}
	for text := range warnings {
		for _, want := range texts {
			if !strings.Contains(text, want) {
				return false
			}
		}
	}
	return true
}
