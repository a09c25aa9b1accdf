package simulation

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
)

// world is one bubble's worth of hosts.
type world struct {
	t       *testing.T
	network *network
	fleet   *fleet
	logs    io.Writer

	ctx  context.Context
	stop context.CancelFunc
	done sync.WaitGroup
}

// simulate runs a story in a bubble. Everything that it starts has ended, and no
// goroutine is left, when it returns.
func simulate(t *testing.T, story func(w *world)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, network: newNetwork(), logs: io.Discard}
		if testing.Verbose() {
			w.logs = t.Output()
		}
		w.ctx, w.stop = context.WithCancel(t.Context())
		w.fleet = newFleet(w, dir)
		defer w.done.Wait()
		defer w.stop()
		story(w)
	})
}

// settle lets everybody do what they can do at this moment.
func (w *world) settle() { synctest.Wait() }

// pass lets time go by.
func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf(format, args...)
}

func (w *world) logger(name string) *slog.Logger {
	if w.logs == io.Discard {
		return slog.New(slog.DiscardHandler) // which spares the formatting
	}
	return process.NewLogger(w.logs, slog.LevelInfo, false).With("host", name)
}

// host is a process that runs until it is killed or stopped.
type host struct {
	cancel  context.CancelFunc
	ended   chan error
	metrics *prometheus.Registry
}

func (w *world) run(metrics *prometheus.Registry, run func(ctx context.Context) error) *host {
	ctx, cancel := context.WithCancel(w.ctx)
	h := &host{cancel: cancel, ended: make(chan error, 1), metrics: metrics}
	w.done.Go(func() { h.ended <- run(ctx) })
	return h
}

// terminate asks a process to stop, and waits.
func (h *host) terminate(t *testing.T) {
	t.Helper()
	h.cancel()
	if err := <-h.ended; err != nil {
		t.Errorf("stopped with %v", err)
	}
}

// metric is the sum of a metric over all its labels, or those with a value.
func (h *host) metric(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	families, err := h.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var values []string
			for _, l := range m.GetLabel() {
				values = append(values, l.GetValue())
			}
			if len(labels) == 0 || slices.Contains(values, labels[0]) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

const registryAddress = "registry:7470"

// registry starts a registry on a store.
func (w *world) registry(store *registry.MemoryStore) *host {
	w.t.Helper()
	return w.registryAt(registryAddress, registry.Config{Memory: store})
}

// registryAt starts one of several registries.
func (w *world) registryAt(address string, c registry.Config) *host {
	w.t.Helper()
	c.Listener = w.network.listen(address)
	c.Logger = w.logger(address)
	c.Metrics = prometheus.NewRegistry()
	c.DialCollector = w.network.dialer(hostOf(address))
	r, err := registry.New(w.ctx, c)
	if err != nil {
		w.fatalf("registry: %v", err)
	}
	h := w.run(c.Metrics, r.Run)
	w.settle()
	return h
}

// collector starts a collector with its state in a directory of its own.
func (w *world) collector(id string, changes ...func(c *collector.Config)) *host {
	w.t.Helper()
	config := collector.Config{ID: id, Registries: []string{registryAddress}}
	for _, change := range changes {
		change(&config)
	}
	return w.collectorOf(config)
}

// collectorOf starts a collector whose configuration says more than its id.
func (w *world) collectorOf(c collector.Config) *host {
	w.t.Helper()
	c.Advertise = c.ID + ":7480"
	c.DataDir = w.fleet.dir + "/" + c.ID
	c.Listener = w.network.listen(c.Advertise)
	c.Logger = w.logger(c.ID)
	c.Metrics = prometheus.NewRegistry()
	c.DialRegistry = w.network.dialer(c.ID)
	c.DialProducer = w.network.dialerTCP(c.ID)
	if c.Sink == nil {
		c.Sink = discard{}
	}
	k, err := collector.New(w.ctx, c)
	if err != nil {
		w.fatalf("collector: %v", err)
	}
	h := w.run(c.Metrics, k.Run)
	w.settle()
	return h
}

// discard is a sink that keeps nothing: the producers know what was collected.
type discard struct{}

// Write takes a batch.
func (discard) Write(context.Context, *collector.Batch) error { return nil }

// client connects to a host for the time of one call.
func (w *world) client(address string, call func(conn *grpc.ClientConn) error) error {
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(w.network.dial))
	if err != nil {
		return err
	}
	err = call(conn)
	_ = conn.Close()
	return err
}

// register registers producers of the fleet.
func (w *world) register(ids ...string) {
	w.t.Helper()
	for batch := range slices.Chunk(ids, 1000) {
		req := &registryv1.BatchRegisterProducersRequest{}
		for _, id := range batch {
			req.Requests = append(req.Requests, &registryv1.RegisterProducerRequest{Producer: w.fleet.producer(id)})
		}
		var resp *registryv1.BatchRegisterProducersResponse
		err := w.client(registryAddress, func(conn *grpc.ClientConn) (err error) {
			resp, err = registryv1.NewProducerServiceClient(conn).BatchRegisterProducers(w.ctx, req)
			return err
		})
		if err != nil {
			w.fatalf("register: %v", err)
		}
		for i, r := range resp.GetResults() {
			if r.GetCode() != 0 {
				w.fatalf("register %s: %s", batch[i], r.GetMessage())
			}
		}
	}
}

