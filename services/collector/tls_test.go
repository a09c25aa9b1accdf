package collector_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/internal/access"
	"github.com/rollcall-metrics/rollcall/services/internal/authority"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"github.com/rollcall-metrics/rollcall/services/producer"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// identify issues for a process of this host.
func identify(t *testing.T, a *authority.Authority, role, id string) *process.Identity {
	t.Helper()
	pair, err := a.Issue(authority.Request{Role: role, ID: id, IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Days: 1}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files := process.IdentityFiles{
		Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), CA: filepath.Join(dir, "ca.crt"), MinVersion: tls.VersionTLS13,
	}
	for path, content := range map[string][]byte{files.Cert: pair.Certificate, files.Key: pair.Key, files.CA: a.Certificate()} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	i, err := process.LoadIdentity(files)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func server(i *process.Identity) *tls.Config {
	return i.Server(process.NewRefusals(slog.New(slog.DiscardHandler), prometheus.NewRegistry()))
}

// TestAFleetOverTLS: a registry, two collectors and producers over HTTP and gRPC
// speak nothing but mutual TLS, and collect each other.
func TestAFleetOverTLS(t *testing.T) {
	a, _, err := authority.New(authority.DefaultTrustDomain, time.Now(), 1)
	if err != nil {
		t.Fatal(err)
	}
	quiet, rules := slog.New(slog.DiscardHandler), access.Default()
	who := func() *access.Rules { return rules }
	registered, roll, identity := listen(t), listen(t), identify(t, a, "registry", "registry-1")
	r, err := registry.New(t.Context(), registry.Config{
		Listener: registered, HTTPListener: roll, Memory: registry.NewMemoryStore(), Logger: quiet,
		SelfID: "rollcall/registry", SelfEndpoint: "https://" + roll.Addr().String() + "/metrics",
		ServerTLS: server(identity), ClientTLS: identity.Client(), Access: who,
		Endpoints: registry.EndpointPolicy{Loopback: true},
		Times:     registry.Times{Ask: time.Second},
	})
	if err != nil {
		t.Fatal(err)
	}
	begin(t, r.Run)
	var queries []string
	var asked []*prometheus.Registry
	for i := range 2 {
		lis, web := listen(t), listen(t)
		id := fmt.Sprintf("c-%d", i+1)
		identity, metrics := identify(t, a, "collector", id), process.NewMetricsRegistry()
		k, err := collector.New(t.Context(), collector.Config{
			ID: id, Registries: []string{registered.Addr().String()}, DataDir: t.TempDir(),
			Listener: lis, HTTPListener: web, Advertise: lis.Addr().String(), Logger: quiet,
			SelfID: "rollcall/collector/" + id, SelfEndpoint: "https://" + web.Addr().String() + "/metrics",
			ServerTLS: server(identity), ClientTLS: identity.Client(), ProducerTLS: identity.Producers(), Access: who,
			Endpoints: collector.EndpointPolicy{Loopback: true},
			Metrics:   metrics,
		})
		if err != nil {
			t.Fatal(err)
		}
		begin(t, k.Run)
		queries = append(queries, "https://"+web.Addr().String())
		asked = append(asked, metrics)
	}
	exposed := listen(t)
	own := identify(t, a, "producer", "native")
	exposer := grpc.NewServer(grpc.Creds(credentials.NewTLS(server(own))))
	producer.Expose(exposer, "native", prometheus.NewRegistry())
	go func() { _ = exposer.Serve(exposed) }()
	t.Cleanup(exposer.Stop)
	keeper, err := producer.Start(producer.Config{Registries: []string{registered.Addr().String()}, Credentials: own.Client().Credentials()},
		producer.Registration{ID: "native", Endpoint: "grpcs://" + exposed.Addr().String(), Interval: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(keeper.Close)

	reader := &http.Client{Transport: &http.Transport{TLSClientConfig: identify(t, a, "reader", "test").Client()(), ForceAttemptHTTP2: true}}
	t.Cleanup(reader.CloseIdleConnections)
	for _, at := range queries { // each asks the other one, too
		eventually(t, func() error { return sum(reader, at, "4") })
	}
	for _, metrics := range asked { // the registry asks both how their producers answer
		eventually(t, func() error { return handled(metrics, "Witness") })
	}
}

// sum asks a collector how many producers answer.
func sum(client *http.Client, at, want string) error {
	resp, err := client.Get(at + "/api/v1/query?query=" + url.QueryEscape("sum(up)"))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var got struct {
		Data struct {
			Result []struct{ Value []any }
		}
		Warnings []string
	}
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		return err
	}
	if len(got.Warnings) > 0 || len(got.Data.Result) != 1 || got.Data.Result[0].Value[1] != want {
		return fmt.Errorf("%v, want %s", got, want)
	}
	return nil
}

// handled tells whether a method has answered.
func handled(metrics *prometheus.Registry, method string) error {
	families, err := metrics.Gather()
	if err != nil {
		return err
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if f.GetName() == "grpc_server_handled_total" && labels["grpc_method"] == method && labels["grpc_code"] == "OK" && m.GetCounter().GetValue() > 0 {
				return nil
			}
		}
	}
	return fmt.Errorf("%s has not answered", method)
}
