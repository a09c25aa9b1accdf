package process

import (
	"crypto/tls"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/authority"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// TestLoopbackOf: who listens on all interfaces is asked by an address of the same
// family, whatever names resolve to.
func TestLoopbackOf(t *testing.T) {
	for host, want := range map[string]string{"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1", "::ffff:0.0.0.0": "127.0.0.1"} {
		if got := loopbackOf(host); got != want {
			t.Errorf("%q: got %s, want %s", host, got, want)
		}
	}
}

// TestHealthOverTLS: a process shows its own certificate, by whatever name that is
// for, and lives also when it has run out; another process does not pass for it.
func TestHealthOverTLS(t *testing.T) {
	a, _, err := authority.New(authority.DefaultTrustDomain, time.Now().AddDate(0, 0, -10), 100)
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := authority.New(authority.DefaultTrustDomain, time.Now(), 100)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, test := range map[string]struct {
		by      *authority.Authority
		request authority.Request
		ago     int
		lives   bool
	}{
		"name":     {a, authority.Request{DNS: []string{"registry.test"}}, 0, true},
		"wildcard": {a, authority.Request{DNS: []string{"*.registry.test"}}, 0, true},
		"address":  {a, authority.Request{IPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}, 0, true},
		"expired":  {a, authority.Request{DNS: []string{"registry.test"}}, 5, true},
		"nobody":   {a, authority.Request{}, 0, false},
		"another":  {other, authority.Request{DNS: []string{"registry.test"}}, 0, false},
	} {
		test.request.Role, test.request.ID, test.request.Days = "registry", "registry-1", 1
		pair, err := test.by.Issue(test.request, time.Now().AddDate(0, 0, -test.ago))
		if err != nil {
			t.Fatal(err)
		}
		shown, err := tls.X509KeyPair(pair.Certificate, pair.Key)
		if err != nil {
			t.Fatal(err)
		}
		f := &healthFlags{Timeout: 10 * time.Second, TLSFlags: TLSFlags{
			TLSCert: filepath.Join(dir, "tls.crt"), TLSKey: filepath.Join(dir, "none"), TLSCA: filepath.Join(dir, "ca.crt"),
		}}
		for path, content := range map[string][]byte{f.TLSCert: pair.Certificate, f.TLSCA: a.Certificate()} {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		srv := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{shown}})))
		healthv1.RegisterHealthServer(srv, health.NewServer())
		go func() { _ = srv.Serve(lis) }()
		f.Listen = lis.Addr().String()
		if err := f.Run(t.Context()); (err == nil) != test.lives {
			t.Errorf("%s: %v", name, err)
		}
		srv.Stop()
	}
}
