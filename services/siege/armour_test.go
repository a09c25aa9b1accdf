package siege_test

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/internal/access"
	"github.com/rollcall-metrics/rollcall/services/internal/authority"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"google.golang.org/grpc"
)

// callers are those who call an armoured fort, by their certificates.
var callers = []string{"operator/ann", "collector/c1", "producer/p1"}

// A caller is one of them, connected.
type caller struct{ toReg, toColl *grpc.ClientConn }

// armour is what a service has that listens for other hosts: TLS, rules of access,
// and a bound of its connections.
type armour struct {
	authority *authority.Authority
	dir       string
	logger    *slog.Logger
	rules     *access.Rules
}

// forge makes it for a fort.
func (f *fort) forge(t testing.TB) *armour {
	t.Helper()
	a, _, err := authority.New(authority.DefaultTrustDomain, time.Now(), 1)
	if err != nil {
		t.Fatal(err)
	}
	return &armour{authority: a, dir: f.dir, logger: slog.New(f.faults), rules: access.Default()}
}

// identify makes a certificate for ROLE/ID, and reads it as the commands do.
func (a *armour) identify(t testing.TB, name string) *process.Identity {
	t.Helper()
	role, id, _ := strings.Cut(name, "/")
	pair, err := a.authority.Issue(authority.Request{Role: role, ID: id, DNS: []string{"port", role}, Days: 1}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(a.dir, role)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	files := process.IdentityFiles{
		Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), CA: filepath.Join(dir, "ca.crt"), MinVersion: tls.VersionTLS13,
	}
	for path, content := range map[string][]byte{files.Cert: pair.Certificate, files.Key: pair.Key, files.CA: a.authority.Certificate()} {
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

// put arms both services, each with so many connections at most.
func (a *armour) put(t testing.TB, rc *registry.Config, cc *collector.Config, most int) {
	t.Helper()
	who := func() *access.Rules { return a.rules }
	of := func(name string) (*process.Identity, *process.Guard, *tls.Config) {
		i, refusals := a.identify(t, name), process.NewRefusals(a.logger, prometheus.NewRegistry())
		return i, process.NewGuard(most, most, true, refusals), i.Server(refusals)
	}
	i, guard, server := of("registry/r1")
	rc.Listener, rc.HTTPListener = guard.GRPCListener(rc.Listener), guard.Listener(rc.HTTPListener)
	rc.ServerTLS, rc.ClientTLS, rc.Access = server, i.Client(), who
	i, guard, server = of("collector/c1")
	cc.Listener, cc.HTTPListener = guard.GRPCListener(cc.Listener), guard.Listener(cc.HTTPListener)
	cc.ServerTLS, cc.ClientTLS, cc.ProducerTLS, cc.Access = server, i.Client(), i.Producers(), who
}

// admit connects the callers. The first one is who calls if nothing else is said.
func (f *fort) admit(t testing.TB) {
	t.Helper()
	for _, name := range callers {
		as := f.armour.identify(t, name).Client()
		f.as[name] = caller{f.registry.connect(as), f.collector.connect(as)}
	}
	f.toReg, f.toColl = f.as[callers[0]].toReg, f.as[callers[0]].toColl
	f.client = f.armour.identify(t, callers[0]).Client()
}

// secure is the port, reached over TLS for one of the protocols h2 and http/1.1; c
// is nil for nobody.
func (f *fort) secure(p port, c process.ClientTLS, protocol string) port {
	config := f.client().Clone()
	if c == nil {
		config.GetClientCertificate = nil
	} else {
		config = c().Clone()
	}
	config.ServerName, config.NextProtos = "port", []string{protocol}
	plain := p.dial
	p.dial = func(ctx context.Context) (net.Conn, error) {
		conn, err := plain(ctx)
		if err != nil {
			return nil, err
		}
		secured := tls.Client(conn, config)
		if err := secured.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, err
		}
		return secured, nil
	}
	return p
}
