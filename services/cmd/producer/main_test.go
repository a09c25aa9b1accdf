package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rogpeppe/go-internal/testscript"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/authority"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"producer": main})
}

func TestCommand(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Deadline:            time.Now().Add(4 * patience),
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"certify":   certify,
			"free":      free,
			"exits":     exits,
			"await":     await,
			"unready":   unready,
			"healthy":   healthy,
			"terminate": terminate,
			"lead":      lead,
			"app":       app,
			"roll":      roll,
			"strike":    strike,
		},
	})
}

// patience bounds every wait, also on a machine that is busy with other things.
const patience = 30 * time.Second

// poll fails the script unless try succeeds in time.
func poll(ts *testscript.TestScript, try func() error) {
	err := try()
	for deadline := time.Now().Add(patience); err != nil; err = try() {
		if time.Now().After(deadline) {
			ts.Fatalf("still after %v: %v", patience, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// free NAME...: set each variable to an address on which nobody listens, and
// whose port the system gives to nobody by itself.
func free(ts *testscript.TestScript, _ bool, names []string) {
	for _, name := range names {
		poll(ts, func() error {
			lis, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(10_000+rand.IntN(20_000)))
			if err == nil {
				ts.Setenv(name, lis.Addr().String())
				err = lis.Close()
			}
			return err
		})
	}
}

// certify DIR NAME...: write a certificate for these names, its key and its
// authority.
func certify(ts *testscript.TestScript, _ bool, args []string) {
	a, _, err := authority.New(authority.DefaultTrustDomain, time.Now(), 1)
	ts.Check(err)
	pair, err := a.Issue(authority.Request{Role: "registry", ID: "registry-1", DNS: args[1:], IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Days: 1}, time.Now())
	ts.Check(err)
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o700))
	for name, content := range map[string][]byte{"tls.crt": pair.Certificate, "tls.key": pair.Key, "ca.crt": a.Certificate()} {
		ts.Check(os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
}

// exits CODE COMMAND...: run a command, and expect that it ends with this code
// and says one line on standard error that begins with its name.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != want {
		ts.Fatalf("got %v, want exit code %d", err, want)
	}
	said := ts.ReadFile("stderr")
	if strings.Count(said, "\n") != 1 || !strings.HasPrefix(said, args[1]+": ") {
		ts.Fatalf("said %q, want one line", said)
	}
}

// await URL [REGEXP]: until the URL answers 200 with such a body.
func await(ts *testscript.TestScript, _ bool, args []string) {
	awaitAnswer(ts, args[0], http.StatusOK, strings.Join(args[1:], " "))
}

// unready URL [REGEXP]: until the URL answers 503 with such a body.
func unready(ts *testscript.TestScript, _ bool, args []string) {
	awaitAnswer(ts, args[0], http.StatusServiceUnavailable, strings.Join(args[1:], " "))
}

func awaitAnswer(ts *testscript.TestScript, url string, code int, body string) {
	want := regexp.MustCompile(body)
	// Whose certificate it is, is tested elsewhere.
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	poll(ts, func() error {
		resp, err := client.Get(url)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if err == nil && (resp.StatusCode != code || !want.Match(got)) {
			err = fmt.Errorf("%s answers %s %.500q", url, resp.Status, got)
		}
		return err
	})
}

// dial connects to a gRPC server until the script ends.
func dial(ts *testscript.TestScript, address string) *grpc.ClientConn {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	ts.Check(err)
	ts.Defer(func() { _ = conn.Close() })
	return conn
}

// healthy ADDRESS [SERVICE]: what gRPC health tells now; with ! it is not serving.
func healthy(ts *testscript.TestScript, neg bool, args []string) {
	service := strings.Join(args[1:], "")
	resp, err := healthv1.NewHealthClient(dial(ts, args[0])).Check(context.Background(), &healthv1.HealthCheckRequest{Service: service})
	ts.Check(err)
	if serving := resp.GetStatus() == healthv1.HealthCheckResponse_SERVING; serving == neg {
		ts.Fatalf("%q is %v", service, resp.GetStatus())
	}
}

// terminate: send SIGTERM to every command in the background.
func terminate(ts *testscript.TestScript, _ bool, _ []string) {
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(syscall.SIGTERM))
	}
}

