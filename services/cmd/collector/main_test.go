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
	"github.com/rollcall-metrics/rollcall/services/internal/authority"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"collector": main, "trusts": trusts})
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
			"refuses":   refuses,
			"hang":      hang,
			"terminate": terminate,
			"hangup":    hangup,
			"lead":      lead,
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

// certify DIR NAME...: write the certificate of the collector a for these names, its
// key and its authority, and a reader's into DIR/reader, with which await asks from
// then on.
func certify(ts *testscript.TestScript, _ bool, args []string) {
	a, _, err := authority.New(authority.DefaultTrustDomain, time.Now(), 1)
	ts.Check(err)
	ts.Setenv("CLIENT", filepath.Join(ts.MkAbs(args[0]), "reader"))
	for dir, request := range map[string]authority.Request{
		ts.MkAbs(args[0]):   {Role: "collector", ID: "a", DNS: args[1:], IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Days: 1},
		ts.Getenv("CLIENT"): {Role: "reader", ID: "somebody", Days: 1},
	} {
		pair, err := a.Issue(request, time.Now())
		ts.Check(err)
		ts.Check(os.MkdirAll(dir, 0o700))
		for name, content := range map[string][]byte{"tls.crt": pair.Certificate, "tls.key": pair.Key, "ca.crt": a.Certificate()} {
			ts.Check(os.WriteFile(filepath.Join(dir, name), content, 0o600))
		}
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
	want := regexp.MustCompile(strings.Join(args[1:], " "))
	// Whose certificate it is, is tested elsewhere.
	config := &tls.Config{InsecureSkipVerify: true}
	if dir := ts.Getenv("CLIENT"); dir != "" {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
		ts.Check(err)
		config.Certificates = []tls.Certificate{pair}
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	poll(ts, func() error {
		resp, err := client.Get(args[0])
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err == nil && (resp.StatusCode != http.StatusOK || !want.Match(body)) {
			err = fmt.Errorf("%s answers %s %.500q", args[0], resp.Status, body)
		}
		return err
	})
}

// refuses ADDRESS: until nobody listens there.
func refuses(ts *testscript.TestScript, _ bool, args []string) {
	poll(ts, func() error {
		conn, err := net.Dial("tcp", args[0])
		if err != nil {
			return nil //nolint:nilerr // what is waited for
		}
		return errors.Join(errors.New("somebody listens on "+args[0]), conn.Close())
	})
}

// hang ADDRESS: open a stream on a gRPC server that only the client would end.
func hang(ts *testscript.TestScript, _ bool, args []string) {
	conn, err := grpc.NewClient("passthrough:///"+args[0], grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	ts.Check(err)
	ts.Defer(func() { _ = conn.Close() })
	stream, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(context.Background())
	ts.Check(err)
	ts.Check(stream.Send(&reflectionv1.ServerReflectionRequest{
		MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{},
	}))
	_, err = stream.Recv() // it is being served
	ts.Check(err)
}

// terminate: send SIGTERM to every command in the background.
func terminate(ts *testscript.TestScript, _ bool, _ []string) {
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(syscall.SIGTERM))
	}
}

// hangup: send SIGHUP to every command in the background.
func hangup(ts *testscript.TestScript, _ bool, _ []string) {
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(syscall.SIGHUP))
	}
}

// lead NAME [DIR]: run a registry in this process, with the certificate in a
// directory, and set the variable to its address. lead off: stop it.
func lead(ts *testscript.TestScript, _ bool, args []string) {
	if args[0] == "off" {
		stop, ok := leading.LoadAndDelete(ts.Name())
		if !ok {
			ts.Fatalf("no registry runs")
		}
		ts.Check(stop.(func() error)()) //nolint:errcheck // put there below
		return
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	config := registry.Config{
		Listener:  lis,
		Memory:    registry.NewMemoryStore(),
		Endpoints: registry.EndpointPolicy{Loopback: true},
		Heartbeat: 200 * time.Millisecond,
		Logger:    slog.New(slog.DiscardHandler),
	}
	if len(args) > 1 {
		dir := ts.MkAbs(args[1])
		identity, err := process.LoadIdentity(process.IdentityFiles{
			Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), CA: filepath.Join(dir, "ca.crt"),
		})
		ts.Check(err)
		config.ServerTLS = identity.Server(process.NewRefusals(config.Logger, prometheus.NewRegistry()))
		config.ClientTLS = identity.Client()
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
	ts.Setenv(args[0], lis.Addr().String())
}

// leading holds the function that stops the registry of each script by its name.
var leading sync.Map
