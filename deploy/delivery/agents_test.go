package delivery_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/deploy/internal/child"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
)

// A setup is what an agent is to do.
type setup struct {
	dir      string // its data, its logs
	pace     time.Duration
	targets  *producers
	write    string // the URL of the receiver
	maxBytes int64  // of the queue, where it can be set
}

// A kind of agent: plan tells how it is run.
type kind struct {
	name    string
	ours    bool
	missing func() error // why it cannot be had here; nil for ours
	plan    func(t testing.TB, s *setup) *child.Service

	// queue is the directory with what is not delivered yet, of the agent's data.
	queue func(s *setup) string

	// drained is how an agent that was stopped is run without producers; nil when it
	// sends nothing then of what it has kept.
	drained func(t testing.TB, s *setup, plan *child.Service) *child.Service
}

var kinds = []kind{
	{"rollcall", true, nil, planCollector, below("collector/queue"), withoutRegistry},
	{"vmagent", false, missingPeer("vmagent"), planVmagent, below("queue"), withoutTargets},
	{"prometheus", false, missingPeer("prometheus"), planPrometheus, below("data"), nil},
}

func below(path string) func(*setup) string {
	return func(s *setup) string { return filepath.Join(s.dir, path) }
}

// skip skips the test of an agent that cannot be had, unless all is required.
func (k kind) skip(t testing.TB) {
	t.Helper()
	if k.missing == nil {
		return
	}
	err := k.missing()
	switch {
	case err == nil:
	case os.Getenv("ROLLCALL_REQUIRE_ALL") == "1":
		t.Fatalf("%v, and ROLLCALL_REQUIRE_ALL=1", err)
	default:
		t.Skip(err)
	}
}

func missingPeer(name string) func() error {
	return func() error {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("no peer: %w (on Debian: apt-get install prometheus victoria-metrics)", err)
		}
		return nil
	}
}

// work is a directory that lives as long as this process.
var work string

// commands builds the services, once.
var commands = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(work, "bin")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", bin+"/", "../../services/cmd/registry", "../../services/cmd/collector")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return bin, nil
})

// planCollector starts a registry and tells it of the producers.
func planCollector(t testing.TB, s *setup) *child.Service {
	t.Helper()
	bin, err := commands()
	if err != nil {
		t.Fatal(err)
	}
	at := freePorts(t, 4)
	registry := launch(t, child.Plan(filepath.Join(bin, "registry"), "registry", s.dir, at[0], at[1], "--no-self-register"))
	t.Cleanup(registry.Kill)
	register(t, registry.GRPC, s)
	config := filepath.Join(s.dir, "collector.yml")
	write(t, config, fmt.Sprintf("sinks:\n  - name: sink\n    remote_write: {url: %q}\nqueue: {max_bytes: %dKiB}\n", s.write, s.maxBytes>>10))
	return child.Plan(filepath.Join(bin, "collector"), "collector", s.dir, at[2], at[3],
		"--id", "collector", "--no-self-register", "--no-store", "--registry", registry.GRPC, "--config", config)
}

// register registers all producers.
func register(t testing.TB, address string, s *setup) {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	client := registryv1.NewProducerServiceClient(conn)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, name := range s.targets.names {
		_, err := client.RegisterProducer(ctx, &registryv1.RegisterProducerRequest{Producer: &registryv1.Producer{
			ProducerId: name, Endpoint: "http://" + s.targets.address + "/" + name,
			Interval: durationpb.New(s.pace), Timeout: durationpb.New(s.pace),
			Labels: []*registryv1.Label{{Name: "host", Value: name}, {Name: "job", Value: "delivery"}},
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func planVmagent(t testing.TB, s *setup) *child.Service {
	t.Helper()
	config := filepath.Join(s.dir, "vmagent.yml")
	write(t, config, peerConfig(s))
	web := freePorts(t, 1)[0]
	return &child.Service{Name: "vmagent", HTTP: web, Ready: "/health", Log: filepath.Join(s.dir, "vmagent.log"), Args: []string{
		"vmagent", "-promscrape.config=" + config, "-remoteWrite.url=" + s.write,
		"-remoteWrite.tmpDataPath=" + filepath.Join(s.dir, "queue"), "-httpListenAddr=" + web, "-loggerLevel=WARN",
	}}
}

func planPrometheus(t testing.TB, s *setup) *child.Service {
	t.Helper()
	config := filepath.Join(s.dir, "prometheus.yml")
	write(t, config, peerConfig(s)+fmt.Sprintf("remote_write: [{url: %q}]\n", s.write))
	web := freePorts(t, 1)[0]
	return &child.Service{Name: "prometheus", HTTP: web, Ready: "/-/ready", Log: filepath.Join(s.dir, "prometheus.log"), Args: []string{
		"prometheus", "--enable-feature=agent", "--config.file=" + config, "--storage.agent.path=" + filepath.Join(s.dir, "data"),
		"--web.listen-address=" + web, "--log.level=warn",
		"--storage.remote.flush-deadline=5s", // it is stopped while nobody takes what it flushes; the default is a minute
	}}
}

// peerConfig is what both peers read.
func peerConfig(s *setup) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "global: {scrape_interval: %s, scrape_timeout: %s}\nscrape_configs:\n- job_name: delivery\n  static_configs:\n", s.pace, s.pace)
	for _, name := range s.targets.names {
		fmt.Fprintf(&b, "  - {targets: [%q], labels: {__metrics_path__: /%s, host: %s}}\n", s.targets.address, name, name)
	}
	return b.String()
}

// launch starts a process and waits until it is ready.
func launch(t testing.TB, plan *child.Service) *child.Child {
	t.Helper()
	c, err := child.Start(plan)
	if err != nil {
		t.Fatal(err)
	}
	if err := child.AwaitReady(t.Context(), c); err != nil {
		c.Kill()
		t.Fatal(err)
	}
	return c
}

// terminate asks a process to stop, and fails when it does not.
func terminate(t testing.TB, c *child.Child) time.Duration {
	t.Helper()
	const limit = 90 * time.Second
	began := time.Now()
	c.Terminate()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-c.Done():
	case <-timer.C:
		c.Kill()
		t.Errorf("%s had not stopped after %v", c.Name, limit)
	}
	return time.Since(began)
}

func freePorts(t testing.TB, n int) []string {
	t.Helper()
	free, err := child.FreePorts(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	return free
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestMain(m *testing.M) {
	flag.Parse()
	if *serveAt != "" {
		os.Exit(serveReceiver(*serveAt, *serveJournal))
	}
	go noted.watch()
	var err error
	if work, err = os.MkdirTemp("", "rollcall-delivery"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(work)
	os.Exit(code)
}
