package collector_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/internal/access"
	"github.com/rollcall-metrics/rollcall/services/internal/authority"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"github.com/rollcall-metrics/rollcall/services/producer"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// A street is a network of pipes. A listener is found by its address.
type street struct{ houses sync.Map }

// A house is a listener.
type house struct {
	calls  chan net.Conn
	closed chan struct{}
}

func (s *street) listen(address string) *house {
	h := &house{calls: make(chan net.Conn), closed: make(chan struct{})}
	s.houses.Store(address, h)
	return h
}

// dial connects to a house.
func (s *street) dial(ctx context.Context, address string) (net.Conn, error) {
	found, _ := s.houses.Load(address)
	h, ok := found.(*house)
	if !ok {
		return nil, fmt.Errorf("nobody lives at %s", address)
	}
	near, far := net.Pipe()
	select {
	case h.calls <- piped{far}:
		return piped{near}, nil
	case <-h.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept waits for a call.
func (h *house) Accept() (net.Conn, error) {
	select {
	case conn := <-h.calls:
		return conn, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (h *house) Close() error {
	select {
	case <-h.closed:
	default:
		close(h.closed)
	}
	return nil
}

// Addr is an address that may be pulled.
func (*house) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 80} }

// piped is a connection from such an address.
type piped struct{ net.Conn }

// RemoteAddr is that of [net.Conn].
func (piped) RemoteAddr() net.Addr { return (*house)(nil).Addr() }

// A passport is an identity whose files are replaced.
type passport struct {
	*process.Identity
	role, id, dir string
}

// pass makes one, which is looked at every so often until the test ends. Its first
// certificate ends after some time.
func pass(t *testing.T, a *authority.Authority, role, id string, every, left time.Duration) *passport {
	t.Helper()
	p := &passport{role: role, id: id, dir: t.TempDir()}
	p.write(t, a, a.Certificate(), left)
	i, err := process.LoadIdentity(process.IdentityFiles{
		Cert: filepath.Join(p.dir, "tls.crt"), Key: filepath.Join(p.dir, "tls.key"), CA: filepath.Join(p.dir, "ca.crt"), MinVersion: tls.VersionTLS13,
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Identity = i
	go i.Watch(t.Context(), every, slog.New(slog.DiscardHandler))
	return p
}

// day is for how long certificates are issued.
const day = 24 * time.Hour

// write has a certificate issued that ends after some time, a day at most, and trusts
// the authorities in ca.
func (p *passport) write(t *testing.T, a *authority.Authority, ca []byte, left time.Duration) {
	t.Helper()
	pair, err := a.Issue(authority.Request{Role: p.role, ID: p.id, DNS: []string{p.id + ".test"}, Days: 1}, time.Now().Add(left-day))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"tls.crt": pair.Certificate, "tls.key": pair.Key, "ca.crt": ca} {
		if err := os.WriteFile(filepath.Join(p.dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A city is a fleet that speaks nothing but TLS, in a bubble.
type city struct {
	street
	authority *authority.Authority
	passports []*passport
	metrics   []*prometheus.Registry // of the collectors
	left      time.Duration          // of the first certificates
	doors     []*prometheus.Registry // of the registry and the collectors
}

func (c *city) pass(t *testing.T, role, id string) *passport {
	t.Helper()
	every := process.DefaultRefresh - time.Duration(len(c.passports))*time.Second // no two at the same time
	p := pass(t, c.authority, role, id, every, c.left)
	c.passports = append(c.passports, p)
	return p
}

// open opens the doors of a service as its command does.
func (c *city) open(own *passport, address, web string) (lis, webLis net.Listener, secured *tls.Config) {
	metrics := prometheus.NewRegistry()
	c.doors = append(c.doors, metrics)
	refusals := process.NewRefusals(slog.New(slog.DiscardHandler), metrics)
	guard := process.NewGuard(100, 100, true, refusals)
	return guard.GRPCListener(c.listen(address)), guard.Listener(c.listen(web)), own.Server(refusals)
}

const registryAddress = "r.test:7470"

// found starts a registry and two collectors.
func (c *city) found(t *testing.T) {
	t.Helper()
	quiet, rules := slog.New(slog.DiscardHandler), access.Default()
	who := func() *access.Rules { return rules }
	own := c.pass(t, "registry", "r")
	lis, web, secured := c.open(own, registryAddress, "r.test:7471")
	r, err := registry.New(t.Context(), registry.Config{
		Listener: lis, HTTPListener: web, Memory: registry.NewMemoryStore(), Logger: quiet,
		SelfID: "rollcall/registry", SelfEndpoint: "https://r.test:7471/metrics",
		ServerTLS: secured, ClientTLS: own.Client(), Access: who, DialCollector: c.dial,
		Times: registry.Times{Ask: time.Second},
	})
	if err != nil {
		t.Fatal(err)
	}
	begin(t, r.Run)
	for _, id := range []string{"c-1", "c-2"} {
		own, metrics := c.pass(t, "collector", id), process.NewMetricsRegistry()
		lis, web, secured := c.open(own, id+".test:7480", id+".test:7481")
		k, err := collector.New(t.Context(), collector.Config{
			ID: id, Registries: []string{registryAddress}, DataDir: t.TempDir(), Logger: quiet, Metrics: metrics,
			Listener: lis, HTTPListener: web, Advertise: id + ".test:7480",
			SelfID: "rollcall/collector/" + id, SelfEndpoint: "https://" + id + ".test:7481/metrics",
			ServerTLS: secured, ClientTLS: own.Client(), ProducerTLS: own.Producers(), Access: who,
			DialRegistry: c.dial, DialPeer: c.dial,
			DialProducer: func(ctx context.Context, _, address string) (net.Conn, error) { return c.dial(ctx, address) },
		})
		if err != nil {
			t.Fatal(err)
		}
		begin(t, k.Run)
		c.metrics = append(c.metrics, metrics)
	}
}

// settle starts producers, each of which is collected once a second: over HTTP with
// a handshake each time, and over gRPC.
func (c *city) settle(t *testing.T) {
	t.Helper()
	app, native := c.pass(t, "producer", "app"), c.pass(t, "producer", "native")
	web := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		fmt.Fprintln(w, "work_total 1")
	})}
	web.SetKeepAlivesEnabled(false)
	lis := process.SecureHTTP(c.listen("app.test:443"), server(app.Identity))
	go func() { _ = web.Serve(lis) }()
	exposer := grpc.NewServer(grpc.Creds(credentials.NewTLS(server(native.Identity))))
	producer.Expose(exposer, "native", prometheus.NewRegistry())
	exposed := c.listen("native.test:443")
	go func() { _ = exposer.Serve(exposed) }()
	t.Cleanup(func() { _ = web.Close(); exposer.Stop() })
	for own, endpoint := range map[*passport]string{app: "https://app.test:443/metrics", native: "grpcs://native.test:443"} {
		keeper, err := producer.Start(
			producer.Config{Registries: []string{registryAddress}, Credentials: own.Client().Credentials(), Dial: c.dial, NoWait: true},
			producer.Registration{ID: own.id, Endpoint: endpoint, Interval: time.Second, Lease: 10 * time.Second, ExpireAfter: 20 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(keeper.Close)
	}
}

// tally sums up what the collectors count: by name, or as failed for collections
// that did not succeed, or the reason for connections that were refused or ended.
func (c *city) tally(t *testing.T) map[string]float64 {
	t.Helper()
	all := map[string]float64{}
	for _, metrics := range slices.Concat(c.metrics, c.doors) {
		families, err := metrics.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				name := f.GetName()
				if name == collectionsTotal && m.GetLabel()[0].GetValue() != "success" {
					name = "failed"
				}
				if name == "rollcall_tls_refused_total" {
					name = m.GetLabel()[0].GetValue()
				}
				all[name] += m.GetCounter().GetValue()
			}
		}
	}
	return all
}

const collectionsTotal = "rollcall_collector_collections_total"

// reaches tells whether somebody who has only this authority is served.
func (c *city) reaches(t *testing.T, a *authority.Authority) error {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+registryAddress, grpc.WithTransportCredentials(pass(t, a, "operator", "ann", process.DefaultRefresh, day).Client().Credentials()),
		grpc.WithContextDialer(c.dial))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = registryv1.NewProducerServiceClient(conn).GetProducer(t.Context(), &registryv1.GetProducerRequest{ProducerId: "app"})
	return err
}

// TestAFleetRotates: certificates and their authority are replaced in all of a
// fleet, one process after the other, in the order that works: trust both, issue
// anew, trust the new one only. No collection fails meanwhile, none is missed, and
// no subscription ends.
func TestAFleetRotates(t *testing.T) { synctest.Test(t, rotate) }

func rotate(t *testing.T) {
	older, newer := newAuthority(t), newAuthority(t)
	c := &city{authority: older, left: day}
	c.found(t)
	c.settle(t)
	time.Sleep(2 * time.Minute) // all have been collected
	before, begin := c.tally(t), time.Now()
	both := slices.Concat(older.Certificate(), newer.Certificate())
	for _, step := range []struct {
		of *authority.Authority
		ca []byte
	}{{older, both}, {newer, both}, {newer, newer.Certificate()}} {
		for _, p := range c.passports {
			p.write(t, step.of, step.ca, day)
			time.Sleep(2 * process.DefaultRefresh)
		}
	}
	after, took := c.tally(t), time.Since(begin)
	for _, name := range []string{"failed", "rollcall_collector_missed_ticks_total", "rollcall_collector_subscriptions_ended_total"} {
		if n := after[name] - before[name]; n != 0 {
			t.Errorf("%s: %v more", name, n)
		}
	}
	due := 2 * took.Seconds() // of the two producers, beside those of the services
	if n := after[collectionsTotal] - before[collectionsTotal]; n < due {
		t.Errorf("%v collections, want %v", n, due)
	}
	if err := c.reaches(t, newer); err != nil {
		t.Errorf("the new authority: %v", err)
	}
	if c.reaches(t, older) == nil {
		t.Error("the old authority is trusted still")
	}
}

// TestAFleetOutlivesItsCertificates that were renewed in time: when the first ones
// end, so do the connections that were made with them, and everybody comes back on a
// new one. No collection fails, none is missed, and nobody comes back twice.
func TestAFleetOutlivesItsCertificates(t *testing.T) { synctest.Test(t, outlive) }

func outlive(t *testing.T) {
	a := newAuthority(t)
	c := &city{authority: a, left: 5 * time.Minute}
	c.found(t)
	c.settle(t)
	time.Sleep(2 * time.Minute) // all have been collected
	for _, p := range c.passports {
		p.write(t, a, a.Certificate(), day)
	}
	before, began := c.tally(t), time.Now()
	time.Sleep(5 * time.Minute)
	after, took := c.tally(t), time.Since(began)
	for name, want := range map[string]float64{
		"failed": 0, "rollcall_collector_missed_ticks_total": 0, "expired": 0,
		"rollcall_collector_subscriptions_ended_total": 2, // one of each collector
	} {
		if n := after[name] - before[name]; n != want {
			t.Errorf("%s: %v more, want %v", name, n, want)
		}
	}
	if n := after["ended"] - before["ended"]; n < 2 {
		t.Errorf("%v connections ended with a certificate", n)
	}
	due := 2 * took.Seconds()
	if n := after[collectionsTotal] - before[collectionsTotal]; n < due {
		t.Errorf("%v collections, want %v", n, due)
	}
}

func newAuthority(t *testing.T) *authority.Authority {
	t.Helper()
	a, _, err := authority.New(authority.DefaultTrustDomain, time.Now(), 1)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
