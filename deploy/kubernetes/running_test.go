package kubernetes

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A running process tells in its log what it does.
type running struct {
	name  string
	lines chan string
}

// launch starts a program, and stops it when the test ends.
func launch(t *testing.T, name string, environment []string) *running {
	t.Helper()
	r := &running{name, make(chan string, 10000)}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), command(t, name))
	cmd.Env = environment
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		for range r.lines { // until it has ended
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	go func() {
		defer close(r.lines)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			r.lines <- lines.Text()
		}
	}()
	return r
}

// await returns the line of its log with these words.
func (r *running) await(t *testing.T, words ...string) string {
	t.Helper()
	var said []string
	for timeout := time.After(time.Minute); ; {
		select {
		case line, ok := <-r.lines:
			if !ok {
				t.Fatalf("%s has ended:\n%s", r.name, strings.Join(said, "\n"))
			}
			said = append(said, line)
			missing := 0
			for _, word := range words {
				if !strings.Contains(line, word) {
					missing++
				}
			}
			if missing == 0 {
				return line
			}
		case <-timeout:
			t.Fatalf("%s does not say %q:\n%s", r.name, words, strings.Join(said, "\n"))
		}
	}
}

// listening returns the ports that the system has picked, as addresses of
// localhost.
func (r *running) listening(t *testing.T) (grpc, web string) {
	t.Helper()
	var line struct{ GRPC, HTTP string }
	if err := json.Unmarshal([]byte(r.await(t, `"msg":"listening"`)), &line); err != nil {
		t.Fatal(err)
	}
	local := func(address string) string { return strings.Replace(address, "127.0.0.1", "localhost", 1) }
	return local(line.GRPC), local(line.HTTP)
}

// ask returns the status of an answer over TLS, to who has a Secret's certificate,
// or to a kubelet, which has none and believes everybody.
func (a authority) ask(t *testing.T, secret, url, serverName string) int {
	t.Helper()
	ca, err := os.ReadFile(a.file("ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: serverName, MinVersion: tls.VersionTLS13, InsecureSkipVerify: secret == ""}
	config.RootCAs.AppendCertsFromPEM(ca)
	if secret != "" {
		own, err := tls.LoadX509KeyPair(a.file(secret, "tls.crt"), a.file(secret, "tls.key"))
		if err != nil {
			t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{own}
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport, Timeout: 30 * time.Second}).Do(request)
	if err != nil {
		t.Fatalf("%s asks %s: %v", secret, url, err)
	}
	if err := response.Body.Close(); err != nil {
		t.Error(err)
	}
	return response.StatusCode
}

// The processes do with the certificates and rules of the manifests what they are
// there for: a collector and the sidecar get to the registry, the hook drains, and
// Prometheus, the probes and nobody else read.
func TestFleet(t *testing.T) {
	a, r, example, monitors := newAuthority(t), render(t, "overlays/embedded"), render(t, "examples/sidecar"), render(t, "mine/embedded").monitors
	registry := launch(t, "registry", r.environment(t, r.workload("registry"), r.container("registry"), a, t.TempDir()))
	address, web := registry.listening(t)

	environment := append(r.environment(t, r.workload("collector"), r.container("collector"), a, t.TempDir()), "ROLLCALL_REGISTRY="+address)
	collector := launch(t, "collector", environment)
	_, collectorWeb := collector.listening(t)
	collector.await(t, `"msg":"registered"`, `"producer":"rollcall/collector/collector-0"`)

	program := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	}))
	defer program.Close()
	w := example.workload("checkout")
	sidecar := launch(t, "producer", append(example.environment(t, w, &w.pod().InitContainers[0], a, t.TempDir()),
		"ROLLCALL_REGISTRY="+address, "ROLLCALL_ENDPOINT="+program.URL+"/metrics"))
	_, sidecarWeb := sidecar.listening(t)
	sidecar.await(t, `"msg":"registered"`, `"producer":"shop/checkout-0"`)

	hook := r.container("collector").Lifecycle.PreStop.Exec.Command
	drain := exec.CommandContext(t.Context(), command(t, "collector"), hook[1:]...)
	drain.Env = environment
	if said, err := drain.CombinedOutput(); err != nil || !strings.Contains(string(said), "no other live collector") {
		t.Errorf("the hook: %v\n%s", err, said)
	}

	reader, collectors := *monitors[0].Spec.Endpoints[0].TLSConfig.ServerName, *monitors[1].Spec.Endpoints[0].TLSConfig.ServerName
	for _, c := range []struct {
		secret, url, serverName string
		want                    int
	}{
		{"", "https://" + web + "/readyz", "", http.StatusOK},
		{"", "https://" + collectorWeb + "/healthz", "", http.StatusOK},
		{"", "https://" + sidecarWeb + "/healthz", "", http.StatusOK},
		{"reader-tls", "https://" + web + "/metrics", reader, http.StatusOK},
		{"reader-tls", "https://" + collectorWeb + "/metrics", collectors, http.StatusOK},
		{"reader-tls", "https://" + collectorWeb + "/api/v1/targets", "collector.rollcall", http.StatusOK},
		{"collector-tls", "https://" + web + "/metrics", "registry-0.registries.rollcall.svc", http.StatusOK},
		{"producer-tls", "https://" + web + "/metrics", "registries", http.StatusForbidden},
		{"", "https://" + web + "/metrics", "", http.StatusUnauthorized},
		{"", "https://" + collectorWeb + "/api/v1/targets", "", http.StatusUnauthorized},
	} {
		if got := a.ask(t, c.secret, c.url, c.serverName); got != c.want {
			t.Errorf("%q asks %s: %d, want %d", c.secret, c.url, got, c.want)
		}
	}
}
