package scrape_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/scrape"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// repeat writes s until n bytes are written or nobody reads; n < 0 is for ever.
func repeat(w io.Writer, s string, n int) {
	block := strings.Repeat(s, max(1, 32<<10/len(s)))
	for written := 0; n < 0 || written < n; written += len(block) {
		if n >= 0 && n-written < len(block) {
			block = block[:n-written]
		}
		if _, err := io.WriteString(w, block); err != nil {
			return
		}
	}
}

// generated answers what write writes.
func generated(write func(w io.Writer)) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		buffered := bufio.NewWriterSize(w, 64<<10)
		write(buffered)
		buffered.Flush()
	}
}

func body(s string) http.HandlerFunc {
	return generated(func(w io.Writer) { _, _ = io.WriteString(w, s) })
}

func gzipped(write func(w io.Writer)) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Content-Encoding", "gzip")
		z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed)
		write(z)
		z.Close()
	}
}

// raw answers with bytes of its own on the connection.
func raw(write func(c net.Conn)) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer c.Close()
		write(c)
	}
}

// numbered are n samples of one metric.
func numbered(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "a{i=\"%d\"} 1\n", i)
	}
	return b.String()
}

const head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"

// A villain is a producer that nobody would want. Everything about it is over in
// bounded time and memory, and with the reason told here.
type villain struct {
	name    string
	handler http.HandlerFunc
	reason  schedule.Reason
	message string // a part of it
	format  assignment.Format
}

