package siege_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
)

// A port is what a service listens on, and how it is reached.
type port struct {
	net.Listener
	dial func(ctx context.Context) (net.Conn, error)
}

// inMemory is a port of this process.
func inMemory() port {
	lis := bufconn.Listen(1 << 20)
	return port{lis, lis.DialContext}
}

// onLoopback is a port of this machine.
func onLoopback() port {
	lis, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	return port{lis, func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", lis.Addr().String())
	}}
}

// connect makes a gRPC connection; in plain text with nil.
func (p port) connect(c process.ClientTLS) *grpc.ClientConn {
	conn, err := grpc.NewClient("passthrough:///port", grpc.WithTransportCredentials(c.Credentials()), grpc.WithNoProxy(),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return p.dial(ctx) }))
	if err != nil {
		panic(err)
	}
	return conn
}

// A fort is a registry and a collector that follows it.
type fort struct {
	registry, registryWeb, collector, collectorWeb port

	dir     string // of the collector
	faults  *faults
	toReg   *grpc.ClientConn
	toColl  *grpc.ClientConn
	cancel  context.CancelFunc
	running sync.WaitGroup

	armour *armour           // nil: plain text, in which everybody may do everything
	client process.ClientTLS // of toReg and toColl
	as     map[string]caller // nobody without armour
}

// A setup is what a test may change.
type setup struct {
	listen    func() port
	registry  func(*registry.Config)
	collector func(*collector.Config)

	// rogue is where a collector says that it is that registers itself before the
	// real one starts, which asks it; empty: there is none.
	rogue string

	// armed is how many connections each service may have, with armour; 0: it has
	// none.
	armed int
}

// raise starts a fort. It is razed by raze.
func raise(t testing.TB, s setup) *fort {
	t.Helper()
	dir, err := os.MkdirTemp("", "siege") //nolint:usetesting // one fort is for many inputs of the fuzzer
	if err != nil {
		t.Fatal(err)
	}
	f := &fort{registry: s.listen(), registryWeb: s.listen(), collector: s.listen(), collectorWeb: s.listen(), dir: dir, faults: newFaults(), as: map[string]caller{}}
	rc := registry.Config{
		Listener: f.registry, HTTPListener: f.registryWeb, Memory: registry.NewMemoryStore(), Heartbeat: 100 * time.Millisecond, Introspection: true,
		Logger: slog.New(f.faults), StopGrace: 100 * time.Millisecond,
		DialCollector: func(ctx context.Context, _ string) (net.Conn, error) { return f.collector.dial(ctx) },
	}
	cc := collector.Config{
		ID: "c1", Registries: []string{"registry:1"}, DataDir: filepath.Join(dir, "data"), Listener: f.collector, HTTPListener: f.collectorWeb,
		ConfigFile: filepath.Join(dir, "collector.yaml"), Introspection: true,
		Advertise: "collector:1", Logger: slog.New(f.faults), StopGrace: 100 * time.Millisecond,
		DialRegistry: func(ctx context.Context, _ string) (net.Conn, error) { return f.registry.dial(ctx) },
		DialPeer:     func(context.Context, string) (net.Conn, error) { return nil, errNobody },
		DialProducer: func(context.Context, string, string) (net.Conn, error) { return nil, errNobody },
	}
	if err := os.WriteFile(cc.ConfigFile, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s.armed > 0 {
		f.armour = f.forge(t)
		f.armour.put(t, &rc, &cc, s.armed)
	}
	if s.registry != nil {
		s.registry(&rc)
	}
	if s.collector != nil {
		s.collector(&cc)
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel = cancel
	r, err := registry.New(ctx, rc)
	if err != nil {
		t.Fatal(err)
	}
	f.run(func() error { return r.Run(ctx) })
	if f.armour != nil {
		f.admit(t)
	} else {
		f.toReg, f.toColl = f.registry.connect(nil), f.collector.connect(nil)
	}
	if s.rogue != "" {
		f.enlist(t, s.rogue)
	}
	c, err := collector.New(ctx, cc)
	if err != nil {
		t.Fatal(err)
	}
	f.run(func() error { return c.Run(ctx) })
	f.furnish(t)
	return f
}

var errNobody = errors.New("nobody is there")

func (f *fort) run(run func() error) {
	f.running.Go(func() {
		if err := run(); err != nil {
			f.faults.add("a service ended: " + err.Error())
		}
	})
}

// enlist registers a collector that says that it is somewhere.
func (f *fort) enlist(t testing.TB, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), goodTimeout)
	defer cancel()
	m := &registryv1.RegisterCollectorRequest{Collector: &registryv1.Collector{CollectorId: "rogue", InstanceId: "one", IntrospectionEndpoint: address}}
	f.ready(ctx, t, func() error {
		_, err := registryv1.NewCollectorServiceClient(f.toReg).RegisterCollector(ctx, m)
		return err
	})
}

// ready makes a call again while the registry is not ready.
func (f *fort) ready(ctx context.Context, t testing.TB, call func() error) {
	t.Helper()
	err := call()
	for status.Code(err) == codes.Unavailable && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
		err = call()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// furnish registers some producers, and waits until the collector has them.
func (f *fort) furnish(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), goodTimeout)
	defer cancel()
	for _, id := range []string{"p1", "p2", "p3"} {
		m := &registryv1.RegisterProducerRequest{
			Producer: &registryv1.Producer{ProducerId: id, Endpoint: "http://h.example:9100/metrics", Labels: []*registryv1.Label{{Name: "job", Value: id}}},
		}
		f.ready(ctx, t, func() error {
			_, err := registryv1.NewProducerServiceClient(f.toReg).RegisterProducer(ctx, m)
			return err
		})
	}
	for {
		m, err := collectorv1.NewCollectionServiceClient(f.toColl).GetMembership(ctx, &collectorv1.GetMembershipRequest{}, grpc.WaitForReady(true))
		if err != nil {
			t.Fatal(err)
		}
		if m.GetAppliedCount() == 3 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// raze stops the services.
func (f *fort) raze() {
	_, _ = f.toReg.Close(), f.toColl.Close()
	for _, c := range f.as {
		_, _ = c.toReg.Close(), c.toColl.Close()
	}
	f.cancel()
	f.running.Wait()
	_ = os.RemoveAll(f.dir)
}

// faults is a log as the commands have it, which keeps what must never be logged.
type faults struct {
	slog.Handler
	mu  sync.Mutex
	all []string
}

func newFaults() *faults {
	f := &faults{}
	f.Handler = slog.NewJSONHandler(f, nil)
	return f
}

func (f *faults) add(s string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, s)
}

// take returns the faults since the last call.
func (f *faults) take() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.all
	f.all = nil
	return strings.Join(all, "\n")
}

// maxLine bounds a line of the log. What a peer is told is bounded by the size of
// his request only, and is in it once.
const maxLine = 128 << 10

// Write looks at a line.
func (f *faults) Write(line []byte) (int, error) {
	switch {
	case bytes.Contains(line, []byte("panicked")):
		f.add(string(line))
	case len(line) > maxLine:
		f.add(fmt.Sprintf("a line of %d bytes: %.1000s", len(line), line))
	}
	return len(line), nil
}
