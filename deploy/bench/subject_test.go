package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	_ "net/http/pprof" // of a collector, for those who look into a figure
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/deploy/internal/child"
	"github.com/rollcall-metrics/rollcall/deploy/internal/receiver"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/collector"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"
)

// A target is one producer of a benchmark; name is its label host.
type target struct{ name, address, path string }

// fleetOf is so many members behind one address, or each with a loopback address
// of its own.
func fleetOf(exposers *server, prefix string, count, samples int, apart bool) []target {
	all := make([]target, count)
	_, port, _ := net.SplitHostPort(exposers.address)
	for i := range all {
		name := fmt.Sprintf("%s-%06d", prefix, i)
		all[i] = target{name, exposers.address, fmt.Sprintf("/%d/%s", samples, name)}
		if apart {
			all[i].address = fmt.Sprintf("127.%d.%d.%d:%s", 1+i>>16, i>>8&255, i&255, port)
		}
	}
	return all
}

// A subject collects members: Rollcall or a peer, in a process of its own.
type subject struct {
	*server

	// add makes members known to it, and returns when that is acknowledged.
	add func(b *testing.B, all []target)

	// reload sets the interval of a peer.
	reload func(b *testing.B, interval time.Duration)

	stores   bool    // it answers queries
	registry *server // of Rollcall
}

// A setting is how a subject collects. Peers learn their members from a list
// that they read so often.
type setting struct {
	interval, refresh time.Duration

	idle     time.Duration // of Rollcall, if it is another interval
	discards bool          // Rollcall, without a store

	// forward is the URL of a receiver of remote write; empty for none, but for
	// vmagent, which cannot be without.
	forward string
}

// A kind is one of the subjects, nil where it cannot be had.
type kind struct {
	name  string
	start func(b *testing.B, s setting, initial []target) *subject
}

var kinds = []kind{{"rollcall", startRollcall}, {"prometheus", startPrometheus}, {"vmagent", startAgent}}

func startRollcall(b *testing.B, s setting, initial []target) *subject {
	b.Helper()
	registry := start(b, "registry")
	registry.awaitReady(b)
	role := "collector"
	if s.discards {
		role = "collector-discarding"
	}
	args := []string{registry.address}
	if s.forward != "" {
		role, args = "collector-forwarding", append(args, forwarding(b, s.forward))
	}
	r := &subject{registry: registry, stores: role == "collector"}
	r.server = startWith(b, role, b.TempDir(), args...)
	r.add = func(b *testing.B, all []target) { addToRegistry(b, registry, max(s.interval, s.idle), all) }
	r.add(b, initial)
	return r
}

// serveCollector is a server of this binary: a whole collector.
func serveCollector(ctx context.Context, dir string) error { return runCollector(ctx, dir, "", nil) }

// serveDiscarding is one that stores nothing.
func serveDiscarding(ctx context.Context, dir string) error {
	return runCollector(ctx, dir, "", discard{})
}

// serveForwarding is one that stores nothing, and has a configuration with a sink.
func serveForwarding(ctx context.Context, dir string) error {
	return runCollector(ctx, dir, os.Args[2], discard{})
}