// hostile are those of HTTP and the text formats.
var hostile = []villain{
	{name: "endless body", handler: generated(func(w io.Writer) { repeat(w, "a 1\n", -1) }), reason: schedule.ReasonTooLarge},
	{name: "endless comment", handler: generated(func(w io.Writer) { repeat(w, "#", -1) }), reason: schedule.ReasonTooLarge},
	{name: "endless line", handler: generated(func(w io.Writer) { repeat(w, "a", -1) }), reason: schedule.ReasonTooLarge},
	{name: "large Content-Length", handler: raw(func(c net.Conn) { fmt.Fprint(c, head+"Content-Length: 999999999999\r\n\r\na 1\n") }), reason: schedule.ReasonTooLarge},
	{name: "Content-Length that lies", handler: raw(func(c net.Conn) { fmt.Fprint(c, head+"Content-Length: 10000000\r\n\r\na 1\n") }), reason: schedule.ReasonUnreachable, message: "unexpected EOF"},
	{name: "gzip bomb", handler: gzipped(func(w io.Writer) { repeat(w, "\n", 1<<30) }), reason: schedule.ReasonTooLarge},
	{name: "gzip of nothing, for ever", handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		var member bytes.Buffer
		gzip.NewWriter(&member).Close()
		repeat(w, member.String(), -1)
	}, reason: schedule.ReasonTooLarge, message: "compressed"},
	{name: "gzip in gzip", handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip, gzip")
	}, reason: schedule.ReasonMalformed, message: "Content-Encoding"},
	{name: "truncated gzip", handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		fmt.Fprint(z, numbered(1000))
		z.Close()
		_, _ = w.Write(b.Bytes()[:b.Len()-10])
	}, reason: schedule.ReasonMalformed, message: "gzip: unexpected EOF"},
	{name: "gzip with a wrong sum", handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		fmt.Fprint(z, "a 1\n")
		z.Close()
		b.Bytes()[b.Len()-6] ^= 1
		_, _ = w.Write(b.Bytes())
	}, reason: schedule.ReasonMalformed, message: "gzip: invalid checksum"},
	{name: "not gzip", handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		fmt.Fprint(w, "a 1\nb 2\nc 3\nd 4\n")
	}, reason: schedule.ReasonMalformed, message: "gzip: header"},
	{name: "brotli", handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "br")
		fmt.Fprint(w, "a 1\n")
	}, reason: schedule.ReasonMalformed, message: `"br"`},
	{name: "slow drip", handler: func(w http.ResponseWriter, r *http.Request) {
		for {
			fmt.Fprint(w, "a 1\n")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-time.After(time.Second):
			case <-r.Context().Done():
				return
			}
		}
	}, reason: schedule.ReasonTimeout},
	{name: "slow headers", handler: raw(func(c net.Conn) {
		for {
			if _, err := fmt.Fprint(c, "H"); err != nil {
				return
			}
			time.Sleep(time.Second)
		}
	}), reason: schedule.ReasonTimeout},
	{name: "silence", handler: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, reason: schedule.ReasonTimeout},
	{name: "a million labels", handler: generated(func(w io.Writer) {
		fmt.Fprint(w, "a{")
		for i := range 1_000_000 {
			fmt.Fprintf(w, "l%d=\"\",", i)
		}
		fmt.Fprint(w, "} 1\n")
	}), reason: schedule.ReasonTooLarge, message: "a line of"},
	{name: "many labels in a line", handler: generated(func(w io.Writer) {
		fmt.Fprint(w, "a{")
		for i := range 50_000 {
			fmt.Fprintf(w, "l%d=\"\",", i)
		}
		fmt.Fprint(w, "} 1\n")
	}), reason: schedule.ReasonTooLarge, message: "50001 labels"},
	{name: "100 MB of one label", handler: generated(func(w io.Writer) {
		fmt.Fprint(w, `a{b="`)
		repeat(w, "x", 100<<20)
		fmt.Fprint(w, "\"} 1\n")
	}), reason: schedule.ReasonTooLarge},
	{name: "15 MB of one label", handler: generated(func(w io.Writer) {
		fmt.Fprint(w, `a{b="`)
		repeat(w, "x", 15<<20)
		fmt.Fprint(w, "\"} 1\n")
	}), reason: schedule.ReasonTooLarge, message: "a line of"},
	{name: "15 MB of one label with line feeds", handler: generated(func(w io.Writer) {
		fmt.Fprint(w, `a{b="`)
		repeat(w, "\n", 15<<20)
	}), reason: schedule.ReasonTooLarge, message: "a line of"},
	{name: "15 MB of quoted family", handler: generated(func(w io.Writer) {
		fmt.Fprint(w, `# TYPE "`)
		repeat(w, "\n", 15<<20)
	}), reason: schedule.ReasonTooLarge, message: "a line of"},
	{name: "a long label", handler: body(`a{b="` + strings.Repeat("x", 500_000) + `"} 1` + "\n"), reason: schedule.ReasonTooLarge, message: "500000 bytes"},
	{name: "a long label name", handler: body(`a{b` + strings.Repeat("x", 5000) + `="1"} 1` + "\n"), reason: schedule.ReasonTooLarge, message: "5001 bytes"},
	{name: "a long metric name", handler: body(strings.Repeat("x", 500_000) + " 1\n"), reason: schedule.ReasonTooLarge, message: "500000 bytes"},
	{name: "a long help", handler: body("# HELP a " + strings.Repeat("x", 500_000) + "\n"), reason: schedule.ReasonTooLarge, message: "500000 bytes"},
	{name: "a long family", handler: body("# TYPE " + strings.Repeat("x", 500_000) + " gauge\n"), reason: schedule.ReasonTooLarge, message: "500000 bytes"},
	{name: "a million families", handler: generated(func(w io.Writer) {
		for i := range 1_000_000 {
			fmt.Fprintf(w, "# TYPE a%d gauge\n", i)
		}
	}), reason: schedule.ReasonTooLarge},
	{name: "many families", handler: generated(func(w io.Writer) {
		for i := range 60_000 {
			fmt.Fprintf(w, "# TYPE a%d gauge\n", i)
		}
	}), reason: schedule.ReasonTooManySamples, message: "families"},
	{name: "a million samples", handler: generated(func(w io.Writer) { repeat(w, "a 1\n", 4<<20) }), reason: schedule.ReasonTooManySamples},
	{name: "renamed for ever", handler: body("a{job=\"x\"" + func() string {
		var b strings.Builder
		name := "job"
		for range 62 {
			name = "exported_" + name
			fmt.Fprintf(&b, ",%s=\"x\"", name)
		}
		return b.String()
	}() + "} 1\n"), reason: schedule.ReasonTooLarge, message: "with the producer's own"},
	{name: "invalid UTF-8 in a value", handler: body("a{b=\"\xff\"} 1\n"), reason: schedule.ReasonMalformed},
	{name: "invalid UTF-8 in a quoted name", handler: body("{\"a\xff\"} 1\n"), reason: schedule.ReasonMalformed},
	{name: "invalid UTF-8 in a quoted label", handler: body("{\"a\",\"b\xff\"=\"1\"} 1\n"), reason: schedule.ReasonMalformed},
	{name: "invalid UTF-8 in help", handler: body("# HELP a \xff\n"), reason: schedule.ReasonMalformed},
	{name: "binary", handler: body("\xff\xfe\xfd"), reason: schedule.ReasonMalformed},
	{name: "a zero byte", handler: body("a 1\n\x00b 2\n"), reason: schedule.ReasonMalformed, message: "zero byte"},
	{name: "no name", handler: body(`{b="1"} 1` + "\n"), reason: schedule.ReasonMalformed},
	{name: "empty name", handler: body(`{""} 1` + "\n"), reason: schedule.ReasonMalformed, message: "bad name"},
	{name: "two names", handler: body(`{"a","b"} 1` + "\n"), reason: schedule.ReasonMalformed},
	{name: "label twice", handler: body(`a{b="1",b="2"} 1` + "\n"), reason: schedule.ReasonMalformed, message: "twice"},
	{name: "name as a label", handler: body(`a{__name__="b"} 1` + "\n"), reason: schedule.ReasonMalformed, message: "twice"},
	{name: "half a line", handler: body("a 1\nb{c="), reason: schedule.ReasonMalformed},
	{name: "no value", handler: body("a 1\nb\n"), reason: schedule.ReasonMalformed},
	{name: "not a number", handler: body("a 1x\n"), reason: schedule.ReasonMalformed},
	{name: "hexadecimal float", handler: body("a 0x1p4\n"), reason: schedule.ReasonMalformed},
	{name: "too large a number", handler: body("a 1e999\n"), reason: schedule.ReasonMalformed},
	{name: "too large a time stamp", handler: body("a 1 99999999999999999999\n"), reason: schedule.ReasonMalformed},
	{name: "infinite time stamp", handler: body("a 1 +Inf\n# EOF\n"), format: assignment.FormatOpenMetrics, reason: schedule.ReasonMalformed},
	{name: "unknown type", handler: body("# TYPE a gouge\n"), reason: schedule.ReasonMalformed},
	{name: "after the end", handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", openMetrics)
		fmt.Fprint(w, "a 1\n# EOF\nb 1\n")
	}, reason: schedule.ReasonMalformed},
	{name: "bad after 40,000 good ones", handler: body(numbered(40_000) + "x"), reason: schedule.ReasonMalformed},
	{name: "redirect", handler: func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://169.254.169.254/latest/meta-data", http.StatusFound)
	}, reason: schedule.ReasonStatus, message: "302 Found"},
	{name: "status 500 with a large body", handler: func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		repeat(w, "error ", 100<<20)
	}, reason: schedule.ReasonStatus, message: "500 Internal Server Error"},
	{name: "status of its own words", handler: raw(func(c net.Conn) {
		fmt.Fprint(c, "HTTP/1.1 599 "+strings.Repeat("\xffx", 1000)+"\r\nContent-Length: 0\r\n\r\n")
	}), reason: schedule.ReasonStatus, message: "HTTP status 599"},
	{name: "another protocol, and silence", handler: raw(func(c net.Conn) {
		fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(io.Discard, c)
	}), reason: schedule.ReasonStatus, message: "101 Switching Protocols"},
	{name: "no content", handler: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, reason: schedule.ReasonStatus},
	{name: "another producer", handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Rollcall-Producer", "p2\xe9\t")
		fmt.Fprint(w, "a 1\n")
	}, reason: schedule.ReasonWrongProducer, message: `"p2`},
	{name: "another producer, in error", handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Rollcall-Producer", strings.Repeat("p", 10_000))
		w.WriteHeader(500)
	}, reason: schedule.ReasonWrongProducer},
	{name: "header flood", handler: raw(func(c net.Conn) {
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\n")
		repeat(c, "X: y\r\n", -1)
	}), reason: schedule.ReasonUnreachable, message: "headers exceeded"},
	{name: "flood of 1xx", handler: raw(func(c net.Conn) {
		repeat(c, "HTTP/1.1 103 Early Hints\r\n\r\n", -1)
	}), reason: schedule.ReasonUnreachable},
	{name: "not HTTP", handler: raw(func(c net.Conn) { fmt.Fprint(c, "SSH-2.0-OpenSSH_9.9\r\n") }), reason: schedule.ReasonUnreachable, message: "malformed HTTP"},
	{name: "closed at once", handler: raw(func(net.Conn) {}), reason: schedule.ReasonUnreachable},
	{name: "reset in the body", handler: raw(func(c net.Conn) {
		fmt.Fprint(c, head+"Transfer-Encoding: chunked\r\n\r\n4\r\na 1\n\r\n")
	}), reason: schedule.ReasonUnreachable, message: "unexpected EOF"},
	{name: "cut off without a length", handler: raw(func(c net.Conn) { fmt.Fprint(c, head+"Connection: close\r\n\r\na 1\nb 12") }), reason: schedule.ReasonMalformed, message: "line feed"},
	{name: "bad chunk", handler: raw(func(c net.Conn) { fmt.Fprint(c, head+"Transfer-Encoding: chunked\r\n\r\nzz\r\n") }), reason: schedule.ReasonUnreachable},

	// Strange, and yet nothing is wrong with them.
	{name: "ok: empty body", handler: body("")},
	{name: "ok: empty OpenMetrics", handler: body("# EOF\n"), format: assignment.FormatOpenMetrics},
	{name: "ok: only comments", handler: body("# nothing\n\n\n#\n")},
	{name: "ok: no line feed at the end", handler: body("a 1\nb 12")},
	{name: "ok: without a length", handler: raw(func(c net.Conn) { fmt.Fprint(c, head+"Connection: close\r\n\r\na 1\n") })},
	{name: "ok: HTTP/1.0", handler: raw(func(c net.Conn) { fmt.Fprint(c, "HTTP/1.0 200 OK\r\n\r\na 1\n") })},
	{name: "ok: numbers", handler: body("a NaN\nb +Inf\nc -Inf\nd 1e308\ne -0\nf 5e-324\ng 18446744073709551616\nh 010\n")},
	{name: "ok: duplicates", handler: body("a 1\na 2\na 1\n")},
	{name: "ok: itself", handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Rollcall-Producer", "p1")
		fmt.Fprint(w, "a 1\n")
	}},
	{name: "ok: a family of two minds", handler: generated(func(w io.Writer) { repeat(w, "# TYPE a gauge\n# TYPE a counter\n", 480_000*32) })},
	{name: "ok: gzip of nothing", handler: gzipped(func(io.Writer) {})},
	{name: "ok: 50,000 samples", handler: body(numbered(50_000))},
	{name: "ok: a lone quote in help", handler: body("# HELP a \"\n" + numbered(40_000) + "# HELP b \"\n")},
	{name: "ok: quotes and line feeds", handler: body(strings.Repeat("a{b=\"\n\n\\\"\"} 1\n", 40_000) + strings.Repeat("# TYPE \"x\n\" gauge\n", 40_000))},
}

