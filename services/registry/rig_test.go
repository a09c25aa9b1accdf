package registry_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/test/bufconn"
)

// A process is a registry that runs, with one client of each service.
type process struct {
	lis, web *bufconn.Listener
	stop     context.CancelFunc
	ended    chan struct{}
	err      error // of Run, once ended is closed

	registryv1.AssignmentServiceClient
	registryv1.ProducerServiceClient
	registryv1.CollectorServiceClient
	health healthv1.HealthClient
}

// start runs a registry in the bubble until the test ends.
func start(t *testing.T, c registry.Config) *process {
	t.Helper()
	p := &process{lis: bufconn.Listen(1 << 20), web: bufconn.Listen(1 << 16), ended: make(chan struct{})}
	c.Listener, c.HTTPListener, c.Logger = p.lis, p.web, slog.New(slog.DiscardHandler)
	r, err := registry.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	p.stop = cancel
	go func() {
		defer close(p.ended)
		p.err = r.Run(ctx)
	}()
	conn, err := grpc.NewClient("passthrough:///registry", grpc.WithTransportCredentials(insecure.NewCredentials()),
		// Windows that stay: one that grows with the luck of the measured bandwidth takes all
		// that a slow reader is sent.
		grpc.WithInitialWindowSize(1<<16), grpc.WithInitialConnWindowSize(1<<16),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return p.lis.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		cancel()
		<-p.ended
	})
	p.AssignmentServiceClient = registryv1.NewAssignmentServiceClient(conn)
	p.ProducerServiceClient = registryv1.NewProducerServiceClient(conn)
	p.CollectorServiceClient = registryv1.NewCollectorServiceClient(conn)
	p.health = healthv1.NewHealthClient(conn)
	return p
}

// bubble runs a test in fake time.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

// end stops the registry, and returns how long that took.
func (p *process) end(t *testing.T) time.Duration {
	t.Helper()
	begin := time.Now()
	p.stop()
	<-p.ended
	if p.err != nil {
		t.Errorf("Run: %v", p.err)
	}
	return time.Since(begin)
}

func (p *process) register(t *testing.T, id string) *registryv1.RegisterProducerResponse {
	t.Helper()
	resp, err := p.RegisterProducer(t.Context(), &registryv1.RegisterProducerRequest{
		Producer: &registryv1.Producer{ProducerId: id, Endpoint: "http://h.example:9100/metrics"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// enlist registers a collector and returns what it subscribes with.
func (p *process) enlist(t *testing.T, id, instance string) *registryv1.SubscribeRequest {
	t.Helper()
	resp, err := p.RegisterCollector(t.Context(), &registryv1.RegisterCollectorRequest{
		Collector: &registryv1.Collector{CollectorId: id, InstanceId: instance},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &registryv1.SubscribeRequest{CollectorId: id, InstanceId: instance, Generation: resp.GetCollector().GetGeneration()}
}

type stream = grpc.ServerStreamingClient[registryv1.SubscribeResponse]

// subscribe reads the first snapshot, and returns its begin and end.
func (p *process) subscribe(t *testing.T, m *registryv1.SubscribeRequest) (stream, *registryv1.SnapshotBegin, *registryv1.SnapshotEnd) {
	t.Helper()
	s, err := p.Subscribe(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := snapshot(t, s)
	return s, begin, end
}

// snapshot reads until the next seal.
func snapshot(t *testing.T, s stream) (begin *registryv1.SnapshotBegin, end *registryv1.SnapshotEnd) {
	t.Helper()
	for end == nil {
		m, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if b := m.GetSnapshotBegin(); b != nil {
			begin = b
		}
		end = m.GetSnapshotEnd()
	}
	return begin, end
}

// get makes one HTTP request.
func (p *process) get(t *testing.T, path string) int {
	t.Helper()
	transport := &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return p.web.DialContext(ctx) },
		DisableKeepAlives: true,
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://registry"+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

var errStore = errors.New("the store is struck by the test")
