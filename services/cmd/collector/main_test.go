package main

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/rollcall-metrics/rollcall/services/internal/authority"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"github.com/rollcall-metrics/rollcall/services/internal/scripttest"
	"github.com/rollcall-metrics/rollcall/services/registry"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"collector": main, "trusts": trusts})
}

func TestCommand(t *testing.T) {
	testscript.Run(t, scripttest.Params(map[string]scripttest.Word{
		"certify": certify,
		"lead":    lead,
	}))
}

// certify DIR NAME...: write the certificate of the collector a for these names, its
// key and its authority, and a reader's into DIR/reader, with which await asks from
// then on.
func certify(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	client := filepath.Join(dir, "reader")
	ts.Setenv("CLIENT", client)
	scripttest.Certify(ts, map[string]authority.Request{
		dir:    {Role: "collector", ID: "a", DNS: args[1:], IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}},
		client: {Role: "reader", ID: "somebody"},
	})
}

// lead NAME [DIR]: run a registry in this process, with the certificate in a
// directory, and set the variable to its address. lead off: stop it.
func lead(ts *testscript.TestScript, _ bool, args []string) {
	if args[0] == "off" {
		scripttest.End(ts, "registry")
		return
	}
	lis := scripttest.Listen(ts, "127.0.0.1:0")
	config := registry.Config{
		Listener:  lis,
		Memory:    registry.NewMemoryStore(),
		Endpoints: registry.EndpointPolicy{Loopback: true},
		Heartbeat: 200 * time.Millisecond,
		Logger:    slog.New(slog.DiscardHandler),
	}
	if len(args) > 1 {
		identity := scripttest.Identity(ts, ts.MkAbs(args[1]))
		config.ServerTLS = identity.Server(process.NewRefusals(config.Logger, prometheus.NewRegistry()))
		config.ClientTLS = identity.Client()
	}
	r, err := registry.New(context.Background(), config)
	ts.Check(err)
	scripttest.Begin(ts, "registry", r.Run)
	ts.Setenv(args[0], lis.Addr().String())
}
