package scrape_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/scrape"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A discard takes everything and keeps nothing.
type discard struct{ samples int }

func (d *discard) Write(_ context.Context, b *sample.Batch) error {
	d.samples += len(b.Samples)
	return nil
}

// realistic is an exposition of n samples as servers have them.
func realistic(n int) string {
	var b strings.Builder
	methods := []string{"GET", "POST", "PUT", "DELETE"}
	for i := range n {
		if i%20 == 0 {
			fmt.Fprintf(&b, "# HELP http_server_requests_%d_total Number of requests that were answered.\n# TYPE http_server_requests_%d_total counter\n", i/20, i/20)
		}
		fmt.Fprintf(&b, "http_server_requests_%d_total{method=%q,route=\"/api/v1/things/{id}/%d\",status=\"200\"} %d\n", i/20, methods[i%4], i%20, i*1234567)
	}
	return b.String()
}

// A preset is a round of bytes on a connection: a server that costs next to
// nothing, so that only the client's work is seen.
type presetConn struct {
	net.Conn

	answer []byte
	left   []byte
	ready  chan struct{}
	closed chan struct{}
}

func (c *presetConn) Write(p []byte) (int, error) {
	if strings.HasSuffix(string(p), "\r\n\r\n") {
		c.ready <- struct{}{}
	}
	return len(p), nil
}

func (c *presetConn) Read(p []byte) (int, error) {
	if len(c.left) == 0 {
		select {
		case <-c.ready:
			c.left = c.answer
		case <-c.closed:
			return 0, io.EOF
		}
	}
	n := copy(p, c.left)
	c.left = c.left[n:]
	return n, nil
}

func (c *presetConn) Close() error                     { close(c.closed); return nil }
func (c *presetConn) SetDeadline(time.Time) error      { return nil }
func (c *presetConn) SetReadDeadline(time.Time) error  { return nil }
func (c *presetConn) SetWriteDeadline(time.Time) error { return nil }
func (c *presetConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *presetConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }

func presetDial(body string) func(context.Context, string, string) (net.Conn, error) {
	return presetAnswer("Content-Type: text/plain; version=0.0.4\r\n", body)
}

func presetAnswer(header, body string) func(context.Context, string, string) (net.Conn, error) {
	answer := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s", header, len(body), body)
	return func(context.Context, string, string) (net.Conn, error) {
		return &presetConn{answer: answer, ready: make(chan struct{}, 1), closed: make(chan struct{})}, nil
	}
}

func openBench(tb testing.TB, cfg scrape.Config, url string) schedule.Collection {
	tb.Helper()
	s := scrape.New(cfg)
	tb.Cleanup(s.Close)
	a := producer()
	a.Endpoint = url
	c, err := s.Open(a)
	if err != nil {
		tb.Fatal(err)
	}
	if result := c.Collect(tb.Context(), time.Now()); result.Reason != schedule.ReasonNone {
		tb.Fatalf("%+v", result)
	}
	return c
}

// A steady producer makes no labels and no series: what is allocated is the
// request's, whatever the number of samples.
func TestSteadyCollectionsAllocateLittle(t *testing.T) {
	perRun := func(n int) float64 {
		out := &discard{}
		c := openBench(t, scrape.Config{Sink: out, DialContext: presetDial(realistic(n))}, "http://node1:9100/")
		return testing.AllocsPerRun(20, func() {
			if result := c.Collect(t.Context(), time.Now()); result.Reason != schedule.ReasonNone || result.Samples != n {
				t.Fatalf("%+v", result)
			}
		})
	}
	few, many := perRun(20), perRun(4000)
	t.Logf("20 samples: %.0f allocations, 4,000 samples: %.0f", few, many)
	if few > 120 || many > few+60 {
		t.Errorf("20 samples: %.0f allocations, 4,000 samples: %.0f; want at most 120, and 60 more", few, many)
	}
}

// BenchmarkCollect pulls over loopback HTTP ("http", with the server's work in
// the same process) and from a connection without a server ("parse").
func BenchmarkCollect(b *testing.B) {
	for _, n := range []int{200, 2000} {
		text := realistic(n)
		run := func(b *testing.B, cfg scrape.Config, url string) {
			b.Helper()
			cfg.Sink = &discard{}
			c := openBench(b, cfg, url)
			at := time.Now()
			b.ReportAllocs()
			for b.Loop() {
				if result := c.Collect(b.Context(), at); result.Reason != schedule.ReasonNone {
					b.Fatalf("%+v", result)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/sample")
		}
		b.Run(fmt.Sprintf("http/%d", n), func(b *testing.B) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/plain; version=0.0.4")
				_, _ = io.WriteString(w, text)
			}))
			defer server.Close()
			run(b, scrape.Config{}, server.URL)
		})
		b.Run(fmt.Sprintf("parse/%d", n), func(b *testing.B) {
			run(b, scrape.Config{DialContext: presetDial(text)}, "http://node1:9100/")
		})
	}
}

