package soak_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// interval is that of the fleet.
const interval = time.Second

// A fleet is producers that note when they are pulled, behind one address.
type fleet struct {
	url string

	mu    sync.Mutex // guards pulls
	pulls map[string][]time.Time
}

// newFleet serves them until the test ends.
func newFleet(t *testing.T) *fleet {
	t.Helper()
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{url: "http://" + lis.Addr().String() + "/", pulls: map[string][]time.Time{}}
	server := &http.Server{Handler: f, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(lis) }() // until Close
	t.Cleanup(func() { _ = server.Close() })
	return f
}

// ServeHTTP answers a pull of any producer.
func (f *fleet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at := time.Now()
	f.mu.Lock()
	f.pulls[r.URL.Path[1:]] = append(f.pulls[r.URL.Path[1:]], at)
	f.mu.Unlock()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	fmt.Fprintf(w, "# TYPE up_to gauge\nup_to %d\n", at.Unix())
}

// of are the pulls of one producer.
func (f *fleet) of(id string) []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]time.Time(nil), f.pulls[id]...)
}

// await waits until each of ids was pulled a number of times.
func (f *fleet) await(ctx context.Context, ids []string, times int) error {
	return until(ctx, func(context.Context) error {
		for _, id := range ids {
			if n := len(f.of(id)); n < times {
				return fmt.Errorf("%s was pulled %d times", id, n)
			}
		}
		return nil
	})
}

// check tells the longest wait of anybody between two times, and who was pulled
// more often than one collector does.
func (f *fleet) check(ids []string, from, to time.Time) (longest time.Duration, who string, often []string) {
	for _, id := range ids {
		last, n := from, 0
		for _, at := range append(f.of(id), to) {
			if at.Before(from) || at.After(to) {
				continue
			}
			if wait := at.Sub(last); wait > longest {
				longest, who = wait, id
			}
			last, n = at, n+1
		}
		if most := int(to.Sub(from)/interval) + 5; n > most {
			often = append(often, fmt.Sprintf("%s %d times, want %d at most", id, n, most))
		}
	}
	return longest, who, often
}

// until waits until nothing is wrong any more. It asks ten times a second.
func until(ctx context.Context, wrong func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	last := wrong(ctx)
	for last != nil {
		select {
		case <-ctx.Done():
			return fmt.Errorf("it stays so: %w", last)
		case <-tick.C:
		}
		if err := wrong(ctx); err == nil || ctx.Err() == nil {
			last = err
		}
	}
	return nil
}

func TestFleetCheck(t *testing.T) {
	at := func(seconds int) time.Time { return time.Unix(int64(seconds), 0) }
	f := &fleet{pulls: map[string][]time.Time{"a": {at(1), at(2), at(3), at(4)}, "b": {at(1), at(4)}, "c": nil}}
	for _, c := range []struct {
		ids      []string
		from, to int
		longest  time.Duration
		who      string
	}{
		{[]string{"a"}, 1, 5, time.Second, "a"},
		{[]string{"a", "b"}, 1, 5, 3 * time.Second, "b"},
		{[]string{"a"}, 2, 9, 5 * time.Second, "a"},
		{[]string{"a", "c"}, 0, 4, 4 * time.Second, "c"},
	} {
		if longest, who, often := f.check(c.ids, at(c.from), at(c.to)); longest != c.longest || who != c.who || len(often) > 0 {
			t.Errorf("%v from %d to %d: %v %s %v, want %v %s", c.ids, c.from, c.to, longest, who, often, c.longest, c.who)
		}
	}
	for range 9 {
		f.pulls["a"] = append(f.pulls["a"], at(4))
	}
	if _, _, often := f.check([]string{"a"}, at(1), at(5)); len(often) != 1 {
		t.Errorf("pulled too often: %v", often)
	}
}
