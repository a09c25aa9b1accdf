package scripttest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
)

// Listen listens on an address of this host.
func Listen(ts *testscript.TestScript, address string) net.Listener {
	lis, err := listen(address)
	ts.Check(err)
	return lis
}

func listen(address string) (net.Listener, error) {
	var config net.ListenConfig
	return config.Listen(context.Background(), "tcp", address)
}

// Dial connects to a gRPC server until the script ends.
func Dial(ts *testscript.TestScript, address string) *grpc.ClientConn {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	ts.Check(err)
	ts.Defer(func() { _ = conn.Close() })
	return conn
}

func free(ts *testscript.TestScript, _ bool, names []string) {
	for _, name := range names {
		Poll(ts, func() error {
			lis, err := listen("127.0.0.1:" + strconv.Itoa(10_000+rand.IntN(20_000)))
			if err == nil {
				ts.Setenv(name, lis.Addr().String())
				err = lis.Close()
			}
			return err
		})
	}
}

func exits(ts *testscript.TestScript, _ bool, args []string) {
	said := Exits(ts, args)
	if strings.Count(said, "\n") != 1 {
		ts.Fatalf("said %q, want one line", said)
	}
}

// Exits runs a command that follows a code in args, and returns what it said on
// standard error. It fails the script unless the command ends with this code, and
// said something that begins with its name.
func Exits(ts *testscript.TestScript, args []string) string {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != want {
		ts.Fatalf("got %v, want exit code %d", err, want)
	}
	said := ts.ReadFile("stderr")
	if !strings.HasPrefix(said, args[1]+": ") {
		ts.Fatalf("said %q", said)
	}
	return said
}

func await(ts *testscript.TestScript, _ bool, args []string) {
	answers(ts, args[0], http.StatusOK, strings.Join(args[1:], " "))
}

func unready(ts *testscript.TestScript, _ bool, args []string) {
	answers(ts, args[0], http.StatusServiceUnavailable, strings.Join(args[1:], " "))
}

// answers waits until the URL answers with a code and such a body.
func answers(ts *testscript.TestScript, url string, code int, body string) {
	want := regexp.MustCompile(body)
	config := &tls.Config{InsecureSkipVerify: true} //nolint:gosec // whose certificate it is, is tested elsewhere
	if dir := ts.Getenv("CLIENT"); dir != "" {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
		ts.Check(err)
		config.Certificates = []tls.Certificate{pair}
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	Poll(ts, func() error {
		req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
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

func refuses(ts *testscript.TestScript, _ bool, args []string) {
	var dialer net.Dialer
	Poll(ts, func() error {
		conn, err := dialer.DialContext(context.Background(), "tcp", args[0])
		if err != nil {
			return nil //nolint:nilerr // what is waited for
		}
		return errors.Join(errors.New("somebody listens on "+args[0]), conn.Close())
	})
}

func hang(ts *testscript.TestScript, _ bool, args []string) {
	stream, err := reflectionv1.NewServerReflectionClient(Dial(ts, args[0])).ServerReflectionInfo(context.Background())
	ts.Check(err)
	ts.Check(stream.Send(&reflectionv1.ServerReflectionRequest{
		MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{},
	}))
	_, err = stream.Recv() // it is being served
	ts.Check(err)
}

func terminate(ts *testscript.TestScript, _ bool, _ []string) { signal(ts, syscall.SIGTERM) }

func hangup(ts *testscript.TestScript, _ bool, _ []string) { signal(ts, syscall.SIGHUP) }

func signal(ts *testscript.TestScript, s os.Signal) {
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(s))
	}
}
