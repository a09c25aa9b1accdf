package scrape_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/config"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/scrape"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
	exposer "github.com/rollcall-metrics/rollcall/services/producer"
)

// An authority signs certificates.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t, pool: x509.NewCertPool()}
	pair := a.sign(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	a.cert, a.key = pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey) //nolint:errcheck // made below
	a.pool.AddCert(a.cert)
	return a
}

// sign makes a certificate, by itself when there is no other yet.
func (a *authority) sign(template *x509.Certificate) *tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber, template.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: "test"}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// A secured is a producer over TLS, as seen by the last request.
type secured struct {
	url   string
	seen  atomic.Pointer[http.Request]
	conns atomic.Int64
}

// secure serves an exposition over TLS for the name producer.test, to clients
// that the authority knows if mutual is set.
func secure(t *testing.T, ca *authority, http2, mutual bool) *secured {
	t.Helper()
	s := &secured{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.seen.Store(r)
		w.Header().Set("Content-Type", "text/plain")
		fmt.Fprint(w, "a 1")     // HTTP/2 has told the end of it, and chunks have, too
		w.(http.Flusher).Flush() //nolint:errcheck // so that the length is not told
	}))
	server.EnableHTTP2 = http2
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.conns.Add(1)
		}
	}
	cert := ca.sign(&x509.Certificate{DNSNames: []string{"producer.test"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	server.TLS = &tls.Config{Certificates: []tls.Certificate{*cert}}
	if mutual {
		server.TLS.ClientAuth, server.TLS.ClientCAs = tls.RequireAndVerifyClientCert, ca.pool
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	s.url = server.URL + "/metrics"
	return s
}

func hosts(t testing.TB, list ...string) endpoint.Hosts {
	t.Helper()
	h, err := endpoint.ParseHosts(list)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// secret is in every credential of the tests, and in no message.
const secret = "Bearer hunter2"

func TestCredentials(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	clientOf := func(a *authority) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		cert := a.sign(&x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		return func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	client, wrongClient := clientOf(ca), clientOf(stranger)
	for _, c := range []struct {
		name          string
		http2, mutual bool
		tls           *tls.Config
		server        string // TLSServerName
		want          string // in the message; empty when it succeeds
	}{
		{name: "HTTP/1.1", tls: &tls.Config{RootCAs: ca.pool}, server: "producer.test"},
		{name: "HTTP/2", http2: true, tls: &tls.Config{RootCAs: ca.pool}, server: "producer.test"},
		{name: "the credential's server name", tls: &tls.Config{RootCAs: ca.pool, ServerName: "producer.test"}},
		{name: "the assignment's goes before", tls: &tls.Config{RootCAs: ca.pool, ServerName: "x"}, server: "producer.test"},
		{name: "another server name", tls: &tls.Config{RootCAs: ca.pool}, server: "other.test", want: "other.test"},
		{name: "no server name", tls: &tls.Config{RootCAs: ca.pool}, want: "127.0.0.1"},
		{name: "another authority", tls: &tls.Config{RootCAs: stranger.pool}, server: "producer.test", want: "unknown authority"},
		{name: "the system's roots", server: "producer.test", want: "certificate"},
		{name: "mutual", mutual: true, tls: &tls.Config{RootCAs: ca.pool, GetClientCertificate: client}, server: "producer.test"},
		{name: "mutual, HTTP/2", http2: true, mutual: true, tls: &tls.Config{RootCAs: ca.pool, GetClientCertificate: client}, server: "producer.test"},
		{name: "no client certificate", mutual: true, tls: &tls.Config{RootCAs: ca.pool}, server: "producer.test", want: "certificate required"},
		{name: "a wrong client certificate", mutual: true, tls: &tls.Config{RootCAs: ca.pool, GetClientCertificate: wrongClient}, server: "producer.test", want: "certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			producer := secure(t, ca, c.http2, c.mutual)
			kept := &sink{t: t}
			s := scrape.New(scrape.Config{Sink: kept, Setup: scrape.Setup{Credentials: map[string]scrape.Credential{
				"c": {Authorization: secret, TLS: c.tls, TLSDigest: "1", Hosts: hosts(t, "127.0.0.1")},
			}}})
			defer s.Close()
			collection, err := s.Open(&assignment.Assignment{
				ProducerID: "p", Endpoint: producer.url, Interval: time.Minute, Timeout: 20 * time.Second,
				Credential: "c", TLSServerName: c.server,
			})
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				r := collection.Collect(t.Context(), time.Now())
				switch {
				case c.want == "" && r.Reason != schedule.ReasonNone:
					t.Fatalf("failed: %s", r.Message)
				case c.want != "" && (r.Reason == schedule.ReasonNone || !strings.Contains(r.Message, c.want)):
					t.Fatalf("%v %q, want %q", r.Reason, r.Message, c.want)
				case strings.Contains(r.Message, "hunter2"):
					t.Errorf("%q has the secret", r.Message)
				}
			}
			seen := producer.seen.Load()
			if c.want != "" {
				if seen != nil {
					t.Error("a request was made all the same")
				}
				return
			}
			if got := seen.Header.Get("Authorization"); got != secret {
				t.Errorf("sent %q", got)
			}
			if c.http2 != (seen.ProtoMajor == 2) {
				t.Errorf("spoke %s", seen.Proto)
			}
			if n := producer.conns.Load(); n != 1 {
				t.Errorf("%d connections for 3 collections", n)
			}
		})
	}
}

// TestCredentialsOverGRPC: a producer that answers over gRPC is reached as the
// others are.
func TestCredentialsOverGRPC(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	cert := ca.sign(&x509.Certificate{DNSNames: []string{"producer.test"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	client := ca.sign(&x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	var seen atomic.Value
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(&tls.Config{
			Certificates: []tls.Certificate{*cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool,
		})),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			told, _ := metadata.FromIncomingContext(stream.Context())
			seen.Store(strings.Join(told.Get("authorization"), ", "))
			return next(srv, stream)
		}))
	exposer.Expose(server, "p", prometheus.NewRegistry())
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { _ = server.Serve(lis); close(served) }()
	t.Cleanup(func() { server.Stop(); <-served })

	credential := func(pool *x509.CertPool, digest string, mutual bool) scrape.Setup {
		c := scrape.Credential{Authorization: secret, Hosts: hosts(t, "127.0.0.1"), TLS: &tls.Config{RootCAs: pool}, TLSDigest: digest}
		if mutual {
			c.TLS.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return client, nil }
		}
		return scrape.Setup{Credentials: map[string]scrape.Credential{"c": c}}
	}
	s := scrape.New(scrape.Config{Sink: &sink{t: t}, Setup: credential(ca.pool, "1", true)})
	defer s.Close()
	a := &assignment.Assignment{
		ProducerID: "p", Endpoint: "grpcs://" + lis.Addr().String(), Interval: time.Minute, Timeout: 20 * time.Second,
		Credential: "c", TLSServerName: "producer.test",
	}
	c, err := s.Open(a)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name  string
		setup scrape.Setup
		good  bool
	}{
		{"as it is", credential(ca.pool, "1", true), true},
		{"another authority", credential(stranger.pool, "2", true), false},
		{"no client certificate", credential(ca.pool, "3", false), false},
		{"as it was", credential(ca.pool, "1", true), true},
	} {
		s.Configure(step.setup)
		if err := c.Update(a); err != nil {
			t.Fatal(err)
		}
		seen.Store("nothing")
		r := c.Collect(t.Context(), time.Now())
		if good := r.Reason == schedule.ReasonNone; good != step.good || strings.Contains(r.Message, "hunter2") {
			t.Errorf("%s: %v %s", step.name, r.Reason, r.Message)
		}
		if got := seen.Load(); (got == secret) != step.good {
			t.Errorf("%s: sent %q", step.name, got)
		}
	}
	plain := *a
	plain.Endpoint = "grpc://" + lis.Addr().String()
	if _, err := s.Open(&plain); err == nil || !strings.Contains(err.Error(), "in the clear, by grpc") {
		t.Errorf("without TLS: %v", err)
	}
}

func TestCredentialIsRefused(t *testing.T) {
	s := scrape.New(scrape.Config{Sink: &sink{t: t}, Setup: scrape.Setup{Credentials: map[string]scrape.Credential{
		"token": {Authorization: secret, Hosts: hosts(t, "node", "*.example.com:443")},
		"clear": {Authorization: secret, Hosts: hosts(t, "node"), AllowHTTP: true},
		"trust": {TLS: &tls.Config{}, TLSDigest: "1", Hosts: hosts(t, "node")},
	}}})
	for _, c := range []struct{ credential, server, url, want string }{
		{"", "", "http://node/", ""},
		{"token", "", "https://node/", ""},
		{"token", "", "https://a.example.com/", ""},
		{"token", "", "https://a.example.com:444/", `credential "token" is not for the host "a.example.com:444"`},
		{"token", "", "https://evil/", `credential "token" is not for the host "evil"`},
		{"token", "", "http://node/", `credential "token" must not be sent in the clear, by http`},
		{"clear", "", "http://node/", ""},
		{"clear", "", "http://evil/", `credential "clear" is not for the host "evil"`},
		{"trust", "", "http://node/", ""},
		{"none", "", "https://node/", `no credential "none"`},
		{"", "a b", "https://node/", `TLS server name "a b": want a host name or an address`},
	} {
		_, err := s.Open(&assignment.Assignment{
			ProducerID: "p", Endpoint: c.url, Interval: time.Minute, Credential: c.credential, TLSServerName: c.server,
		})
		if got := fmt.Sprint(err); got != c.want && (err != nil || c.want != "") {
			t.Errorf("%+v: %s", c, got)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v has the secret", err)
		}
	}
	for _, shown := range []string{fmt.Sprintf("%v", scrape.Credential{Authorization: secret}), fmt.Sprintf("%+v", &scrape.Credential{Authorization: secret}), fmt.Sprintf("%#v", scrape.Credential{Authorization: secret})} {
		if strings.Contains(shown, "hunter2") {
			t.Errorf("%s has the secret", shown)
		}
	}
}

// TestCredentialsAreExchanged: an unchanged setup touches no connection; a
// changed secret is sent from the next update on; other TLS makes a new
// connection.
func TestCredentialsAreExchanged(t *testing.T) {
	ca := newAuthority(t)
	producer := secure(t, ca, false, false)
	setup := func(authorization, digest string) scrape.Setup {
		return scrape.Setup{Credentials: map[string]scrape.Credential{"c": {
			Authorization: config.Secret(authorization), TLSDigest: digest,
			TLS: &tls.Config{RootCAs: ca.pool, ServerName: "producer.test"}, Hosts: hosts(t, "127.0.0.1"),
		}}}
	}
	s := scrape.New(scrape.Config{Sink: &sink{t: t}, Setup: setup("Bearer one", "1")})
	defer s.Close()
	a := &assignment.Assignment{ProducerID: "p", Endpoint: producer.url, Interval: time.Minute, Timeout: 20 * time.Second, Credential: "c"}
	c, err := s.Open(a)
	if err != nil {
		t.Fatal(err)
	}
	check := func(authorization string, conns int64) {
		t.Helper()
		if err := c.Update(a); err != nil {
			t.Fatal(err)
		}
		if r := c.Collect(t.Context(), time.Now()); r.Reason != schedule.ReasonNone {
			t.Fatal(r.Message)
		}
		if got := producer.seen.Load().Header.Get("Authorization"); got != authorization || producer.conns.Load() != conns {
			t.Errorf("sent %q on connection %d, want %q on %d", got, producer.conns.Load(), authorization, conns)
		}
	}
	check("Bearer one", 1)
	s.Configure(setup("Bearer one", "1"))
	check("Bearer one", 1)
	s.Configure(setup("Bearer two", "1"))
	check("Bearer two", 1)
	s.Configure(setup("Bearer two", "2"))
	check("Bearer two", 2)
	s.Configure(scrape.Setup{})
	if err := c.Update(a); err == nil || err.Error() != `no credential "c"` {
		t.Errorf("without it: %v", err)
	}
}
