//go:build e2e

package containers_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// holder is who holds one of the certificates of deploy/certificates.sh.
func holder(t *testing.T, certificates, name string) *tls.Config {
	t.Helper()
	dir := filepath.Join(certificates, name)
	authority, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, Certificates: []tls.Certificate{pair}}
}

// secured asks the fleet as people who may not, over the network: P12.
func (p *project) secured() {
	t := p.t
	t.Helper()
	nobody := p.reader.Clone()
	nobody.Certificates = nil
	stranger := holder(t, p.certificates, "etcd-1") // of another authority
	stranger.RootCAs = p.reader.RootCAs
	example := holder(t, p.certificates, "example")
	for _, c := range []struct {
		name string
		who  *tls.Config
		id   string
		want codes.Code
	}{
		{"plain text", nil, "example-99", codes.Unavailable},
		{"nobody", nobody, "example-99", codes.Unauthenticated},
		{"another authority", stranger, "example-99", codes.Unavailable},
		{"a reader", p.reader, "example-99", codes.PermissionDenied},
		{"a producer for another one", example, "plain", codes.PermissionDenied},
		{"a collector for another one", holder(t, p.certificates, "collector-1"), "rollcall/collector/collector-2", codes.PermissionDenied},
		{"an operator", p.operator, "example-99", codes.OK}, // the judge sees what is registered
	} {
		conn, err := dialAs(p.registry, c.who)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err = registryv1.NewProducerServiceClient(conn).DeregisterProducer(ctx, &registryv1.DeregisterProducerRequest{ProducerId: c.id})
		cancel()
		conn.Close()
		if status.Code(err) != c.want {
			t.Errorf("P12: %s deregisters %s: %v, want %v", c.name, c.id, err, c.want)
		}
	}
	address, err := p.address(t.Context(), p.collectors[0], 7481)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: nobody, DisableKeepAlives: true}}
	for path, want := range map[string]int{"/api/v1/query?query=up": http.StatusUnauthorized, "/metrics": http.StatusUnauthorized, "/readyz": http.StatusOK} {
		resp, err := client.Get("https://" + address + path)
		if err != nil {
			t.Error(err)
			continue
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("P12: %s for nobody: %s", path, resp.Status)
		}
	}
}

// rotated runs the block that changes the authority, and sees that no subscription
// ends, that the new certificates are taken and the old ones are not.
func (p *project) rotated(block string) {
	t := p.t
	t.Helper()
	const ended = "rollcall_collector_subscriptions_ended_total"
	before, old := p.total(p.collectors, ended), p.operator
	t.Logf("rotate took %v", p.run(block))
	p.reader, p.operator = holder(t, p.certificates, "reader"), holder(t, p.certificates, "operator")
	old.RootCAs = p.operator.RootCAs
	await(t, "the old certificates are refused", time.Minute, func() error {
		conn, err := dialAs(p.registry, old)
		if err != nil {
			return err
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err = registryv1.NewProducerServiceClient(conn).ListProducers(ctx, &registryv1.ListProducersRequest{})
		if status.Code(err) != codes.Unavailable {
			return fmt.Errorf("a certificate of the old authority: %w", err)
		}
		return nil
	})
	if after := p.total(p.collectors, ended); after != before {
		t.Errorf("P12: %v subscriptions ended while certificates were replaced", after-before)
	}
}
