package registry_test

import (
	"context"
	"crypto/tls"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rollcall-metrics/rollcall/services/internal/access"
	"github.com/rollcall-metrics/rollcall/services/internal/auth/authtest"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"
)

// The services' paths, short.
const (
	assignments = "/rollcall.registry.v1.AssignmentService/"
	collectors  = "/rollcall.registry.v1.CollectorService/"
	placements  = "/rollcall.registry.v1.PlacementService/"
	producers   = "/rollcall.registry.v1.ProducerService/"
)

// calls is who may call what: p-1 is the producer, c-1 the collector.
var calls = slices.Concat([]authtest.Row{
	{assignments + "Subscribe", `collector_id: "c-1"`, "collector"},
	{assignments + "Subscribe", `collector_id: "c-2"`, ""},
	{assignments + "Subscribe", ``, ""},
	{assignments + "Subscribe", `collector_id: "c-1" observe: true`, "operator reader"},
	{assignments + "Subscribe", `collector_id: "c-2" observe: true`, "operator reader"},
	{assignments + "Acknowledge", `collector_id: "c-1"`, "collector"},
	{assignments + "Acknowledge", `collector_id: "c-2"`, ""},
	{assignments + "Acknowledge", ``, ""},

	{collectors + "RegisterCollector", `collector {collector_id: "c-1"}`, "collector"},
	{collectors + "RegisterCollector", `collector {collector_id: "c-2"}`, ""},
	{collectors + "RegisterCollector", ``, ""},
	{collectors + "GetCollector", `collector_id: "c-1"`, "collector registry operator reader"},
	{collectors + "GetCollector", `collector_id: "c-2"`, "collector registry operator reader"},
	{collectors + "ListCollectors", ``, "collector registry operator reader"},
	{collectors + "DrainCollector", `collector_id: "c-1"`, "operator"},
	{collectors + "DrainCollector", `collector_id: "c-1" until_restart: true`, "collector operator"},
	{collectors + "DrainCollector", `collector_id: "c-1" until_restart: true validate_only: true`, "collector operator"},
	{collectors + "DrainCollector", `collector_id: "c-1" validate_only: true`, "operator"},
	{collectors + "DrainCollector", `collector_id: "c-2" until_restart: true`, "operator"},
	{collectors + "UndrainCollector", `collector_id: "c-1"`, "operator"},
	{collectors + "ExpungeCollector", `collector_id: "c-1"`, "operator"},

	{placements + "PreviewRebalance", ``, "operator reader"},
	{placements + "Rebalance", ``, "operator"},
	{placements + "MoveProducer", `producer_id: "p-1" collector_id: "c-1"`, "operator"},
	{placements + "AdoptProducers", `collector_id: "c-1" assignments {producer_id: "p-1"}`, "operator"},
	{placements + "ConfirmExpiry", `mode: EXPIRY_MODE_AUTO`, "operator"},

	{producers + "RegisterProducer", `producer {producer_id: "p-1"}`, "producer operator"},
	{producers + "RegisterProducer", `producer {producer_id: "p-2"}`, "operator"},
	{producers + "RegisterProducer", `producer {producer_id: "p-1/x"}`, "operator"},
	{producers + "RegisterProducer", `producer {producer_id: "rollcall/collector/c-1"}`, "collector operator"},
	{producers + "RegisterProducer", `producer {producer_id: "rollcall/collector/c-2"}`, "operator"},
	{producers + "RegisterProducer", ``, "operator"},
	{producers + "BatchRegisterProducers", `requests {producer {producer_id: "p-1"}}`, "producer operator"},
	{producers + "BatchRegisterProducers", `requests {producer {producer_id: "p-1"}} requests {producer {producer_id: "p-2"}}`, "operator"},
	{producers + "BatchRegisterProducers", `requests {producer {producer_id: "p-1"}} requests {}`, "operator"},
	{producers + "BatchRegisterProducers", `requests {producer {producer_id: "rollcall/collector/c-1"}}`, "collector operator"},
	{producers + "BatchRegisterProducers", ``, "operator"},
	{producers + "DeregisterProducer", `producer_id: "p-1"`, "producer operator"},
	{producers + "DeregisterProducer", `producer_id: "p-2"`, "operator"},
	{producers + "DeregisterProducer", `producer_id: "rollcall/collector/c-1"`, "collector operator"},
	{producers + "DeregisterProducer", ``, "operator"},
	{producers + "GetProducer", `producer_id: "p-1"`, "producer operator reader"},
	{producers + "GetProducer", `producer_id: "p-2"`, "operator reader"},
	{producers + "GetProducer", `producer_id: "rollcall/collector/c-1"`, "collector operator reader"},
	{producers + "ListProducers", ``, "operator reader"},
}, authtest.OfEveryServer())

// requests is the same for HTTP.
var requests = []authtest.Row{
	{"GET", "/healthz", authtest.Everybody},
	{"GET", "/readyz", authtest.Everybody},
	{"GET", "/metrics", "collector operator reader"},
	{"POST", "/metrics", "operator"},
	{"GET", "/debug/pprof/", "operator"},
	{"GET", "/", "operator"},
	{"GET", "/healthz/", "operator"},
	{"GET", "//healthz", "operator"},
	{"GET", "/debug/../healthz", "operator"},
	{"GET", "/healthz/..%2fmetrics", "operator"},
}

// names are the callers.
var names = authtest.Names()

// A fortress is a registry that asks who calls.
type fortress struct {
	lis, web *bufconn.Listener
	registry *registry.Registry
	ca       *authtest.CA
	log      *authtest.Lines
}

// defaults are the default rules. They are the same for each call, as in a process:
// other ones would have streams judged anew at every frame.
func defaults() func() *access.Rules {
	rules := access.Default()
	return func() *access.Rules { return rules }
}

// fortify runs one in the bubble until the test ends.
func fortify(t *testing.T, rules func() *access.Rules, more func(*registry.Config)) *fortress {
	t.Helper()
	f := &fortress{lis: bufconn.Listen(1 << 20), web: bufconn.Listen(1 << 16), ca: authtest.NewCA(t), log: &authtest.Lines{}}
	config := registry.Config{
		Introspection: true,
		Listener:      f.lis, HTTPListener: f.web, Memory: registry.NewMemoryStore(), ServerTLS: f.ca.Server(t), Access: rules,
		SelfID: "rollcall/registry/r-1", SelfEndpoint: "https://registry.example:7471/metrics",
		Logger: slog.New(f.log), Metrics: prometheus.NewRegistry(),
	}
	if more != nil {
		more(&config)
	}
	var err error
	if f.registry, err = registry.New(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := f.registry.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	synctest.Wait() // by now it knows the roll
	return f
}

// dial connects as one who has a certificate with a name, or none.
func (f *fortress) dial(t *testing.T, name string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	return f.ca.Dial(t, f.lis, f.certify(t, name), options...)
}

func (f *fortress) certify(t *testing.T, name string) *tls.Certificate {
	t.Helper()
	if name == "" {
		return nil
	}
	return f.ca.Issue(t, name)
}

// TestWhoMayCallWhat goes through every method that the registry serves, and every
// caller.
func TestWhoMayCallWhat(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := fortify(t, defaults(), nil)
		callers, _ := f.ca.Callers(t, f.lis, names)
		authtest.Walk(t, f.registry.Services(), calls, callers)
	})
}

func TestWhoMayAskWhat(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := fortify(t, defaults(), nil)
		_, callers := f.ca.Callers(t, f.lis, names)
		authtest.WalkHTTP(t, requests, f.web, callers)
	})
}