// BenchmarkFirst is a producer that was not collected before.
func BenchmarkFirst(b *testing.B) {
	s := scrape.New(scrape.Config{Sink: &discard{}, DialContext: presetDial(realistic(2000))})
	defer s.Close()
	b.ReportAllocs()
	for b.Loop() {
		c, err := s.Open(producer())
		if err != nil {
			b.Fatal(err)
		}
		if result := c.Collect(b.Context(), time.Now()); result.Reason != schedule.ReasonNone {
			b.Fatalf("%+v", result)
		}
		c.End(time.Now(), false)
	}
}

// BenchmarkIdle measures what an open producer holds between collections: one
// that was never collected, one of 200 series that all others have as well, but
// for the producer's own labels, and one of 200 that no other has.
func BenchmarkIdle(b *testing.B) {
	b.Run("0 series", func(b *testing.B) { benchIdle(b, 0, func(string) string { return "" }) })
	b.Run("200 series", func(b *testing.B) {
		benchIdle(b, 200, func(string) string { return realistic(200) })
	})
	b.Run("200 series of its own", func(b *testing.B) {
		benchIdle(b, 200, func(address string) string {
			return strings.ReplaceAll(realistic(200), "things", address[:5])
		})
	})
}

func benchIdle(b *testing.B, series int, body func(address string) string) {
	b.Helper()
	const producers = 500
	for b.Loop() {
		s := scrape.New(scrape.Config{Sink: &discard{}, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return presetDial(body(address))(ctx, network, address)
		}})
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range producers {
			a := producer()
			a.ProducerID = assignment.ProducerID(fmt.Sprint("p", i))
			a.Endpoint = fmt.Sprintf("http://h%04d:9100/metrics", i)
			c, err := s.Open(a)
			if err != nil {
				b.Fatal(err)
			}
			if series > 0 {
				if result := c.Collect(b.Context(), time.Now()); result.Samples != series {
					b.Fatalf("%+v", result)
				}
				s.Close()
			}
		}
		runtime.GC()
		runtime.GC() // what sync.Pools keep, too
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/producers, "B/producer")
		if series > 0 {
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/producers/float64(series), "B/series")
		}
		runtime.KeepAlive(s)
	}
}

// BenchmarkFormats decodes the same 2,000 counters in each format, compressed or
// not, from a connection without a server.
func BenchmarkFormats(b *testing.B) {
	const n = 2000
	text := realistic(n)
	parser := expfmt.NewTextParser(model.UTF8Validation)
	byName, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		b.Fatal(err)
	}
	for _, format := range []expfmt.Format{
		expfmt.NewFormat(expfmt.TypeTextPlain), expfmt.NewFormat(expfmt.TypeOpenMetrics), expfmt.NewFormat(expfmt.TypeProtoDelim),
	} {
		var out bytes.Buffer
		enc := expfmt.NewEncoder(&out, format)
		for _, f := range byName {
			if err := enc.Encode(f); err != nil {
				b.Fatal(err)
			}
		}
		if c, ok := enc.(expfmt.Closer); ok {
			_ = c.Close()
		}
		for _, encoding := range []string{"identity", "gzip", "zstd"} {
			media, _, _ := strings.Cut(string(format), ";")
			b.Run(media+"/"+encoding, func(b *testing.B) {
				body := compressed(encoding, out.Bytes())
				dial := presetAnswer(fmt.Sprintf("Content-Type: %s\r\nContent-Encoding: %s\r\n", format, encoding), string(body))
				c := openBench(b, scrape.Config{Sink: &discard{}, DialContext: dial}, "http://node1:9100/")
				at := time.Now()
				b.ReportAllocs()
				for b.Loop() {
					if result := c.Collect(b.Context(), at); result.Reason != schedule.ReasonNone || result.Samples != n {
						b.Fatalf("%+v", result)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/sample")
				b.ReportMetric(float64(len(body))/n, "wire-B/sample")
			})
		}
	}
}

// compressed is a body in an encoding, as client_golang's handler makes it.
func compressed(encoding string, body []byte) []byte {
	var b bytes.Buffer
	switch encoding {
	case "gzip":
		z := gzip.NewWriter(&b)
		_, _ = z.Write(body)
		_ = z.Close()
	case "zstd":
		z, err := zstd.NewWriter(&b, zstd.WithEncoderLevel(zstd.SpeedFastest))
		if err != nil {
			panic(err)
		}
		_, _ = z.Write(body)
		_ = z.Close()
	default:
		return body
	}
	return b.Bytes()
}
