package registry_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// startEmbedded runs a registry on a directory, in real time, and returns when it
// knows the roll, which is on a disk.
func startEmbedded(t *testing.T, dir string) (*process, func()) {
	t.Helper()
	p, stop := startReal(t, registry.Config{DataDir: dir})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		_, err := p.DeregisterProducer(ctx, &registryv1.DeregisterProducerRequest{ProducerId: "nobody"})
		if status.Code(err) != codes.Unavailable || ctx.Err() != nil {
			return p, stop
		}
	}
}

// startReal runs a registry in real time, over a connection.
func startReal(t *testing.T, c registry.Config) (*process, func()) {
	t.Helper()
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.Listener, c.Logger = lis, slog.New(slog.DiscardHandler)
	r, err := registry.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- r.Run(ctx) }()
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 5,
			"initialBackoff": "0.2s", "maxBackoff": "1s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	p := &process{
		AssignmentServiceClient: registryv1.NewAssignmentServiceClient(conn),
		ProducerServiceClient:   registryv1.NewProducerServiceClient(conn),
		CollectorServiceClient:  registryv1.NewCollectorServiceClient(conn),
	}
	return p, func() {
		_ = conn.Close()
		cancel()
		select {
		case err := <-ran:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(time.Minute):
			t.Fatal("it does not stop")
		}
	}
}

// TestEmbedded: the whole registry over its embedded etcd. What was acknowledged
// is there after a restart; nobody else opens the directory meanwhile.
func TestEmbedded(t *testing.T) {
	dir := t.TempDir()
	p, stop := startEmbedded(t, dir)
	cmd := p.enlist(t, "c1", "a")
	s, _, _ := p.subscribe(t, cmd)
	before := p.register(t, "p")
	if _, end := snapshot(t, s); end.GetSetCount() != 1 {
		t.Errorf("%v", end)
	}
	_, err := registry.New(t.Context(), registry.Config{DataDir: dir, Logger: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, store.ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
	p.register(t, "q")
	snapshot(t, s)
	if _, err := p.DeregisterProducer(t.Context(), &registryv1.DeregisterProducerRequest{ProducerId: "q"}); err != nil {
		t.Error(err)
	}
	if _, end := snapshot(t, s); end.GetRemovalCount() != 1 || end.GetSetCount() != 1 {
		t.Errorf("%v", end)
	}
	stop()

	p, stop = startEmbedded(t, dir)
	defer stop()
	again := p.enlist(t, "c1", "a")
	if again.GetGeneration() != cmd.GetGeneration() {
		t.Errorf("generation %d after %d", again.GetGeneration(), cmd.GetGeneration())
	}
	_, begin, end := p.subscribe(t, again)
	if begin.GetEpoch() != before.GetEpoch() || begin.GetRevision() <= before.GetRevision() || end.GetSetCount() != 1 {
		t.Errorf("%v, %v after %v", begin, end, before)
	}
}
