package scrape_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/scrape"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

const openMetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8"

// A sink keeps what is written, and checks every batch.
type sink struct {
	t testing.TB

	mu      sync.Mutex
	batches [][]sample.Sample
	err     error
	block   bool // until ctx ends
}

func (s *sink) Write(ctx context.Context, b *sample.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.block {
		<-ctx.Done()
		return ctx.Err()
	}
	if s.err != nil {
		return s.err
	}
	checkBatch(s.t, b)
	s.batches = append(s.batches, slices.Clone(b.Samples))
	return nil
}

// checkBatch reports what no batch may be.
func checkBatch(t testing.TB, b *sample.Batch) {
	t.Helper()
	if b.Source == "" {
		t.Error("a batch of nobody")
	}
	type point struct {
		labels string
		time   int64
	}
	seen := map[point]bool{}
	for _, s := range b.Samples {
		set := s.Series.Labels()
		p := point{string(set.Bytes(nil)), s.Time}
		if seen[p] {
			t.Errorf("two samples of %s at %d in one batch", set, s.Time)
		}
		seen[p] = true
		if sorted := labels.FromMap(set.Map()); !labels.Equal(set, sorted) {
			t.Errorf("%s is not in the order of its names, or has one twice", set)
		}
		if s.Series.Get("__name__") == "" {
			t.Errorf("no name in %s", set)
		}
	}
}

func (s *sink) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// take returns the batches since the last call.
func (s *sink) take() [][]sample.Sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.batches
	s.batches = nil
	return all
}

// lines shows samples, sorted: labels, value, and the time where it is not at.
// The value of scrape_duration_seconds is left out.
func lines(samples []sample.Sample, at time.Time) []string {
	var all []string
	for _, s := range samples {
		line := s.Series.Labels().String() + " "
		switch {
		case value.IsStaleNaN(s.Value):
			line += "stale"
		case s.Series.Labels().Get("__name__") == "scrape_duration_seconds":
			line += "_"
		case math.IsNaN(s.Value):
			line += "NaN"
		default:
			line += fmt.Sprint(s.Value)
		}
		if s.Time != at.UnixMilli() {
			line += fmt.Sprintf(" @%d", s.Time)
		}
		all = append(all, line)
	}
	slices.Sort(all)
	return all
}

// exposed are lines without the synthetic series.
func exposed(samples []sample.Sample, at time.Time) []string {
	return slices.DeleteFunc(lines(samples, at), func(l string) bool {
		return strings.Contains(l, `__name__="scrape_`) || strings.Contains(l, `__name__="up"`)
	})
}

// A pipeNet connects by [net.Pipe], so that bubbles see when all is quiet.
type pipeNet struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipeNet() *pipeNet {
	return &pipeNet{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (p *pipeNet) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-p.done:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipeNet) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipeNet) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipeNet) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 9100} }

// A rig is a scraper, a producer that answers as handler says, and a sink.
type rig struct {
	t        testing.TB
	scraper  *scrape.Scraper
	sink     *sink
	net      *pipeNet
	requests chan *http.Request // the last ones

	mu      sync.Mutex
	handler http.HandlerFunc
}

func newRig(t testing.TB, change func(*scrape.Config)) *rig {
	t.Helper()
	r := &rig{t: t, sink: &sink{t: t}, net: newPipeNet(), requests: make(chan *http.Request, 100)}
	cfg := scrape.Config{Sink: r.sink, DialContext: r.net.dial}
	if change != nil {
		change(&cfg)
	}
	r.scraper = scrape.New(cfg)
	server := &http.Server{Handler: r}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(r.net)
	}()
	t.Cleanup(func() {
		r.scraper.Close()
		server.Close()
		<-served
		time.Sleep(time.Minute) // for handlers that are asleep
	})
	return r
}

func (r *rig) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	select {
	case r.requests <- req:
	default:
	}
	r.mu.Lock()
	h := r.handler
	r.mu.Unlock()
	h(w, req)
}

func (r *rig) answer(h http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handler = h
}

// text answers an exposition in the text format.
func (r *rig) text(body string) { r.typed("text/plain; version=0.0.4", body) }

func (r *rig) typed(contentType, body string) {
	r.answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = []string{contentType}
		_, _ = io.WriteString(w, body)
	})
}

func producer() *assignment.Assignment {
	return &assignment.Assignment{
		ProducerID: "p1",
		Endpoint:   "http://node1:9100/metrics",
		Interval:   15 * time.Second,
		Timeout:    10 * time.Second,
		Labels:     []assignment.Label{{Name: "job", Value: "node"}},
	}
}

func (r *rig) open(a *assignment.Assignment) schedule.Collection {
	r.t.Helper()
	c, err := r.scraper.Open(a)
	if err != nil {
		r.t.Fatalf("Open: %v", err)
	}
	return c
}

// collect collects now, and returns the one batch that is stored.
func (r *rig) collect(c schedule.Collection) ([]sample.Sample, time.Time, schedule.Result) {
	r.t.Helper()
	at := time.Now().Truncate(time.Millisecond)
	result := c.Collect(r.t.Context(), at)
	batches := r.sink.take()
	if len(batches) != 1 {
		r.t.Fatalf("%d batches, want 1 (result %+v)", len(batches), result)
	}
	return batches[0], at, result
}

// good collects, and fails the test when that fails.
func (r *rig) good(c schedule.Collection) []string {
	r.t.Helper()
	samples, at, result := r.collect(c)
	if result.Reason != schedule.ReasonNone {
		r.t.Fatalf("failed: %+v", result)
	}
	return exposed(samples, at)
}

func equal(t testing.TB, got, want []string) {
	t.Helper()
	want = slices.Clone(want)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// series is how a label set of the default producer is shown.
func series(name string, rest ...string) string {
	pairs := []string{`__name__="` + name + `"`, `instance="node1:9100"`, `job="node"`}
	for i := 0; i < len(rest); i += 2 {
		pairs = append(pairs, rest[i]+`="`+rest[i+1]+`"`)
	}
	slices.Sort(pairs)
	return "{" + strings.Join(pairs, ", ") + "}"
}
