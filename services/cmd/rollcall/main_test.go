package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rogpeppe/go-internal/testscript"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"github.com/rollcall-metrics/rollcall/services/internal/scripttest"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"google.golang.org/grpc"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"rollcall": main})
}

// TestCommand runs the scripts, each against a registry and a collector of its
// own.
func TestCommand(t *testing.T) {
	params := scripttest.Params(map[string]scripttest.Word{
		"exits":    exits,
		"guarded":  guarded,
		"modes":    modes,
		"until":    until,
		"lie":      lie,
		"lose":     lose,
		"joins":    joins,
		"halts":    halts,
		"pretends": pretends,
	})
	params.Deadline = time.Now().Add(20 * scripttest.Patience)
	params.Setup = startPair
	testscript.Run(t, params)
}

// startPair starts a registry, the collector collector-1 that follows it, and a
// producer, whose URL is the variable PRODUCER.
func startPair(env *testscript.Env) error {
	producer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "answers 42\n")
	}))
	env.Defer(producer.Close)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	env.Setenv("GORACE", "atexit_sleep_ms=0") // else each command takes a second to end under the race detector
	env.Setenv("PRODUCER", producer.URL)
	env.Setenv("ROLLCALL_REGISTRY", lis.Addr().String())

	ctx, cancel := context.WithCancel(context.Background())
	store := registry.NewMemoryStore()
	env.Values[storeKey{}] = store
	r, err := registry.New(ctx, registry.Config{
		Listener:  lis,
		Memory:    store,
		Endpoints: registry.EndpointPolicy{Loopback: true},
		Heartbeat: 200 * time.Millisecond,
		// Nothing moves for balance: it would move when a script does not expect it.
		Times:  registry.Times{Ask: 200 * time.Millisecond, Weigh: time.Hour},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		cancel()
		return err
	}
	ran := make(chan error, 1)
	go func() { ran <- r.Run(ctx) }()
	env.Defer(func() {
		cancel()
		if err := <-ran; err != nil {
			env.T().Log("the registry stopped with", err)
		}
	})
	house := &house{registry: lis.Addr().String(), dir: env.WorkDir, stops: map[string]func() error{}}
	env.Values[houseKey{}] = house
	env.Defer(func() {
		for id := range house.stops {
			if err := house.stop(id); err != nil {
				env.T().Log(id, "stopped with", err)
			}
		}
	})
	address, err := house.start("collector-1")
	env.Setenv("ROLLCALL_COLLECTOR_ADDRESS", address)
	return err
}

// A house has the collectors of one registry.
type house struct {
	registry, dir string
	stops         map[string]func() error
}

// houseKey is where a script has its house.
type houseKey struct{}

// start starts a collector, and returns its address.
func (h *house) start(id string) (string, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	address := lis.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	c, err := collector.New(ctx, collector.Config{
		ID:         id,
		Registries: []string{h.registry},
		Endpoints:  collector.EndpointPolicy{Loopback: true},
		DataDir:    filepath.Join(h.dir, ".data-"+id),
		Listener:   lis,
		Advertise:  address,
		Logger:     slog.New(slog.DiscardHandler),
	})
	if err != nil {
		cancel()
		return "", err
	}
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	h.stops[id] = func() error {
		cancel()
		return <-ran
	}
	return address, nil
}

func (h *house) stop(id string) error {
	stop := h.stops[id]
	delete(h.stops, id)
	return stop()
}

func houseOf(ts *testscript.TestScript) *house {
	h, ok := ts.Value(houseKey{}).(*house)
	if !ok {
		ts.Fatalf("no collectors")
	}
	return h
}

// joins ID NAME: start one more collector, and set the variable to its address.
func joins(ts *testscript.TestScript, _ bool, args []string) {
	address, err := houseOf(ts).start(args[0])
	ts.Check(err)
	ts.Setenv(args[1], address)
}

// halts ID: stop a collector.
func halts(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(houseOf(ts).stop(args[0]))
}

// storeKey is where a script has the registry's store.
type storeKey struct{}

// lose ID...: have the registry forget producers without a word.
func lose(ts *testscript.TestScript, _ bool, args []string) {
	store, ok := ts.Value(storeKey{}).(*registry.MemoryStore)
	if !ok {
		ts.Fatalf("no store")
	}
	for _, id := range args {
		store.Delete("/rollcall/v1/producers/" + id)
	}
}

// exits CODE COMMAND...: run a command, and expect that it ends with this code
// and says something on standard error that begins with its name.
func exits(ts *testscript.TestScript, _ bool, args []string) { scripttest.Exits(ts, args) }

// guarded DIR NAME: run a registry with the certificate in a directory, and set the
// variable to its address.
func guarded(ts *testscript.TestScript, _ bool, args []string) {
	identity, lis := scripttest.Identity(ts, ts.MkAbs(args[0])), scripttest.Listen(ts, "127.0.0.1:0")
	quiet := slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	r, err := registry.New(ctx, registry.Config{
		Listener: lis, Memory: registry.NewMemoryStore(), Logger: quiet,
		ServerTLS: identity.Server(process.NewRefusals(quiet, prometheus.NewRegistry())),
	})
	ts.Check(err)
	ran := make(chan error, 1)
	go func() { ran <- r.Run(ctx) }()
	ts.Defer(func() {
		cancel()
		ts.Check(<-ran)
	})
	ts.Setenv(args[1], lis.Addr().String())
}

// modes MODE FILE: the file has these permissions.
func modes(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := strconv.FormatUint(uint64(info.Mode().Perm()), 8); got != args[0] {
		ts.Fatalf("%s has mode %s", args[1], got)
	}
}

// until TEXT COMMAND...: run a command until it succeeds and prints the text.
func until(ts *testscript.TestScript, _ bool, args []string) {
	scripttest.Poll(ts, func() error {
		err := ts.Exec(args[1], args[2:]...)
		if err == nil && !strings.Contains(ts.ReadFile("stdout"), args[0]) {
			err = fmt.Errorf("without %q", args[0])
		}
		return err
	})
}

// lie NAME: run a registry that says one assignment more than it sends, and set
// the variable to its address.
func lie(ts *testscript.TestScript, _ bool, args []string) {
	lis := scripttest.Listen(ts, "127.0.0.1:0")
	srv := grpc.NewServer()
	registryv1.RegisterAssignmentServiceServer(srv, liar{})
	go func() { _ = srv.Serve(lis) }() // until it is stopped
	ts.Defer(srv.Stop)
	ts.Setenv(args[0], lis.Addr().String())
}

type liar struct {
	registryv1.UnimplementedAssignmentServiceServer
}

func (liar) Subscribe(_ *registryv1.SubscribeRequest, stream grpc.ServerStreamingServer[registryv1.SubscribeResponse]) error {
	begin := &registryv1.SnapshotBegin{SnapshotId: 1, Epoch: "e", Revision: 1, Scope: registryv1.SnapshotScope_SNAPSHOT_SCOPE_ALL}
	end := &registryv1.SnapshotEnd{SnapshotId: 1, Epoch: "e", Revision: 1, SetCount: 1}
	return errors.Join(
		stream.Send(&registryv1.SubscribeResponse{Frame: &registryv1.SubscribeResponse_SnapshotBegin{SnapshotBegin: begin}}),
		stream.Send(&registryv1.SubscribeResponse{Frame: &registryv1.SubscribeResponse_SnapshotEnd{SnapshotEnd: end}}),
	)
}
