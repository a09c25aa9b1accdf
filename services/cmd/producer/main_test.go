package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rogpeppe/go-internal/testscript"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/authority"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"github.com/rollcall-metrics/rollcall/services/internal/scripttest"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"producer": main})
}

func TestCommand(t *testing.T) {
	testscript.Run(t, scripttest.Params(map[string]scripttest.Word{
		"certify": certify,
		"healthy": healthy,
		"lead":    lead,
		"app":     app,
		"roll":    roll,
		"strike":  strike,
	}))
}

// certify DIR NAME...: write a certificate for these names, its key and its
// authority.
func certify(ts *testscript.TestScript, _ bool, args []string) {
	scripttest.Certify(ts, map[string]authority.Request{
		ts.MkAbs(args[0]): {Role: "registry", ID: "registry-1", DNS: args[1:], IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}},
	})
}

// healthy ADDRESS [SERVICE]: what gRPC health tells now; with ! it is not serving.
func healthy(ts *testscript.TestScript, neg bool, args []string) {
	service := strings.Join(args[1:], "")
	resp, err := healthv1.NewHealthClient(scripttest.Dial(ts, args[0])).Check(context.Background(), &healthv1.HealthCheckRequest{Service: service})
	ts.Check(err)
	if serving := resp.GetStatus() == healthv1.HealthCheckResponse_SERVING; serving == neg {
		ts.Fatalf("%q is %v", service, resp.GetStatus())
	}
}

// lead ADDRESS [DIR]: run a registry with an empty store in this process, with the
// certificate in a directory. lead off: stop it.
func lead(ts *testscript.TestScript, _ bool, args []string) {
	if args[0] == "off" {
		scripttest.End(ts, "registry")
		return
	}
	lis := scripttest.Listen(ts, args[0])
	config := registry.Config{
		Listener:  lis,
		Memory:    registry.NewMemoryStore(),
		Endpoints: registry.EndpointPolicy{Loopback: true},
		Logger:    slog.New(slog.DiscardHandler),
	}
	if len(args) > 1 {
		identity := scripttest.Identity(ts, ts.MkAbs(args[1]))
		config.ServerTLS = identity.Server(process.NewRefusals(config.Logger, prometheus.NewRegistry()))
	}
	r, err := registry.New(context.Background(), config)
	ts.Check(err)
	scripttest.Begin(ts, "registry", r.Run)
}

// app ADDRESS: serve metrics there. app off ADDRESS: no more.
func app(ts *testscript.TestScript, _ bool, args []string) {
	if args[0] == "off" {
		scripttest.End(ts, args[1])
		return
	}
	lis := scripttest.Listen(ts, args[0])
	server := &http.Server{ReadHeaderTimeout: scripttest.Patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "up_and_well 1")
	})}
	go func() { _ = server.Serve(lis) }()
	scripttest.Begin(ts, args[0], func(ctx context.Context) error {
		<-ctx.Done()
		return server.Close()
	})
}

// roll REGISTRY ID [REGEXP]: until the producer is on the roll, and looks so; with
// !, that it is not on the roll now.
func roll(ts *testscript.TestScript, neg bool, args []string) {
	client := registryv1.NewProducerServiceClient(scripttest.Dial(ts, args[0]))
	want := regexp.MustCompile(strings.Join(args[2:], " "))
	get := func() (*registryv1.GetProducerResponse, error) {
		return client.GetProducer(context.Background(), &registryv1.GetProducerRequest{ProducerId: args[1]}, grpc.WaitForReady(true))
	}
	if neg {
		if resp, err := get(); status.Code(err) != codes.NotFound {
			ts.Fatalf("on the roll is %v, %v", resp.GetProducer(), err)
		}
		return
	}
	scripttest.Poll(ts, func() error {
		resp, err := get()
		if got := resp.GetProducer().String(); err == nil && !want.MatchString(got) {
			err = fmt.Errorf("on the roll is %s", got)
		}
		return err
	})
}

// strike REGISTRY ID: take a producer off the roll, as an operator does.
func strike(ts *testscript.TestScript, _ bool, args []string) {
	resp, err := registryv1.NewProducerServiceClient(scripttest.Dial(ts, args[0])).DeregisterProducer(context.Background(),
		&registryv1.DeregisterProducerRequest{ProducerId: args[1]})
	ts.Check(err)
	if !resp.GetChanged() {
		ts.Fatalf("%s was not on the roll", args[1])
	}
}
