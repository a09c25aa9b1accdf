package api_test

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/api"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/feed"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
)

const (
	heartbeat  = 5 * time.Second
	renewAfter = 200 * time.Second
)

// A rig is the API on a real gRPC server, over a store in memory.
type rig struct {
	memory    *store.Memory
	feed      *feed.Feed
	registrar *registrar.Registrar
	metrics   *api.Metrics
	listener  *bufconn.Listener

	registryv1.AssignmentServiceClient
	registryv1.ProducerServiceClient
	registryv1.CollectorServiceClient
	registryv1.PlacementServiceClient
}

// setup is what a test may change before the server starts.
type setup struct {
	prepare func(t testing.TB, m *store.Memory)
	stream  grpc.StreamServerInterceptor // innermost

	// Bounds; 0: their defaults.
	subscriptions, collectors, snapshots int

	registrations int // a second and peer; 0: no bound
}

// bubble runs a test in fake time against a registry that serves.
func bubble(t *testing.T, s setup, test func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, s)
		if err := r.registrar.AwaitServing(t.Context()); err != nil {
			t.Fatal(err)
		}
		test(t, r)
	})
}

func newRig(t testing.TB, s setup) *rig {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	r := &rig{memory: store.NewMemory(), feed: feed.New(heartbeat), metrics: api.NewMetrics(), listener: bufconn.Listen(1 << 20)}
	if s.prepare != nil {
		s.prepare(t, r.memory)
	}
	opened := r.memory.Open()
	r.registrar = registrar.New(registrar.Config{
		Store: opened, Feed: r.feed, Instance: "registry-1", SameStored: api.SameStored, MarksOf: api.MarksOf,
		MaxCollectors: s.collectors, Logger: logger, Metrics: registrar.NewMetrics(),
	})
	streams := []grpc.StreamServerInterceptor{api.StreamErrors(logger)}
	if s.stream != nil {
		streams = append(streams, s.stream)
	}
	server, _ := process.NewGRPCServer(process.GRPCConfig{
		Logger: logger, Registerer: prometheus.NewRegistry(), Stream: streams,
		Unary:   []grpc.UnaryServerInterceptor{api.UnaryErrors(logger)},
		Options: []grpc.ServerOption{grpc.ForceServerCodecV2(wire.Codec()), grpc.WaitForHandlers(true)},
	})
	api.New(api.Config{
		Registrar: r.registrar, Instance: "registry-1", Endpoints: endpoint.Policy{}, RenewAfter: renewAfter,
		Heartbeat: heartbeat, MaxSubscriptions: s.subscriptions, MaxSnapshots: s.snapshots, RegistrationRate: s.registrations, Logger: logger, Metrics: r.metrics,
	}).Register(server)

	ctx, cancel := context.WithCancel(t.Context())
	ran, served := make(chan error, 1), make(chan error, 1)
	go func() { ran <- r.registrar.Run(ctx) }()
	go func() { served <- server.Serve(r.listener) }()
	t.Cleanup(func() {
		server.Stop()
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("registrar: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("server: %v", err)
		}
		_ = opened.Close()
	})
	conn := r.dial(t)
	r.AssignmentServiceClient, r.ProducerServiceClient = registryv1.NewAssignmentServiceClient(conn), registryv1.NewProducerServiceClient(conn)
	r.CollectorServiceClient, r.PlacementServiceClient = registryv1.NewCollectorServiceClient(conn), registryv1.NewPlacementServiceClient(conn)
	return r
}

// dial makes one more connection.
func (r *rig) dial(t testing.TB) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///registry", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return r.listener.DialContext(ctx) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// producer is a valid registration.
func producer(id string) *registryv1.Producer {
	return &registryv1.Producer{ProducerId: id, Endpoint: "http://h.example:9100/metrics"}
}

// register registers a producer, which must succeed.
func (r *rig) register(t *testing.T, p *registryv1.Producer) *registryv1.RegisterProducerResponse {
	t.Helper()
	resp, err := r.RegisterProducer(t.Context(), &registryv1.RegisterProducerRequest{Producer: p})
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// enlist registers a collector and returns what it subscribes with.
func (r *rig) enlist(t testing.TB, id, instance string) *registryv1.SubscribeRequest {
	t.Helper()
	resp, err := r.RegisterCollector(t.Context(), &registryv1.RegisterCollectorRequest{
		Collector: &registryv1.Collector{CollectorId: id, InstanceId: instance},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &registryv1.SubscribeRequest{CollectorId: id, InstanceId: instance, Generation: resp.GetCollector().GetGeneration()}
}

// A fault is what a failed call tells, taken apart.
type fault struct {
	code   codes.Code
	reason string
	fields []string
	retry  time.Duration
}

func faultOf(t *testing.T, err error) fault {
	t.Helper()
	s, ok := status.FromError(err)
	if !ok {
		t.Fatalf("%v is no status", err)
	}
	f := fault{code: s.Code()}
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			f.reason = d.GetReason()
			if d.GetDomain() != "rollcall" {
				t.Errorf("domain %q", d.GetDomain())
			}
		case *errdetails.RetryInfo:
			f.retry = d.GetRetryDelay().AsDuration()
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				f.fields = append(f.fields, v.GetField())
				if v.GetDescription() == "" {
					t.Errorf("%s: no description", v.GetField())
				}
			}
		default:
			t.Errorf("unknown detail %T", d)
		}
	}
	if err != nil && s.Message() == "" {
		t.Error("an error without a message")
	}
	return f
}