func runCollector(ctx context.Context, dir, config string, samples collector.Sink) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collector.GCPercent)
	}
	var listen [3]net.Listener
	for i := range listen {
		lis, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		listen[i] = lis
	}
	c, err := collector.New(ctx, collector.Config{
		ID: "bench", Registries: []string{os.Args[1]}, DataDir: dir, ConfigFile: config, Sink: samples,
		Endpoints: collector.EndpointPolicy{Loopback: true},
		Listener:  listen[0], HTTPListener: listen[1], Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	go func() { _ = http.Serve(listen[2], nil) }()
	fmt.Println(listen[0].Addr(), listen[1].Addr(), listen[2].Addr())
	return c.Run(ctx)
}

// addToRegistry registers members: one by its own call, many in batches.
func addToRegistry(b *testing.B, registry *server, interval time.Duration, all []target) {
	b.Helper()
	client := registryv1.NewProducerServiceClient(registry.client(b))
	if len(all) == 1 {
		if _, err := client.RegisterProducer(b.Context(), all[0].registration(interval)); err != nil {
			b.Fatal(err)
		}
		return
	}
	group, ctx := errgroup.WithContext(b.Context())
	group.SetLimit(writers)
	for batch := range slices.Chunk(all, 1000) {
		group.Go(func() error {
			req := &registryv1.BatchRegisterProducersRequest{}
			for _, m := range batch {
				req.Requests = append(req.Requests, m.registration(interval))
			}
			resp, err := client.BatchRegisterProducers(ctx, req)
			for _, r := range resp.GetResults() {
				if r.GetCode() != 0 {
					return fmt.Errorf("register: %s", r.GetMessage())
				}
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
}

func (m target) registration(interval time.Duration) *registryv1.RegisterProducerRequest {
	return &registryv1.RegisterProducerRequest{Producer: &registryv1.Producer{
		ProducerId: m.name,
		Endpoint:   "http://" + m.address + m.path,
		Interval:   durationpb.New(interval),
		Timeout:    durationpb.New(timeoutOf(interval)),
		Labels:     []*registryv1.Label{{Name: "host", Value: m.name}, {Name: "job", Value: "bench"}},
	}}
}

// timeoutOf is that of a collection, of all subjects.
func timeoutOf(interval time.Duration) time.Duration { return min(10*time.Second, interval) }

// A directory is the list of members that a peer reads over HTTP.
type directory struct {
	mu   sync.Mutex
	all  []target
	text []byte
}

func (d *directory) add(b *testing.B, all []target) {
	b.Helper()
	type group struct {
		Targets []string          `json:"targets"`
		Labels  map[string]string `json:"labels"`
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = append(d.all, all...)
	groups := make([]group, len(d.all))
	for i, m := range d.all {
		groups[i] = group{[]string{m.address}, map[string]string{"__metrics_path__": m.path, "host": m.name}}
	}
	text, err := json.Marshal(groups)
	if err != nil {
		b.Fatal(err)
	}
	d.text = text
}

func (d *directory) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	d.mu.Lock()
	text := d.text
	d.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(text)
}

// startDirectory serves a directory in this process.
func startDirectory(b *testing.B, initial []target) (d *directory, address string) {
	b.Helper()
	d = &directory{}
	d.add(b, initial)
	web := httptest.NewServer(d)
	b.Cleanup(web.Close)
	return d, web.URL
}

// peerConfig is what Prometheus and vmagent both read.
func peerConfig(b *testing.B, path, list string, interval, refresh time.Duration) {
	b.Helper()
	sd := fmt.Sprintf("{url: %q, refresh_interval: %s}", list, refresh)
	if refresh == 0 { // vmagent has a flag for it
		sd = fmt.Sprintf("{url: %q}", list)
	}
	text := fmt.Sprintf("global: {scrape_interval: %s, scrape_timeout: %s}\nscrape_configs:\n- job_name: bench\n  http_sd_configs: [%s]\n",
		interval, timeoutOf(interval), sd)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
}

func startPrometheus(b *testing.B, s setting, initial []target) *subject {
	b.Helper()
	list, address := startDirectory(b, initial)
	dir := b.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	peerConfig(b, config, address, s.interval, s.refresh)
	web := freePort(b)
	p := startPeer(b, web, "prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+web, "--log.level=error")
	return &subject{server: p, add: list.add, stores: true, reload: func(b *testing.B, interval time.Duration) {
		peerConfig(b, config, address, interval, s.refresh)
		_ = p.process.Process.Signal(syscall.SIGHUP)
	}}
}

// startAgent starts vmagent with a place that takes its samples and forgets them.
func startAgent(b *testing.B, s setting, initial []target) *subject {
	b.Helper()
	list, address := startDirectory(b, initial)
	forward := s.forward
	if forward == "" {
		taker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(http.StatusNoContent)
		}))
		b.Cleanup(taker.Close)
		forward = taker.URL + receiver.Path
	}
	dir := b.TempDir()
	config := filepath.Join(dir, "vmagent.yml")
	peerConfig(b, config, address, s.interval, 0)
	web := freePort(b)
	p := startPeer(b, web, "vmagent", "-promscrape.config="+config, "-promscrape.httpSDCheckInterval="+s.refresh.String(),
		"-remoteWrite.url="+forward, "-remoteWrite.tmpDataPath="+filepath.Join(dir, "queue"),
		"-httpListenAddr="+web, "-loggerLevel=ERROR")
	return &subject{server: p, add: list.add, reload: func(b *testing.B, interval time.Duration) {
		peerConfig(b, config, address, interval, 0)
		_ = p.process.Process.Signal(syscall.SIGHUP)
	}}
}

func freePort(b *testing.B) string {
	b.Helper()
	free, err := child.FreePorts(b.Context(), 1)
	if err != nil {
		b.Fatal(err)
	}
	return free[0]
}

// startPeer starts a program of this machine, and skips the benchmark where it is
// missing.
func startPeer(b *testing.B, web, name string, args ...string) *server {
	b.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		b.Skipf("no peer: %v (on Debian: apt-get install prometheus victoria-metrics)", err)
	}
	cmd := exec.Command(path, args...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	s := &server{address: web, web: web, process: cmd}
	b.Cleanup(s.stop)
	for range 600 {
		resp, err := http.Get("http://" + web + "/metrics")
		if err == nil {
			_ = resp.Body.Close()
			return s
		}
		time.Sleep(100 * time.Millisecond)
	}
	b.Fatalf("%s did not start", name)
	return nil
}

// count is the value of a query that answers one number; 0 when it answers none.
func (s *subject) count(b *testing.B, query string) float64 {
	b.Helper()
	text := fetch(b, "http://"+s.web+"/api/v1/query?query="+url.QueryEscape(query))
	var answer struct {
		Data struct {
			Result []struct {
				Value [2]any `json:"value"`
			} `json:"result"`
		} `json:"data"`
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		b.Fatal(err)
	}
	if len(answer.Data.Result) == 0 {
		return 0
	}
	var n float64
	if _, err := fmt.Sscan(fmt.Sprint(answer.Data.Result[0].Value[1]), &n); err != nil {
		b.Fatal(err)
	}
	return n
}

// awaitAsked waits until so many producers have been asked.
func awaitAsked(b *testing.B, exposers *server, count int, limit time.Duration) {
	b.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(100 * time.Millisecond) {
		n, _ := exposers.counts(b)
		if n >= count {
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("%d of %d producers were asked within %v", n, count, limit)
		}
	}
}

func fetch(b *testing.B, url string) string {
	b.Helper()
	resp, err := http.Get(url)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		b.Fatalf("%s: %s %.200s", url, resp.Status, strings.TrimSpace(string(text)))
	}
	return string(text)
}
