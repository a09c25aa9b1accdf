package bench

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/registry"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"
)

// roleVariable tells a process of this test binary which server to be.
const roleVariable = "ROLLCALL_BENCH_SERVER"

func TestMain(m *testing.M) {
	serve := map[string]func(ctx context.Context, dir string) error{
		"registry": serveRegistry, "etcd": serveEtcd,
		"collector": serveCollector, "collector-discarding": serveDiscarding, "exposers": serveExposers,
		"collector-forwarding": serveForwarding, "receiver": serveReceiver,
	}[os.Getenv(roleVariable)]
	if serve == nil {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, os.Args[len(os.Args)-1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serveRegistry(ctx context.Context, dir string) error {
	lis, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	web, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	r, err := registry.New(ctx, registry.Config{Listener: lis, HTTPListener: web, DataDir: dir, Logger: slog.New(slog.DiscardHandler), Endpoints: registry.EndpointPolicy{Loopback: true}})
	if err != nil {
		return err
	}
	fmt.Println(lis.Addr(), web.Addr())
	return r.Run(ctx)
}

func serveEtcd(ctx context.Context, dir string) error {
	lis, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	address := lis.Addr().String()
	if err := lis.Close(); err != nil {
		return err
	}
	cfg := embed.NewConfig()
	cfg.Dir = filepath.Join(dir, "etcd")
	cfg.LogLevel = "error"
	cfg.ListenClientUrls = []url.URL{{Scheme: "http", Host: address}}
	cfg.AdvertiseClientUrls = cfg.ListenClientUrls
	cfg.ListenPeerUrls = nil
	cfg.MaxTxnOps = 2 * peerPuts // of compares, too
	cfg.QuotaBackendBytes = registry.DefaultQuota
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	<-e.Server.ReadyNotify()
	fmt.Println(address)
	<-ctx.Done()
	e.Close()
	return nil
}

// server is a server in a process of its own.
type server struct {
	address string
	web     string // where metrics are, if anywhere
	profile string // where profiles are, if anywhere
	process *exec.Cmd
	conn    *grpc.ClientConn // of client

	operator *http.Client // of a server with certificates; nil: plain text
}

// ask asks the server over HTTP.
func (s *server) ask(path string) (*http.Response, error) {
	if s.operator != nil {
		return s.operator.Get("https://" + s.web + path)
	}
	return http.Get("http://" + s.web + path)
}

// start starts one and waits until it serves.
func start(b *testing.B, role string) *server {
	b.Helper()
	return startIn(b, role, b.TempDir())
}

// stop stops one before the benchmark ends.
func (s *server) stop() {
	_ = s.process.Process.Signal(syscall.SIGTERM)
	_ = s.process.Wait()
}

// startIn is start with the data in a directory.
func startIn(b *testing.B, role, dir string) *server {
	b.Helper()
	return startWith(b, role, dir)
}

// startWith is startIn with arguments.
func startWith(b *testing.B, role, dir string, args ...string) *server {
	b.Helper()
	cmd := exec.Command(os.Args[0], append(args, dir)...)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatalf("%s did not start: %v", role, err)
	}
	addresses := append(strings.Fields(line), "", "")
	s := &server{address: addresses[0], web: addresses[1], profile: addresses[2], process: cmd}
	b.Cleanup(s.stop)
	for {
		conn, err := net.DialTimeout("tcp", s.address, time.Second)
		if err == nil {
			_ = conn.Close()
			return s
		}
	}
}

// memory is the resident memory of the process, in MiB.
func (s *server) memory(b *testing.B) float64 {
	b.Helper()
	return status(b, s.process.Process.Pid, "VmRSS:") / 1024
}

// cpu is the processor time that the process has used, in seconds.
func (s *server) cpu(b *testing.B) float64 {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.process.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100
}

// status is a line of /proc/<pid>/status, in KiB.
func status(b *testing.B, pid int, name string) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name); ok {
			n, _ := strconv.ParseFloat(strings.Fields(value)[0], 64)
			return n
		}
	}
	return 0
}

// counter counts the bytes that come in over its connections.
type counter struct{ received atomic.Int64 }

func (c *counter) dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	return &counted{conn, c}, err
}

type counted struct {
	net.Conn
	counter *counter
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.counter.received.Add(int64(n))
	return n, err
}
