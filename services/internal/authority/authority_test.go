package authority_test

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/authority"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func decode(t *testing.T, text []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(text)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestIssue(t *testing.T) {
	made, pair, err := authority.New("fleet.example", now, 100)
	if err != nil {
		t.Fatal(err)
	}
	a, err := authority.Parse(pair) // as the next process does
	if err != nil || a.TrustDomain() != "fleet.example" || string(a.Certificate()) != string(made.Certificate()) {
		t.Fatalf("%v, %+v", err, a)
	}
	issued, err := a.Issue(authority.Request{
		Role: "producer", ID: "shop/checkout-1", DNS: []string{"shop-1", "*.shop.example"},
		IPs: []netip.Addr{netip.MustParseAddr("::ffff:192.0.2.1"), netip.MustParseAddr("2001:db8::1")}, Days: 30,
	}, now)
	if err != nil {
		t.Fatal(err)
	}
	c := decode(t, issued.Certificate)
	if len(c.URIs) != 1 || c.URIs[0].String() != "spiffe://fleet.example/rollcall/producer/shop/checkout-1" {
		t.Errorf("it names %v", c.URIs)
	}
	if c.IsCA || !c.NotAfter.Equal(now.AddDate(0, 0, 30)) || len(c.DNSNames) != 2 || len(c.IPAddresses) != 2 || c.IPAddresses[0].String() != "192.0.2.1" {
		t.Errorf("issued %+v", c)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.Certificate())
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := c.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, DNSName: "shop-1", KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			t.Error(err)
		}
	}
	long, err := a.Issue(authority.Request{Role: "reader", ID: "grafana", Days: 1000}, now)
	if err != nil || !decode(t, long.Certificate).NotAfter.Equal(decode(t, a.Certificate()).NotAfter) {
		t.Errorf("it outlives its authority: %v", err)
	}
}

func TestIssueRefuses(t *testing.T) {
	a, _, err := authority.New(authority.DefaultTrustDomain, now, 1)
	if err != nil {
		t.Fatal(err)
	}
	good := authority.Request{Role: "collector", ID: "collector-1", Days: 1}
	if _, err := a.Issue(good, now); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*authority.Request){
		"role":         func(r *authority.Request) { r.Role = "admin" },
		"no id":        func(r *authority.Request) { r.ID = "" },
		"id up":        func(r *authority.Request) { r.ID = "a/../b" },
		"id empty":     func(r *authority.Request) { r.ID = "a//b" },
		"id character": func(r *authority.Request) { r.ID = "a?b" },
		"id percent":   func(r *authority.Request) { r.ID = "a%2fb" },
		"long id":      func(r *authority.Request) { r.ID = strings.Repeat("a", 129) },
		"DNS":          func(r *authority.Request) { r.DNS = []string{"a b"} },
		"zone":         func(r *authority.Request) { r.IPs = []netip.Addr{netip.MustParseAddr("fe80::1%eth0")} },
		"no address":   func(r *authority.Request) { r.IPs = make([]netip.Addr, 1) },
		"names":        func(r *authority.Request) { r.DNS = make([]string, 65) },
		"days":         func(r *authority.Request) { r.Days = 0 },
		"many days":    func(r *authority.Request) { r.Days = 4000 },
	} {
		r := good
		change(&r)
		if _, err := a.Issue(r, now); err == nil {
			t.Errorf("%s: issued", name)
		}
	}
	if _, _, err := authority.New("Fleet", now, 1); err == nil {
		t.Error("a trust domain in upper case")
	}
	if _, _, err := authority.New("fleet", now, 0); err == nil {
		t.Error("an authority for no day")
	}
}

func TestParseRefuses(t *testing.T) {
	a, pair, err := authority.New(authority.DefaultTrustDomain, now, 1)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := a.Issue(authority.Request{Role: "reader", ID: "x", Days: 1}, now)
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]authority.Pair{
		"nothing":        {},
		"no key":         {Certificate: pair.Certificate},
		"another key":    {Certificate: pair.Certificate, Key: issued.Key},
		"no authority":   issued,
		"key for both":   {Certificate: pair.Key, Key: pair.Key},
		"not in base 64": {Certificate: []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), Key: pair.Key},
	} {
		if _, err := authority.Parse(p); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestNewToken(t *testing.T) {
	token, sum := authority.NewToken()
	digest := sha256.Sum256([]byte(token))
	if other, _ := authority.NewToken(); len(token) < 40 || token == other || sum != hex.EncodeToString(digest[:]) {
		t.Errorf("%s, %s", token, sum)
	}
}
