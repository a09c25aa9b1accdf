package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// A producer is a metrics endpoint that notes when it was pulled.
type producer struct {
	id     string
	url    string
	server *http.Server

	mu    sync.Mutex // guards pulls
	pulls []time.Time
}

// ServeHTTP answers a pull.
func (p *producer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	p.pulls = append(p.pulls, time.Now())
	n := len(p.pulls)
	p.mu.Unlock()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	fmt.Fprintf(w, "# TYPE pulls_total counter\npulls_total %d\n", n)
}

// since are the pulls after a time.
func (p *producer) since(t time.Time) []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, _ := slices.BinarySearchFunc(p.pulls, t, time.Time.Compare)
	return slices.Clone(p.pulls[at:])
}

// A fleet is all producers.
type fleet []*producer

// newFleet starts producers on free ports. The caller closes it.
func newFleet(ctx context.Context, n int) (fleet, error) {
	var f fleet
	for i := range n {
		lis, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, errors.Join(err, f.close())
		}
		p := &producer{id: fmt.Sprintf("producer-%d", i+1), url: "http://" + lis.Addr().String() + "/metrics"}
		p.server = &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second}
		go func() { _ = p.server.Serve(lis) }() // until close
		f = append(f, p)
	}
	return f, nil
}

func (f fleet) close() error {
	var errs []error
	for _, p := range f {
		errs = append(errs, p.server.Close())
	}
	return errors.Join(errs...)
}

// pulled tells whether everybody was pulled so often since a time.
func (f fleet) pulled(since time.Time, times int) bool {
	return !slices.ContainsFunc(f, func(p *producer) bool { return len(p.since(since)) < times })
}

// A tally is what the producers saw from one time to another.
type tally struct {
	pulls   []int
	longest time.Duration // that anybody waited
	waited  string        // who did
}

func (f fleet) tally(from, to time.Time) tally {
	var t tally
	for _, p := range f {
		last, n := from, 0
		wait := func(until time.Time) {
			if gap := until.Sub(last); gap > t.longest {
				t.longest, t.waited = gap, p.id
			}
			last = until
		}
		for _, at := range p.since(from) {
			if !at.After(to) {
				wait(at)
				n++
			}
		}
		wait(to)
		t.pulls = append(t.pulls, n)
	}
	return t
}

// String lists the pulls by producer.
func (t tally) String() string {
	words := make([]string, len(t.pulls))
	for i, n := range t.pulls {
		words[i] = fmt.Sprint(n)
	}
	return fmt.Sprintf("pulls by producer: %s; the longest wait: %v", strings.Join(words, " "), t.longest.Round(10*time.Millisecond))
}

// narrate writes one act: what happens, and what came of it.
func narrate(out io.Writer, act, came string) {
	fmt.Fprintf(out, "%s  %s\n          %s\n", time.Now().Format(time.TimeOnly), act, came)
}
