package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/authority"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// TestATokenIsNotForWhoSaysWhereHeIs: a collector that is asked at the address that
// it has told does not get to see an operator's token. One that is named on the
// command line does.
func TestATokenIsNotForWhoSaysWhereHeIs(t *testing.T) {
	a, _, err := authority.New(authority.DefaultTrustDomain, time.Now(), 1)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := a.Issue(authority.Request{Role: "collector", ID: "c", DNS: []string{"localhost"}, Days: 1}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, content := range map[string]string{
		"crt": string(pair.Certificate), "key": string(pair.Key), "ca": string(a.Certificate()), "token": strings.Repeat("t", 32),
	} {
		if err := os.WriteFile(at(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	identity, err := process.LoadIdentity(process.IdentityFiles{Cert: at("crt"), Key: at("key"), CA: at("ca")})
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan []string, 1)
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(identity.Server(process.NewRefusals(slog.New(slog.DiscardHandler), prometheus.NewRegistry())))),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			seen <- metadata.ValueFromIncomingContext(stream.Context(), "authorization")
			return status.Error(codes.Unauthenticated, "who is that?")
		}))
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(lis) }()
	t.Cleanup(server.Stop)

	_, port, _ := net.SplitHostPort(lis.Addr().String())
	address := net.JoinHostPort("localhost", port)
	flags := &process.ClientFlags{}
	flags.TLSCA, flags.TokenFile = at("ca"), at("token")
	ask := func(ctx context.Context, client collectorv1.CollectionServiceClient) error {
		_, err := client.ListHeld(ctx, &collectorv1.ListHeldRequest{})
		return err
	}
	err = askKnown(t.Context(), flags, &registryv1.Collector{IntrospectionEndpoint: address}, time.Minute, ask)
	if got := <-seen; len(got) != 0 {
		t.Errorf("a collector was shown %q", got)
	}
	if err == nil || !strings.Contains(err.Error(), "no token is shown") {
		t.Errorf("it says %v", err)
	}
	if err := askCollector(t.Context(), flags, address, time.Minute, ask); status.Code(err) != codes.Unauthenticated {
		t.Error(err)
	}
	if got := <-seen; len(got) != 1 {
		t.Errorf("a collector of the command line was shown %q", got)
	}
}
