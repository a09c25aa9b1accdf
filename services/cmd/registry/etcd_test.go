package main

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/authority"
)

// TestAuthoritiesOfEtcdAreReadAnew for each connection; what is none changes nothing.
func TestAuthoritiesOfEtcdAreReadAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca.crt")
	put := func(content []byte) *x509.CertPool {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(content)
		return pool
	}
	made := func() []byte {
		a, _, err := authority.New(authority.DefaultTrustDomain, time.Now(), 1)
		if err != nil {
			t.Fatal(err)
		}
		return a.Certificate()
	}
	first := put(made())
	now, err := (&etcdFlags{EtcdCACert: path}).tls()
	if err != nil || !now().RootCAs.Equal(first) {
		t.Fatalf("%v", err)
	}
	second := put(made())
	if !now().RootCAs.Equal(second) {
		t.Error("they are those of before")
	}
	put([]byte("nothing"))
	if !now().RootCAs.Equal(second) {
		t.Error("they are not those of before")
	}
}
