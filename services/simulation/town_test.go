package simulation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	townRegistries = 2
	townCollectors = 3
	townProducers  = 20

	// townMassLease is short, or three deaths would be a mass for longer than a
	// quiet time.
	townMassLease = 20 * time.Second
)

// A town is what a script is played in: registries over one store, collectors
// that follow them, and producers, each with all the faults that it can have.
type town struct {
	*world
	random     *rand.Rand
	store      *registry.MemoryStore
	empty      *registry.MemorySnapshot
	backup     *registry.MemorySnapshot
	registries []*registryNode
	collectors []*collectorNode
	journal    *journal
	agenda     []appointment
	faults     map[string]int
	begun      time.Time
	step       string // what is being played
	mangled    int    // counts manglers
	manglers   []*mangler
}

// An appointment is the end of a fault.
type appointment struct {
	at     time.Time
	what   func()
	recurs bool // not an end
}

// A node is one process, or the want of one.
type node struct {
	town *town
	name string
	host *host            // nil while it is down
	conn *grpc.ClientConn // from outside, while it is up
}

type registryNode struct {
	node
	gate   *gate
	forked *registry.MemoryStore // used in place of the town's; nil: none
}

type collectorNode struct {
	node
	disk *disk
	step atomic.Int64 // how far its wall clock is ahead
	twin *host

	// drained tells that a drain of it stands.
	drained bool
}

// playTown plays a script in a bubble and returns what was violated.
func playTown(t *testing.T, seed uint64, script []step) (violations []string, faults map[string]int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, network: newNetwork(), logs: io.Discard}
		if *verboseLogs {
			w.logs = t.Output()
		}
		w.ctx, w.stop = context.WithCancel(t.Context())
		defer w.done.Wait()
		defer w.stop()
		town := newTown(w, seed)
		town.play(script)
		town.close()
		violations, faults = town.journal.violations, town.faults
	})
	return violations, faults
}

func newTown(w *world, seed uint64) *town {
	t := &town{
		world:  w,
		random: rand.New(rand.NewPCG(seed, 1)),
		store:  registry.NewMemoryStore(),
		faults: map[string]int{},
	}
	t.journal = newJournal(t)
	t.empty = t.store.Snapshot()
	t.backup = t.empty
	for i := range townRegistries {
		r := &registryNode{node: node{town: t, name: fmt.Sprintf("r-%d", i+1)}}
		t.registries = append(t.registries, r)
		r.start()
	}
	for i := range townCollectors {
		c := &collectorNode{node: node{town: t, name: fmt.Sprintf("c-%d", i+1)}, disk: newDisk()}
		t.collectors = append(t.collectors, c)
		c.start()
	}
	return t
}

func (t *town) close() {
	t.takeManglersAway()
	for _, c := range t.collectors {
		c.endTwin()
		c.crash()
	}
	for _, r := range t.registries {
		r.crash()
	}
}

func (n *node) address() string {
	if n.name[0] == 'r' {
		return n.name + ":7470"
	}
	return n.name + ":7480"
}

// begin runs a process and connects to it from outside.
func (n *node) begin(metrics *prometheus.Registry, run func(context.Context) error) {
	n.host = n.town.run(metrics, run)
	conn, err := grpc.NewClient("passthrough:///"+n.address(),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(n.town.network.dial))
	if err != nil {
		n.town.fatalf("%s: %v", n.name, err)
	}
	n.conn = conn
}

// kill takes a process off the network, and then ends it.
func (n *node) kill() {
	n.town.network.freeze(n.name, false)
	n.town.network.refuse(n.name, true)
	n.town.network.each(func(l *link) bool { return l.from == n.name || hostOf(l.address) == n.name },
		func(l *link) { _ = l.Close() })
	n.end()
}

// end asks a process to end, and waits.
func (n *node) end() {
	n.town.await(n.name, n.host)
	_ = n.conn.Close()
	n.host, n.conn = nil, nil
}

// await asks a process to end, and waits. However it is treated, it ends without
// an error.
func (t *town) await(name string, h *host) {
	h.cancel()
	if err := <-h.ended; err != nil {
		t.journal.violate("%s ended with %v", name, err)
	}
}

// lives judges that a process has not ended by itself.
func (n *node) lives() {
	if n.host == nil {
		return
	}
	select {
	case err := <-n.host.ended:
		n.host.ended <- nil // for whoever ends it
		n.town.journal.violate("%s ended by itself: %v", n.name, err)
	default:
	}
}

// call lets a caller from outside ask a process, for a bounded time.
func (n *node) call(ask func(ctx context.Context, conn *grpc.ClientConn) error) error {
	if n.conn == nil {
		return errors.New("it is down")
	}
	ctx, cancel := context.WithTimeout(n.town.ctx, 3*time.Second)
	defer cancel()
	return ask(ctx, n.conn)
}

