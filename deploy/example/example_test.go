package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/producer"
)

func ask(t *testing.T, h http.Handler, method, target string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, target, http.NoBody))
	return w
}

func remembered(t *testing.T, h http.Handler, target string) map[string]memory {
	t.Helper()
	var m map[string]memory
	if err := json.Unmarshal(ask(t, h, http.MethodGet, target).Body.Bytes(), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestEachPullIsRemembered(t *testing.T) {
	s := newStage("node", 2, 10)
	for range 3 {
		w := ask(t, s, http.MethodGet, "/metrics/2")
		if got := w.Header().Get(producer.Header); got != "node-2" {
			t.Errorf("the endpoint says it is %q, want node-2", got)
		}
	}
	w := ask(t, s, http.MethodGet, "/metrics")
	if got := w.Header().Get(producer.Header); got != "" {
		t.Errorf("the plain endpoint says it is %q", got)
	}
	for _, metric := range []string{"example_pulls_total 1", "go_goroutines", "process_start_time_seconds", "node_cpu_seconds_total", "node_memory_MemAvailable_bytes", "node_load1"} {
		if !strings.Contains(w.Body.String(), metric) {
			t.Errorf("no %s in the metrics", metric)
		}
	}
	m := remembered(t, s, "/pulls")
	if len(m) != 3 || m["node-1"].Total != 0 || m["node-2"].Total != 3 || len(m["node-2"].Times) != 3 || m["node"].Total != 1 {
		t.Errorf("pulls are %v, want 0 of node-1, 3 of node-2, 1 of node", m)
	}
	if one := remembered(t, s, "/pulls?id=node-2"); len(one) != 1 || !slices.Equal(one["node-2"].Times, m["node-2"].Times) {
		t.Errorf("the pulls of node-2 alone are %v, want %v", one, m["node-2"])
	}
	if code := ask(t, s, http.MethodGet, "/pulls?id=node-9").Code; code != http.StatusNotFound {
		t.Errorf("the pulls of nobody: %d, want 404", code)
	}
	ask(t, s, http.MethodPost, "/pulls")
	if m := remembered(t, s, "/pulls"); m["node-2"].Total != 0 || m["node-2"].Times == nil || len(m["node-2"].Times) != 0 {
		t.Errorf("after a reset the pulls of node-2 are %v", m["node-2"])
	}
}

func TestMemoryIsBounded(t *testing.T) {
	p := pulls{bound: 3}
	for i := range int64(8) {
		p.add(func() int64 { return i })
	}
	if got := p.tell(); got.Total != 8 || !slices.Equal(got.Times, []int64{5, 6, 7}) {
		t.Errorf("remembered %v, want 8 in all and the times 5, 6, 7", got)
	}
}

func TestRefusals(t *testing.T) {
	well := serveCommand{HTTPListen: "127.0.0.1:7491", Pulls: 1}
	if err := well.Validate(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*serveCommand){
		"--insecure":       func(c *serveCommand) { c.HTTPListen = "10.0.0.1:7491" },
		"want host:port":   func(c *serveCommand) { c.HTTPListen = "7491" },
		"--advertise-http": func(c *serveCommand) { c.HTTPListen, c.Insecure = "0.0.0.0:7491", true },
		"--producers":      func(c *serveCommand) { c.Producers = 10_001 },
		"--pulls":          func(c *serveCommand) { c.Pulls = 0 },
	} {
		c := well
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestHealth(t *testing.T) {
	server := httptest.NewServer(newStage("node", 0, 1))
	address := strings.TrimPrefix(server.URL, "http://")
	_, port, _ := strings.Cut(address, ":")
	for _, listen := range []string{address, "0.0.0.0:" + port} {
		if err := (&healthCommand{HTTPListen: listen, Timeout: 3e9}).Run(t.Context()); err != nil {
			t.Errorf("%s: %v", listen, err)
		}
	}
	server.Close()
	if err := (&healthCommand{HTTPListen: address, Timeout: 3e9}).Run(t.Context()); err == nil {
		t.Error("a process that has ended is healthy")
	}
}
