package auth_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rollcall-metrics/rollcall/services/internal/access"
	"github.com/rollcall-metrics/rollcall/services/internal/auth"
	"github.com/rollcall-metrics/rollcall/services/internal/auth/authtest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

const secret = "0123456789abcdef0123456789abcdef"

// rules know one token, and the certificates of the default.
func rules(t *testing.T) func() *access.Rules {
	t.Helper()
	hash := sha256.Sum256([]byte(secret))
	parsed, err := access.Parse([]byte(`
identities: [{spiffe: "spiffe://*/rollcall/{role}/{id}"}]
tokens: [{name: ci, role: reader, sha256: ` + hex.EncodeToString(hash[:]) + `}]`))
	if err != nil {
		t.Fatal(err)
	}
	return func() *access.Rules { return parsed }
}

// state is that of a connection with a certificate.
func state(t *testing.T, names ...string) tls.ConnectionState {
	t.Helper()
	leaf, err := x509.ParseCertificate(authtest.NewCA(t).Issue(t, names...).Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}
}

const (
	reader   = "spiffe://test.example/rollcall/reader/ben"
	producer = "spiffe://test.example/rollcall/producer/p-1"
)

// TestHandler: certificates and tokens over HTTP, and who the handler sees.
func TestHandler(t *testing.T) {
	metrics := auth.NewMetrics()
	var saw string
	h := auth.New(auth.Config{Rules: rules(t), Logger: slog.New(slog.DiscardHandler), Metrics: metrics}).Handler(
		http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			who, _ := auth.From(r.Context())
			saw = who.Name
		}))
	for _, c := range []struct {
		path, certificate string
		header            []string
		want              int
		saw               string
	}{
		{"/metrics", reader, nil, 200, reader},
		{"/metrics", producer, nil, 403, ""},
		{"/metrics", producer, []string{"Bearer " + secret}, 403, ""},
		{"/metrics", "", []string{"Bearer " + secret}, 200, "token:ci"},
		{"/metrics", "spiffe://test.example/else", []string{"bearer " + secret}, 200, "token:ci"},
		{"/metrics", "spiffe://test.example/a//b", []string{"Bearer " + secret}, 401, ""},
		{"/metrics", "spiffe://test.example/else", nil, 401, ""},
		{"/metrics", "", nil, 401, ""},
		{"/metrics", "", []string{secret}, 401, ""},
		{"/metrics", "", []string{""}, 401, ""},
		{"/metrics", "", []string{"Bearer"}, 401, ""},
		{"/metrics", "", []string{"Bearer " + secret[1:]}, 401, ""},
		{"/metrics", "", []string{"Basic " + secret}, 401, ""},
		{"/metrics", "", []string{"Bearer " + strings.Repeat("x", 1<<16)}, 401, ""},
		{"/metrics", "", []string{"Bearer " + secret, "Bearer " + secret}, 401, ""},
		{"/healthz", "", nil, 200, ""},
		{"/healthz", "", []string{"Bearer wrong"}, 200, ""},
		{"/debug/pprof/", reader, nil, 403, ""},
		{"/nowhere", reader, nil, 403, ""},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, c.path, http.NoBody)
		if c.certificate != "" {
			s := state(t, c.certificate)
			r.TLS = &s
		}
		r.Header["Authorization"] = c.header
		saw = ""
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.want || saw != c.saw || (w.Code == 401) != (w.Header().Get("WWW-Authenticate") == "Bearer") {
			t.Errorf("%s of %q with %.50q: %d as %q", c.path, c.certificate, c.header, w.Code, saw)
		}
		if strings.Contains(w.Body.String(), "test.example") || strings.Contains(w.Body.String(), secret[1:]) {
			t.Errorf("the answer repeats %s", w.Body)
		}
	}
	if n := testutil.ToFloat64(metrics.Denied.WithLabelValues("http", "permission_denied", "ROLE_MISSING")); n != 4 {
		t.Errorf("%v were counted as without the role", n)
	}
	if n := testutil.ToFloat64(metrics.Denied.WithLabelValues("http", "unauthenticated", "NO_CREDENTIALS")); n != 1 {
		t.Errorf("%v were counted as without credentials", n)
	}
}

// TestWithoutRulesNobodyIsLetIn: also when they are taken away.
func TestWithoutRulesNobodyIsLetIn(t *testing.T) {
	for what, current := range map[string]func() *access.Rules{"no function": nil, "no rules": func() *access.Rules { return nil }} {
		h := auth.New(auth.Config{Rules: current, Logger: slog.New(slog.DiscardHandler)}).Handler(http.NotFoundHandler())
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody)
		s := state(t, reader)
		r.TLS = &s
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != http.StatusUnauthorized {
			t.Errorf("%s: %d", what, w.Code)
		}
	}
}

// call makes a unary call of a method that may not be there.
func call(ctx context.Context, p *auth.Porter, method string, req any) (who string, err error) {
	_, err = p.Unary()(ctx, req, &grpc.UnaryServerInfo{FullMethod: method}, func(ctx context.Context, _ any) (any, error) {
		from, ok := auth.From(ctx)
		who = fmt.Sprint(from.Name, ok)
		return &healthv1.HealthCheckResponse{}, nil
	})
	return who, err
}

// TestUnary: what the table does not have, and what is not a message, is refused
// to everybody; what is open is for everybody.
func TestUnary(t *testing.T) {
	p := auth.New(auth.Config{Rules: rules(t), Logger: slog.New(slog.DiscardHandler), Metrics: auth.NewMetrics()})
	operator := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: credentials.TLSInfo{State: state(t, "spiffe://test.example/rollcall/operator/ann")}})
	alone := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: credentials.TLSInfo{State: state(t, producer)}})
	const register = "/rollcall.registry.v1.ProducerService/RegisterProducer"
	message := &healthv1.HealthCheckRequest{Service: "p-1"}
	for _, c := range []struct {
		ctx    context.Context
		method string
		req    any
		who    string
		code   codes.Code
	}{
		{operator, register, message, "spiffe://test.example/rollcall/operator/anntrue", codes.OK},
		{operator, "/rollcall.registry.v1.ProducerService/Unheard", message, "", codes.PermissionDenied},
		{operator, "", message, "", codes.PermissionDenied},
		{operator, "/grpc.health.v1.Health/Check", message, "false", codes.OK},
		{t.Context(), "/grpc.health.v1.Health/Check", message, "false", codes.OK},
		{t.Context(), register, message, "", codes.Unauthenticated},
		{alone, register, message, "", codes.PermissionDenied}, // It has no such field.
		{alone, register, "p-1", "", codes.PermissionDenied},
		{alone, register, nil, "", codes.PermissionDenied},
		{metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer "+secret)), register, message, "", codes.PermissionDenied},
	} {
		who, err := call(c.ctx, p, c.method, c.req)
		if who != c.who || status.Code(err) != c.code {
			t.Errorf("%s: %q, %v; want %q, %v", c.method, who, err, c.who, c.code)
		}
	}
}

// TestOpen: everybody is let in, and is nobody.
func TestOpen(t *testing.T) {
	p := auth.New(auth.Config{Open: true, Logger: slog.New(slog.DiscardHandler), Metrics: auth.NewMetrics()})
	for _, method := range []string{"/rollcall.registry.v1.PlacementService/Rebalance", "/unheard/Of"} {
		if who, err := call(t.Context(), p, method, "anything"); who != "false" || err != nil {
			t.Errorf("%s: %q, %v", method, who, err)
		}
	}
}