// start starts the registry, unless it runs.
func (r *registryNode) start() {
	if r.host != nil {
		return
	}
	store := r.town.store
	if r.forked != nil {
		store = r.forked
	}
	r.gate = newGate()
	metrics := prometheus.NewRegistry()
	r.town.network.refuse(r.name, false)
	reg, err := registry.New(r.town.ctx, registry.Config{
		DialCollector: r.town.network.dialer(r.name),
		Listener:      r.town.network.listen(r.address()),
		Memory:        store,
		MemoryFaults:  r.gate.check,
		Times:         registry.Times{MassLease: townMassLease},
		Logger:        r.town.logger(r.name),
		Metrics:       metrics,
	})
	if err != nil {
		r.town.fatalf("%s: %v", r.name, err)
	}
	r.begin(metrics, reg.Run)
}

// crash kills the registry: its sessions stand until the store lets them go.
func (r *registryNode) crash() {
	if r.host == nil {
		return
	}
	r.gate.set(gateDead, 0)
	r.kill()
}

// terminate stops the registry as an operator does.
func (r *registryNode) terminate() {
	if r.host == nil {
		return
	}
	r.end()
	r.gate.set(gateDead, 0)
}

const stateDir = "state" // on a collector's own disk

// start starts the collector, unless it runs.
func (c *collectorNode) start() {
	if c.host != nil {
		return
	}
	c.town.network.refuse(c.name, false)
	metrics := prometheus.NewRegistry()
	k, stop := c.assemble(c.name, c.disk, metrics)
	c.begin(metrics, func(ctx context.Context) error {
		defer stop()
		return k.Run(ctx)
	})
}

// assemble makes a process of the collector under a host's name of its own.
func (c *collectorNode) assemble(name string, d *disk, metrics *prometheus.Registry) (*collector.Collector, func()) {
	t := c.town
	square := &square{name: name, journal: t.journal}
	stop := square.open(t.world)
	dial := t.network.dialer(name)
	var registries []string
	for i := range t.registries { // each begins with another one
		registries = append(registries, t.registries[(i+int(c.name[2]))%len(t.registries)].address())
	}
	k, err := collector.New(t.ctx, collector.Config{
		ID:           c.name,
		Registries:   registries,
		DataDir:      stateDir,
		Listener:     t.network.listen(name + ":7480"),
		Advertise:    c.address(),
		Logger:       t.logger(name),
		Metrics:      metrics,
		DialRegistry: dial,
		DialProducer: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, square.address()) },
		Sink:         discard{},
		StateFS:      d.begin(),
		Now:          func() time.Time { return time.Now().Add(time.Duration(c.step.Load())) },
	})
	if err != nil {
		t.fatalf("%s: %v", name, err)
	}
	return k, stop
}

// crash kills the collector. What its disk had not synced may be lost.
func (c *collectorNode) crash() {
	if c.host == nil {
		return
	}
	c.disk.crash(func(unsynced int) int { return c.town.random.IntN(unsynced + 1) })
	c.town.journal.impair(c.name, crashed)
	c.kill()
}

// terminate stops the collector as an operator does.
func (c *collectorNode) terminate() {
	if c.host == nil {
		return
	}
	c.town.journal.impair(c.name, crashed)
	c.end()
}

// beginTwin starts a second process with the collector's id and an empty disk.
func (c *collectorNode) beginTwin() {
	if c.twin != nil {
		return
	}
	metrics := prometheus.NewRegistry()
	name := c.name + "-twin"
	c.town.network.refuse(name, false)
	k, stop := c.assemble(name, newDisk(), metrics)
	c.twin = c.town.run(metrics, func(ctx context.Context) error {
		defer stop()
		return k.Run(ctx)
	})
}

// endTwin ends it, and starts the collector anew: an instance that was replaced
// does not come back by itself.
func (c *collectorNode) endTwin() {
	if c.twin == nil {
		return
	}
	c.town.journal.bury(c.name + "-twin")
	c.town.network.refuse(c.name+"-twin", true)
	c.town.network.each(func(l *link) bool { return l.from == c.name+"-twin" }, func(l *link) { _ = l.Close() })
	c.town.await(c.name+"-twin", c.twin)
	c.twin = nil
	if c.host != nil {
		c.crash()
		c.start()
		c.town.journal.mend(c.name, crashed)
	}
}

// A square is where all producers are reached by one process.
type square struct {
	name    string
	journal *journal
}

func (s *square) address() string { return "square-of-" + s.name + ":80" }

func (s *square) open(w *world) (stop func()) {
	ctx, cancel := context.WithCancel(w.ctx)
	lis := w.network.listen(s.address())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = process.ServeHTTP(ctx, http.HandlerFunc(s.serve), lis, 0, slog.New(slog.DiscardHandler))
	}()
	return func() { cancel(); <-ended }
}

func (s *square) serve(rw http.ResponseWriter, r *http.Request) {
	switch s.journal.pulled(s.name, r.URL.Path[1:]) {
	case "error":
		http.Error(rw, "not now", http.StatusServiceUnavailable)
	case "hang":
		<-r.Context().Done()
	case "reset":
		panic(http.ErrAbortHandler)
	default:
		rw.Header().Set("Rollcall-Producer", r.URL.Path[1:]) // for all of them share an address
		rw.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = io.WriteString(rw, "# TYPE work_total counter\nwork_total 1\n")
	}
}
