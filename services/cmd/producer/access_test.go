package main

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/access"
	"github.com/rollcall-metrics/rollcall/services/internal/auth/authtest"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"github.com/rollcall-metrics/rollcall/services/producer"
	"google.golang.org/grpc/test/bufconn"
)

// calls is who may call what at a sidecar. What it registers is elsewhere: the
// sidecar's own server has nothing that is for a producer, its own neither.
var calls = slices.Concat([]authtest.Row{
	{"/grpc.health.v1.Health/Check", `service: "registered"`, authtest.Everybody},
}, authtest.OfEveryServer())

// requests is the same for HTTP.
var requests = []authtest.Row{
	{"GET", "/healthz", authtest.Everybody},
	{"GET", "/readyz", authtest.Everybody},
	{"GET", "/metrics", "collector operator reader"},
	{"POST", "/metrics", "operator"},
	{"GET", "/debug/pprof/", "operator"},
	{"GET", "/debug/pprof/heap", "operator"},
	{"GET", "/debug/../healthz", "operator"},
	{"GET", "/", "operator"},
}

// TestWhoMayCallWhat goes through what the sidecar serves, as every caller.
func TestWhoMayCallWhat(t *testing.T) {
	ca, rules := authtest.NewCA(t), access.Default()
	lis, web := bufconn.Listen(1<<20), bufconn.Listen(1<<16)
	s := &sidecar{
		flags: &flags{
			Registry: []string{"127.0.0.1:1"}, Wait: true,
			ServeFlags: process.ServeFlags{StopGrace: time.Second},
		},
		registration: producer.Registration{ID: "p-1", Endpoint: "http://127.0.0.1:1/metrics"},
		logger:       slog.New(slog.DiscardHandler), registry: process.NewMetricsRegistry(),
		doors: &process.Doors{
			GRPC: lis, HTTP: web, Server: ca.Server(t), Access: func() *access.Rules { return rules }, Introspection: true,
		},
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := s.run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	names := authtest.Names()
	names["other"] = authtest.SPIFFE("producer/p-2")
	conns, configs := ca.Callers(t, lis, names)
	authtest.Walk(t, authtest.Served(t, conns["operator"]), calls, conns)
	authtest.WalkHTTP(t, requests, web, configs)
}