func TestHostileProducers(t *testing.T) {
	for _, tc := range slices.Concat(hostile, hostileProtobuf(), hostileZstd()) {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := scrape.NewMetrics()
				r := newRig(t, func(cfg *scrape.Config) { cfg.Metrics, cfg.MaxInFlightBytes = m, 64<<20 })
				c := r.open(producer())
				r.text("before 1\n")
				r.good(c)
				a := producer()
				a.FallbackFormat = tc.format
				if err := c.Update(a); err != nil {
					t.Fatal(err)
				}

				h := tc.handler
				if tc.format != 0 {
					h = func(w http.ResponseWriter, req *http.Request) {
						tc.handler(untyped{w}, req)
					}
				}
				r.answer(h)
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				samples, at, result := r.collect(c)
				runtime.ReadMemStats(&after)

				t.Logf("%+v; %d KiB allocated", result, (after.TotalAlloc-before.TotalAlloc)>>10)
				if result.Reason != tc.reason || !strings.Contains(result.Message, tc.message) {
					t.Errorf("%+v, want reason %d and %q", result, tc.reason, tc.message)
				}
				if len(result.Message) > 350 || !utf8.ValidString(result.Message) || (result.Message == "") != (tc.reason == schedule.ReasonNone) {
					t.Errorf("message %q", result.Message)
				}
				got := exposed(samples, at)
				if tc.reason != schedule.ReasonNone {
					equal(t, got, []string{series("before") + " stale"})
				}
				if took := time.Since(result.Start); took > 10*time.Second {
					t.Errorf("took %s", took)
				}
				// All of it, also of what the producer allocated: 64 MiB are the
				// doubled buffers of a body of 16 MiB.
				if n := after.TotalAlloc - before.TotalAlloc; n > 150<<20 {
					t.Errorf("%d MiB allocated", n>>20)
				}
				if n := metric(t, m, "rollcall_collector_scrape_in_flight_bytes", ""); n != 0 {
					t.Errorf("%v bytes in flight afterwards", n)
				}

				// The next collection is as good as ever.
				r.text("after 1\n")
				if got := r.good(c); !strings.Contains(strings.Join(got, "\n"), series("after")+" 1") {
					t.Errorf("afterwards %q", got)
				}
			})
		})
	}
}

// untyped takes the Content-Type away, and the guess of it.
type untyped struct{ http.ResponseWriter }

func (u untyped) Write(p []byte) (int, error) {
	u.Header()["Content-Type"] = nil
	return u.ResponseWriter.Write(p)
}

func TestRefusedConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.net.Close()
		_, _, result := r.collect(r.open(producer()))
		if result.Reason != schedule.ReasonUnreachable || !strings.Contains(result.Message, "refused") {
			t.Errorf("%+v, want unreachable", result)
		}
	})
}

func TestDialTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(cfg *scrape.Config) {
			cfg.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
		})
		_, _, result := r.collect(r.open(producer()))
		if result.Reason != schedule.ReasonTimeout || result.Duration != 10*time.Second {
			t.Errorf("%+v, want timeout", result)
		}
	})
}