// lead ADDRESS [DIR]: run a registry with an empty store in this process, with the
// certificate in a directory. lead off: stop it.
func lead(ts *testscript.TestScript, _ bool, args []string) {
	if args[0] == "off" {
		stop, ok := leading.LoadAndDelete(ts.Name())
		if !ok {
			ts.Fatalf("no registry runs")
		}
		ts.Check(stop.(func() error)()) //nolint:errcheck // put there below
		return
	}
	lis, err := net.Listen("tcp", args[0])
	ts.Check(err)
	config := registry.Config{
		Listener:  lis,
		Memory:    registry.NewMemoryStore(),
		Endpoints: registry.EndpointPolicy{Loopback: true},
		Logger:    slog.New(slog.DiscardHandler),
	}
	if len(args) > 1 {
		dir := ts.MkAbs(args[1])
		identity, err := process.LoadIdentity(process.IdentityFiles{
			Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), CA: filepath.Join(dir, "ca.crt"),
		})
		ts.Check(err)
		config.ServerTLS = identity.Server(process.NewRefusals(config.Logger, prometheus.NewRegistry()))
	}
	ctx, cancel := context.WithCancel(context.Background())
	r, err := registry.New(ctx, config)
	ts.Check(err)
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	stop := sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	leading.Store(ts.Name(), stop)
	ts.Defer(func() { _ = stop() })
}

// leading holds the function that stops the registry of each script by its name,
// apps the server of each address.
var leading, apps sync.Map

// app ADDRESS: serve metrics there. app off ADDRESS: no more.
func app(ts *testscript.TestScript, _ bool, args []string) {
	if args[0] == "off" {
		server, ok := apps.LoadAndDelete(args[1])
		if !ok {
			ts.Fatalf("nobody serves at %s", args[1])
		}
		ts.Check(server.(*http.Server).Close()) //nolint:errcheck // put there below
		return
	}
	lis, err := net.Listen("tcp", args[0])
	ts.Check(err)
	server := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "up_and_well 1")
	})}
	apps.Store(args[0], server)
	go func() { _ = server.Serve(lis) }()
	ts.Defer(func() { _ = server.Close() })
}

// roll REGISTRY ID [REGEXP]: until the producer is on the roll, and looks so; with
// !, that it is not on the roll now.
func roll(ts *testscript.TestScript, neg bool, args []string) {
	client := registryv1.NewProducerServiceClient(dial(ts, args[0]))
	want := regexp.MustCompile(strings.Join(args[2:], " "))
	get := func() (*registryv1.GetProducerResponse, error) {
		return client.GetProducer(context.Background(), &registryv1.GetProducerRequest{ProducerId: args[1]}, grpc.WaitForReady(true))
	}
	if neg {
		if resp, err := get(); status.Code(err) != codes.NotFound {
			ts.Fatalf("on the roll is %v, %v", resp.GetProducer(), err)
		}
		return
	}
	poll(ts, func() error {
		resp, err := get()
		if got := resp.GetProducer().String(); err == nil && !want.MatchString(got) {
			err = fmt.Errorf("on the roll is %s", got)
		}
		return err
	})
}

// strike REGISTRY ID: take a producer off the roll, as an operator does.
func strike(ts *testscript.TestScript, _ bool, args []string) {
	resp, err := registryv1.NewProducerServiceClient(dial(ts, args[0])).DeregisterProducer(context.Background(),
		&registryv1.DeregisterProducerRequest{ProducerId: args[1]})
	ts.Check(err)
	if !resp.GetChanged() {
		ts.Fatalf("%s was not on the roll", args[1])
	}
}
