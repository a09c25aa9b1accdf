package siege_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// hello is the beginning of a handshake of TLS.
const hello = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"

// TestTheArmouredAreBesieged: what listens for other hosts, by those who have no
// certificate, and by those who may do little with theirs. An operator is served.
func TestTheArmouredAreBesieged(t *testing.T) {
	f := raise(t, setup{listen: onLoopback, armed: 20_000})
	defer f.raze()
	little := f.armour.identify(t, "producer/p9").Client()
	for _, c := range []struct {
		service, path string
		grpc, web     port
		good          func(context.Context) error
	}{
		{"registry", "/rollcall.registry.v1.ProducerService/ListProducers", f.registry, f.registryWeb, f.askRegistry},
		{"collector", "/rollcall.collector.v1.CollectionService/ListCollections", f.collector, f.collectorWeb, f.askCollector},
	} {
		browse := f.secure(c.web, nil, "http/1.1").browse
		inside, strange := f.secure(c.grpc, little, "h2"), f.secure(c.web, nil, "http/1.1")
		for name, attack := range map[string]attack{
			"half a handshake":   func(ctx context.Context, r *raid) string { return halfOpen(ctx, r, c.grpc, 1000, hello) },
			"handshakes":         func(ctx context.Context, r *raid) string { return handshakes(ctx, r, inside) },
			"plain text":         func(ctx context.Context, r *raid) string { return rapidReset(ctx, r, c.grpc, c.path) },
			"garbage":            func(ctx context.Context, r *raid) string { return garbage(ctx, r, c.grpc, 200) },
			"rapid reset inside": func(ctx context.Context, r *raid) string { return rapidReset(ctx, r, inside, c.path) },
			"what it may not":    func(ctx context.Context, r *raid) string { return denials(ctx, r, inside, c.path) },
		} {
			t.Run(c.service+" "+name, func(t *testing.T) { f.besiege(t, c.good, attack) })
		}
		for name, attack := range map[string]attack{
			"half a handshake": func(ctx context.Context, r *raid) string { return halfOpen(ctx, r, c.web, 1000, hello) },
			"plain text": func(ctx context.Context, r *raid) string {
				return dribble(ctx, r, c.web, 200, "GET /healthz HTTP/1.1\r\nHost: port\r\n\r\n")
			},
			"a body of nobody": func(ctx context.Context, r *raid) string {
				return endless(ctx, r, strange, "POST /api/v1/query HTTP/1.1\r\nHost: port\r\nContent-Length: 100000000000\r\n\r\n", "a")
			},
		} {
			t.Run(c.service+" web "+name, func(t *testing.T) { f.besiege(t, browse, attack) })
		}
	}
}

// handshakes makes many of them, and says nothing then.
func handshakes(ctx context.Context, r *raid, p port) string {
	r.Helper()
	n := 0
	for ; ctx.Err() == nil && n < 100; n++ {
		r.dial(ctx, p)
	}
	return fmt.Sprintf("%d handshakes", n)
}

// denials makes calls that are refused, as fast as can be.
func denials(ctx context.Context, r *raid, p port, path string) string {
	r.Helper()
	b := speak(ctx, r, p, path, false)
	n := b.repeat(ctx, 500, func(i int) error {
		id := uint32(2*i + 1)
		if err := b.open(id, false); err != nil {
			return err
		}
		return b.WriteData(id, true, []byte{0, 0, 0, 0, 0})
	})
	return fmt.Sprintf("%d calls that are refused, %s", n, b.verdict(r.T))
}

// TestMoreConnectionsThanThereMayBe are closed, on both ports of each service
// together. Who is connected is served, and so are others when they have gone.
func TestMoreConnectionsThanThereMayBe(t *testing.T) {
	const most = 200
	f := raise(t, setup{listen: onLoopback, armed: most})
	defer f.raze()
	for service, c := range map[string]struct {
		grpc, web port
		ask       func(context.Context) error
		connected func(context.Context) error
	}{
		"registry": {f.registry, f.registryWeb, f.askRegistry, func(ctx context.Context) error {
			_, err := registryv1.NewProducerServiceClient(f.toReg).GetProducer(ctx, &registryv1.GetProducerRequest{ProducerId: "p1"})
			return err
		}},
		"collector": {f.collector, f.collectorWeb, f.askCollector, func(ctx context.Context) error {
			_, err := collectorv1.NewCollectionServiceClient(f.toColl).GetCollection(ctx, &collectorv1.GetCollectionRequest{ProducerId: "p1"})
			return err
		}},
	} {
		t.Run(service, func(t *testing.T) {
			f.besiege(t, c.connected, func(ctx context.Context, r *raid) string {
				all := append(connections(ctx, r, c.grpc, most), connections(ctx, r, c.web, most)...)
				closed := shut(ctx, all, most)
				<-ctx.Done()
				if closed < most {
					t.Errorf("%d of %d connections were closed, with %d that may be", closed, len(all), most)
				}
				return fmt.Sprintf("%d of %d connections were closed", closed, len(all))
			})
			ctx, cancel := context.WithTimeout(t.Context(), goodTimeout)
			defer cancel()
			err := c.ask(ctx)
			for err != nil && ctx.Err() == nil { // until the server has seen that they have gone
				pause(ctx, 10*time.Millisecond)
				err = c.ask(ctx)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// shut waits until the server has closed so many connections, and returns how many
// it has. It waits for less long than the server does for what is said.
func shut(ctx context.Context, all []net.Conn, want int) int {
	var closed atomic.Int64
	for _, conn := range all {
		go func() {
			_, _ = conn.Read(make([]byte, 1))
			closed.Add(1)
		}()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 8*time.Second)
	defer cancel()
	for int(closed.Load()) < want && ctx.Err() == nil {
		pause(ctx, time.Millisecond)
	}
	return int(closed.Load())
}

// TestArmourKeepsOut those without a certificate, those who may not, and plain
// text: so that the attacks are on what they seem to be.
func TestArmourKeepsOut(t *testing.T) {
	f := raise(t, setup{listen: onLoopback, armed: 1000})
	defer f.raze()
	ctx, cancel := context.WithTimeout(t.Context(), goodTimeout)
	defer cancel()
	list := func(conn *grpc.ClientConn) codes.Code {
		_, err := registryv1.NewProducerServiceClient(conn).ListProducers(ctx, &registryv1.ListProducersRequest{})
		return status.Code(err)
	}
	plain, nobody := f.registry.connect(nil), f.registry.connect(func() *tls.Config {
		config := f.client().Clone()
		config.GetClientCertificate = nil
		return config
	})
	defer plain.Close()
	defer nobody.Close()
	for name, c := range map[string]struct {
		conn *grpc.ClientConn
		want codes.Code
	}{
		"plain text":  {plain, codes.Unavailable},
		"nobody":      {nobody, codes.Unauthenticated},
		"a producer":  {f.as["producer/p1"].toReg, codes.PermissionDenied},
		"a collector": {f.as["collector/c1"].toReg, codes.PermissionDenied},
		"an operator": {f.toReg, codes.OK},
	} {
		if got := list(c.conn); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	for role, want := range map[string]int{"": http.StatusUnauthorized, "producer/p1": http.StatusForbidden, "operator/ann": http.StatusOK} {
		web := f.secure(f.collectorWeb, nil, "http/1.1")
		if role != "" {
			web = f.secure(f.collectorWeb, f.armour.identify(t, role).Client(), "http/1.1")
		}
		if got, err := web.get(ctx, "/api/v1/query?query=1"); got != want || err != nil {
			t.Errorf("%q: %d, %v, want %d", role, got, err, want)
		}
	}
}
