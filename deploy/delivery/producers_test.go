package delivery_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/deploy/internal/receiver"
)

// producers are all producers of a test, behind one address: /NAME is the
// endpoint of one of them.
type producers struct {
	address string
	names   []string
	samples int // of an answer
	lines   [][]byte

	mu      sync.Mutex // guards answers
	answers map[string][]answer
}

// An answer of a producer; its index is its number.
type answer struct {
	began time.Time
	sent  time.Time // when all of it was written; zero if it was not
}

// newProducers serves them until the test ends.
func newProducers(t testing.TB, count, samples int) *producers {
	t.Helper()
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &producers{address: lis.Addr().String(), samples: samples, answers: map[string][]answer{}}
	for i := range count {
		p.names = append(p.names, fmt.Sprintf("producer-%05d", i))
	}
	for i := range samples {
		p.lines = append(p.lines, fmt.Appendf(nil, "%s{%s=\"%d\",handler=\"/api/v1/orders/%d\",code=\"200\",method=\"get\"} ",
			receiver.Family, receiver.LabelSeries, i, i))
	}
	server := &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(lis) }() // until Close
	t.Cleanup(func() { _ = server.Close() })
	return p
}

// ServeHTTP is an answer.
func (p *producers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began, name := time.Now(), r.URL.Path[1:]
	p.mu.Lock()
	number := len(p.answers[name])
	p.answers[name] = append(p.answers[name], answer{began: began})
	p.mu.Unlock()
	body := p.body(number)
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, err := w.Write(body)
	if err == nil {
		err = http.NewResponseController(w).Flush()
	}
	if err != nil || r.Context().Err() != nil {
		return // nobody has it
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers[name][number].sent = time.Now()
}

func (p *producers) body(number int) []byte {
	var b bytes.Buffer
	b.Grow(p.samples * (len(p.lines[p.samples-1]) + 8))
	b.WriteString("# HELP delivery_seconds_total Answers so far, and a quarter.\n# TYPE delivery_seconds_total counter\n")
	v := strconv.AppendFloat(nil, float64(number)+receiver.Fraction, 'f', -1, 64)
	for _, line := range p.lines {
		b.Write(line)
		b.Write(v)
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// all are the answers so far, by producer.
func (p *producers) all() map[string][]answer {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := make(map[string][]answer, len(p.answers))
	for name, answers := range p.answers {
		c[name] = append([]answer(nil), answers...)
	}
	return c
}

// await waits until each producer has answered so often.
func (p *producers) await(t testing.TB, times int, limit time.Duration) {
	t.Helper()
	eventually(t, limit, fmt.Sprintf("%d answers of each producer", times), func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, name := range p.names {
			if len(p.answers[name]) < times {
				return false
			}
		}
		return true
	})
}

// eventually waits until something is so, looking often.
func eventually(t testing.TB, limit time.Duration, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(limit); !is(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}