func (w *world) deregister(ids ...string) {
	w.t.Helper()
	err := w.client(registryAddress, func(conn *grpc.ClientConn) error {
		for _, id := range ids {
			if _, err := registryv1.NewProducerServiceClient(conn).DeregisterProducer(w.ctx,
				&registryv1.DeregisterProducerRequest{ProducerId: id}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		w.fatalf("deregister: %v", err)
	}
}

// membership is what a collector tells of its set.
func (w *world) membership(id string) *collectorv1.GetMembershipResponse {
	w.t.Helper()
	var resp *collectorv1.GetMembershipResponse
	err := w.client(id+":7480", func(conn *grpc.ClientConn) (err error) {
		resp, err = collectorv1.NewCollectionServiceClient(conn).GetMembership(w.ctx, &collectorv1.GetMembershipRequest{})
		return err
	})
	if err != nil {
		w.fatalf("membership of %s: %v", id, err)
	}
	return resp
}

// collections is what a collector collects, by producer.
func (w *world) collections(id string) map[string]*collectorv1.Collection {
	w.t.Helper()
	all := map[string]*collectorv1.Collection{}
	err := w.client(id+":7480", func(conn *grpc.ClientConn) error {
		for token := ""; ; {
			resp, err := collectorv1.NewCollectionServiceClient(conn).ListCollections(w.ctx,
				&collectorv1.ListCollectionsRequest{PageSize: 1000, PageToken: token})
			if err != nil {
				return err
			}
			for _, c := range resp.GetCollections() {
				all[c.GetAssignment().GetProducerId()] = c
			}
			if token = resp.GetNextPageToken(); token == "" {
				return nil
			}
		}
	})
	if err != nil {
		w.fatalf("collections of %s: %v", id, err)
	}
	return all
}

// collects checks that a collector collects exactly these producers.
func (w *world) collects(id string, want ...string) {
	w.t.Helper()
	var got []string
	for producer := range w.collections(id) {
		got = append(got, producer)
	}
	slices.Sort(got)
	want = slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		w.fatalf("%s collects %s, want %s", id, brief(got), brief(want))
	}
}

func brief(ids []string) string {
	if len(ids) > 12 {
		return fmt.Sprintf("%d producers: %s ...", len(ids), strings.Join(ids[:12], " "))
	}
	return fmt.Sprintf("%d producers: %s", len(ids), strings.Join(ids, " "))
}

// fleet is all producers: one HTTP host that notes who was collected when.
type fleet struct {
	dir   string
	every time.Duration // the interval of producers

	mu   sync.Mutex
	hits map[string][]time.Time
	dead map[string]bool
}

const (
	fleetAddress = "fleet:9100"
	interval     = 10 * time.Second
)

func newFleet(w *world, dir string) *fleet {
	f := &fleet{dir: dir, every: interval, hits: map[string][]time.Time{}, dead: map[string]bool{}}
	lis := w.network.listen(fleetAddress)
	w.done.Go(func() {
		_ = process.ServeHTTP(w.ctx, http.HandlerFunc(f.serve), lis, time.Second, w.logger("fleet"))
	})
	return f
}

func (f *fleet) serve(rw http.ResponseWriter, r *http.Request) {
	id, _ := strings.CutPrefix(r.URL.Path, "/")
	f.mu.Lock()
	f.hits[id] = append(f.hits[id], time.Now())
	dead := f.dead[id]
	f.mu.Unlock()
	if dead {
		rw.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	rw.Header().Set("Content-Type", "text/plain; version=0.0.4")
	_, _ = io.WriteString(rw, "# TYPE work_total counter\nwork_total 1\n")
}

// producer is the registration of one.
func (f *fleet) producer(id string) *registryv1.Producer {
	return &registryv1.Producer{
		ProducerId: id,
		Endpoint:   "http://" + fleetAddress + "/" + id,
		Interval:   durationpb.New(f.every),
		Timeout:    durationpb.New(5 * time.Second),
	}
}

// die has producers answer nothing of use from now on.
func (f *fleet) die(ids ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ids {
		f.dead[id] = true
	}
}

// count is how often a producer was collected.
func (f *fleet) count(id string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.hits[id])
}

// gaps checks that producers were collected at least once in every interval
// between two times.
func (w *world) noGap(from, to time.Time, ids ...string) {
	w.t.Helper()
	w.fleet.mu.Lock()
	defer w.fleet.mu.Unlock()
	for _, id := range ids {
		last := from
		for _, at := range append(slices.Clone(w.fleet.hits[id]), to) {
			if at.Before(from) || at.After(to) {
				continue
			}
			if gap := at.Sub(last); gap > interval+100*time.Millisecond {
				w.t.Errorf("%s was not collected for %v before %v", id, gap, at)
			}
			last = at
		}
	}
}

// names are the first n producers.
func names(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("producer-%04d", i)
	}
	return ids
}

// crash takes a process off the network before it can say anything, and then
// ends it.
func (w *world) crash(h *host, address string) {
	w.t.Helper()
	w.network.refuse(address, true)
	w.network.reset(address)
	h.cancel()
	if err := <-h.ended; err != nil {
		w.t.Errorf("crashed with %v", err)
	}
	w.network.refuse(address, false)
}
