package siege_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// proxied is how many connections came to the proxy that the environment of all
// these tests names.
var proxied atomic.Int64

// TestMain runs the tests in an environment with proxies, none of which may be
// used. What reads the environment reads it once in a process, so it has them from
// the beginning.
func TestMain(m *testing.M) {
	lis, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() {
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			proxied.Add(1)
			conn.Close()
		}
	}()
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"} {
		for _, name := range []string{name, strings.ToLower(name)} {
			if err := os.Setenv(name, "http://"+lis.Addr().String()); err != nil {
				panic(err)
			}
		}
	}
	_, _ = os.Unsetenv("NO_PROXY"), os.Unsetenv("no_proxy")
	code := m.Run()
	if n := proxied.Load(); n != 0 {
		fmt.Printf("%d connections came to the proxy of the environment\n", n)
		code = 1
	}
	os.Exit(code)
}

// A target counts the connections that come to it, and closes them.
type target struct {
	net.Listener
	came atomic.Int64
}

// expect listens until the test ends.
func expect(t *testing.T, host string) *target {
	t.Helper()
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lis.Close() })
	g := &target{Listener: lis}
	go func() {
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			g.came.Add(1)
			conn.Close()
		}
	}()
	return g
}

func (g *target) address() string { return g.Addr().String() }

// own is an address of this machine for which a proxy would be used: for loopback
// none is.
func own(t *testing.T) string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range all {
		if n, ok := one.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	if os.Getenv("ROLLCALL_REQUIRE_ALL") == "1" {
		t.Fatal("this machine has no address but loopback, and ROLLCALL_REQUIRE_ALL=1")
	}
	t.Skip("this machine has no address but loopback")
	return ""
}

// TestNoProxyIsUsed to reach producers, registries and other collectors: each of
// them is asked where it is. The proxy may be dialled, so it is not this that
// keeps anybody from it.
func TestNoProxyIsUsed(t *testing.T) {
	host := own(t)
	targets := map[string]*target{}
	for _, name := range []string{"registry", "peer", "http", "https", "grpc", "grpcs"} {
		targets[name] = expect(t, host)
	}
	var address string
	f := raise(t, setup{
		listen: onLoopback,
		rogue:  targets["peer"].address(),
		registry: func(c *registry.Config) {
			c.DialCollector, address = nil, c.Listener.Addr().String()
		},
		collector: func(c *collector.Config) {
			c.DialRegistry, c.DialPeer, c.DialProducer, c.Endpoints.Loopback = nil, nil, nil, true
			c.Registries = []string{targets["registry"].address(), address}
		},
	})
	defer f.raze()
	ctx, cancel := context.WithTimeout(t.Context(), goodTimeout)
	defer cancel()
	for _, scheme := range []string{"http", "https", "grpc", "grpcs"} {
		if _, err := registryv1.NewProducerServiceClient(f.toReg).RegisterProducer(ctx, &registryv1.RegisterProducerRequest{
			Producer: &registryv1.Producer{ProducerId: scheme, Endpoint: scheme + "://" + targets[scheme].address(), LastCollectorId: "c1"},
		}); err != nil {
			t.Fatal(err)
		}
	}
	for name, g := range targets {
		for before := proxied.Load(); ctx.Err() == nil && g.came.Load() == 0 && proxied.Load() == before; {
			if name == "peer" {
				_, _ = f.collectorWeb.get(ctx, "/api/v1/query?query=up") // it asks its peers
				continue
			}
			// A collection of its own begins anywhere in the interval.
			_, _ = collectorv1.NewCollectionServiceClient(f.toColl).CollectNow(ctx, &collectorv1.CollectNowRequest{ProducerId: name})
			pause(ctx, 10*time.Millisecond)
		}
		t.Logf("%s: %d connections came", name, g.came.Load())
		if g.came.Load() == 0 {
			t.Errorf("no connection came to the %s", name)
		}
	}
	if n := proxied.Load(); n != 0 {
		t.Errorf("%d connections came to the proxy of the environment", n)
	}
}

// TestEndpointsOutOfBoundsAreRefused by the registry, as they are written.
func TestEndpointsOutOfBoundsAreRefused(t *testing.T) {
	f := raise(t, setup{listen: inMemory})
	defer f.raze()
	client := registryv1.NewProducerServiceClient(f.toReg)
	for _, host := range []string{
		"169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "169.254.169.254.", "[::ffff:169.254.169.254]",
		"[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::1]", "[::169.254.169.254]", "[fd00:ec2::254]", "100.100.100.200", "127.0.0.1", "127.1", "localhost",
		"[::1]", "0.0.0.0", "0", "[::]", "[fe80::1]", "224.0.0.1", "255.255.255.255", "user:password@h.example", "h.example\r\nX-Evil: 1", "h.example\x00", "h%0d%0a.example",
	} {
		for _, scheme := range []string{"http", "https", "grpc", "grpcs"} {
			url := scheme + "://" + host + ":9100"
			_, err := client.RegisterProducer(t.Context(), &registryv1.RegisterProducerRequest{Producer: &registryv1.Producer{ProducerId: "evil", Endpoint: url}})
			if !refusesField(err, "producer.endpoint") {
				t.Errorf("%q: %v", url, err)
			}
		}
	}
	for field, p := range map[string]*registryv1.Producer{
		"producer.tls_server_name": {TlsServerName: "h\r\nX-Evil: 1"},
		"producer.credential":      {Credential: "../../etc/passwd"},
		"producer.instance_id":     {InstanceId: "a\r\nb"},
		"producer.zone":            {Zone: strings.Repeat("z", 129)},
		"producer.labels[0].name":  {Labels: []*registryv1.Label{{Name: "a\r\nb", Value: "x"}}},
	} {
		p.ProducerId, p.Endpoint = "evil", "https://h.example/"
		_, err := client.RegisterProducer(t.Context(), &registryv1.RegisterProducerRequest{Producer: p})
		if !refusesField(err, field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// refusesField tells whether a call was refused for one of its fields.
func refusesField(err error, field string) bool {
	s := status.Convert(err)
	return s.Code() == codes.InvalidArgument && slices.ContainsFunc(s.Details(), func(d any) bool {
		bad, ok := d.(*errdetails.BadRequest)
		return ok && slices.ContainsFunc(bad.GetFieldViolations(), func(v *errdetails.BadRequest_FieldViolation) bool { return v.GetField() == field })
	})
}

// TestAPeerIsNoWayIn: a collector that says that it is where it could not be is
// not asked there, whoever it is.
func TestAPeerIsNoWayIn(t *testing.T) {
	for _, loopback := range []bool{false, true} {
		rogue := expect(t, "127.0.0.1")
		f := raise(t, setup{listen: inMemory, rogue: rogue.address(), collector: func(c *collector.Config) {
			c.DialPeer, c.Endpoints.Loopback = nil, loopback
		}})
		defer f.raze()
		ctx, cancel := context.WithTimeout(t.Context(), goodTimeout)
		defer cancel()
		said := ""
		for ctx.Err() == nil && !strings.Contains(said, "rogue") { // the answer warns of a peer that was asked in vain
			_, said, _ = f.collectorWeb.ask(ctx, http.MethodGet, "/api/v1/query?query=up", nil, nil)
		}
		if !strings.Contains(said, "rogue") {
			t.Errorf("loopback allowed %v: the peer was not asked: %s", loopback, said)
		}
		if n := rogue.came.Load(); (n > 0) != loopback {
			t.Errorf("loopback allowed %v: %d connections", loopback, n)
		}
	}
}
