package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"rollcall": main})
}

// TestCommand runs the scripts, each against a registry and a collector of its
// own.
func TestCommand(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Deadline:            time.Now().Add(4 * patience),
		Setup:               startPair,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits,
			"until": until,
			"lie":   lie,
			"lose":  lose,
		},
	})
}

// patience bounds every wait, also on a machine that is busy with other things.
const patience = 30 * time.Second

// startPair starts a registry, the collector collector-1 that follows it, and a
// producer, whose URL is the variable PRODUCER.
func startPair(env *testscript.Env) error {
	producer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "answers 42\n")
	}))
	env.Defer(producer.Close)
	ofRegistry, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	ofCollector, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	env.Setenv("GORACE", "atexit_sleep_ms=0") // else each command takes a second to end under the race detector
	env.Setenv("PRODUCER", producer.URL)
	env.Setenv("ROLLCALL_REGISTRY", ofRegistry.Addr().String())
	env.Setenv("ROLLCALL_COLLECTOR_ADDRESS", ofCollector.Addr().String())

	ctx, cancel := context.WithCancel(context.Background())
	quiet := slog.New(slog.DiscardHandler)
	store := registry.NewMemoryStore()
	env.Values[storeKey{}] = store
	r, err := registry.New(ctx, registry.Config{
		Listener:  ofRegistry,
		Memory:    store,
		Heartbeat: 200 * time.Millisecond,
		Logger:    quiet,
	})
	if err != nil {
		cancel()
		return err
	}
	c, err := collector.New(ctx, collector.Config{
		ID:         "collector-1",
		Registries: []string{ofRegistry.Addr().String()},
		DataDir:    filepath.Join(env.WorkDir, ".data"),
		Listener:   ofCollector,
		Logger:     quiet,
	})
	if err != nil {
		cancel()
		return err
	}
	var group errgroup.Group
	group.Go(func() error { return r.Run(ctx) })
	group.Go(func() error { return c.Run(ctx) })
	env.Defer(func() {
		cancel()
		if err := group.Wait(); err != nil {
			env.T().Log("the pair stopped with", err)
		}
	})
	return nil
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
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != want {
		ts.Fatalf("got %v, want exit code %d", err, want)
	}
	if said := ts.ReadFile("stderr"); !strings.HasPrefix(said, args[1]+": ") {
		ts.Fatalf("said %q", said)
	}
}

// until TEXT COMMAND...: run a command until it succeeds and prints the text.
func until(ts *testscript.TestScript, _ bool, args []string) {
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		err := ts.Exec(args[1], args[2:]...)
		if err == nil && strings.Contains(ts.ReadFile("stdout"), args[0]) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("still without %q after %v: %v", args[0], patience, err)
		}
	}
}

// lie NAME: run a registry that says one assignment more than it sends, and set
// the variable to its address.
func lie(ts *testscript.TestScript, _ bool, args []string) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
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
