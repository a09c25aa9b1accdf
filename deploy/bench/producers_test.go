package bench

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// seriesPerFamily is how many series of an exposition share HELP and TYPE.
const seriesPerFamily = 10

// variants is how many expositions of a size there are: values change from one
// collection to the next, as those of programs do.
const variants = 8

// exposers are all producers of a benchmark, in one process: /SAMPLES/NAME is
// the endpoint of one of them. It remembers when each was first asked, and, while
// that is watched, each time.
type exposers struct {
	mu     sync.Mutex
	first  map[string]time.Time
	times  map[string][]time.Time // nil when they are not watched
	asked  int
	bodies map[string][variants]exposed // by the number of samples
}

// exposed is an exposition as it is sent.
type exposed struct{ plain, zipped []byte }

// serveExposers is a server of this binary: every loopback address reaches it.
func serveExposers(ctx context.Context, _ string) error {
	lis, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", "0.0.0.0:0")
	if err != nil {
		return err
	}
	e := &exposers{first: map[string]time.Time{}, bodies: map[string][variants]exposed{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{samples}/{name}", e.expose)
	mux.HandleFunc("GET /-/first/{name}", e.tellFirst)
	mux.HandleFunc("GET /-/counts", e.tellCounts)
	mux.HandleFunc("GET /-/watch", e.watch)
	mux.HandleFunc("GET /-/paces/{interval}", e.tellPaces)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { <-ctx.Done(); _ = server.Close() }()
	_, port, _ := net.SplitHostPort(lis.Addr().String())
	fmt.Println("127.0.0.1:" + port)
	_ = server.Serve(lis) // until it is closed
	return nil
}

func (e *exposers) expose(w http.ResponseWriter, r *http.Request) {
	body := e.ask(r.PathValue("samples"), r.PathValue("name"))
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		_, _ = w.Write(body.plain) // who has gone away counts nothing
		return
	}
	w.Header().Set("Content-Encoding", "gzip")
	_, _ = w.Write(body.zipped)
}

// ask notes that a producer was asked, and is its answer.
func (e *exposers) ask(samples, name string) exposed {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, known := e.first[name]; !known {
		e.first[strings.Clone(name)] = time.Now()
	}
	if e.times != nil {
		e.times[name] = append(e.times[name], time.Now())
	}
	e.asked++
	bodies, known := e.bodies[samples]
	if !known {
		n, _ := strconv.Atoi(samples)
		for i := range bodies {
			bodies[i] = exposition(n, i)
		}
		e.bodies[strings.Clone(samples)] = bodies
	}
	return bodies[e.asked%variants]
}

// exposition is one of so many samples. The first is the series bench_alive.
func exposition(samples, variant int) exposed {
	var text, zipped bytes.Buffer
	fmt.Fprintf(&text, "# HELP bench_alive Whether it is.\n# TYPE bench_alive gauge\nbench_alive 1\n")
	for i := range samples - 1 {
		family, member := i/seriesPerFamily, i%seriesPerFamily
		if member == 0 {
			fmt.Fprintf(&text, "# HELP bench_requests_%02d_total Requests that were served, by handler and code.\n# TYPE bench_requests_%02d_total counter\n", family, family)
		}
		fmt.Fprintf(&text, "bench_requests_%02d_total{handler=\"/api/v1/orders/%d\",code=\"200\",method=\"get\"} %d.5\n",
			family, member, 1000*i+variant*(i%7+1))
	}
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write(text.Bytes()) // a buffer takes all
	_ = z.Close()
	return exposed{text.Bytes(), zipped.Bytes()}
}

func (e *exposers) tellFirst(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if at, known := e.first[r.PathValue("name")]; known {
		fmt.Fprint(w, at.UnixNano())
	}
}

func (e *exposers) tellCounts(w http.ResponseWriter, _ *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	fmt.Fprint(w, len(e.first), e.asked)
}

// counts are how many producers have been asked, and how often.
func (s *server) counts(b *testing.B) (producers, requests int) {
	b.Helper()
	text := fetch(b, "http://"+s.address+"/-/counts")
	if _, err := fmt.Sscan(text, &producers, &requests); err != nil {
		b.Fatalf("counts %q: %v", text, err)
	}
	return producers, requests
}

// firstAsked is when a producer was first asked; false if it was not.
func (s *server) firstAsked(b *testing.B, name string) (time.Time, bool) {
	b.Helper()
	text := fetch(b, "http://"+s.address+"/-/first/"+name)
	if text == "" {
		return time.Time{}, false
	}
	ns, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return time.Unix(0, ns), true
}
