package scrape_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/model/value"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/scrape"
)

// FuzzExposition: whatever a producer says, all of it is stored or nothing, and
// the collection after it knows what is owed.
func FuzzExposition(f *testing.F) {
	for _, p := range parityScript {
		f.Add([]byte(p.body), p.contentType)
	}
	for _, s := range []string{
		"", "\n", "# EOF\n", "a 1", "a 1\n\x00", "#\x00", "a{b=\"\x00", "{\"a\xff\"} 1\n", "a{b=\"\n\"} 1\n", "a{,} 1\n", "{} 1\n",
		"# HELP \"a\nb\" c\n", "# TYPE a \n", "a 1 # {} 1\n# EOF\n", "a 1 # {a=\"b\"} 1 1\n# EOF\n", "# UNIT a_b b\n# EOF\n",
		"a_bucket{le=\"x\"} 1 1 # {\"a\"=\"\"} 1\n# EOF", "up 1\nup{job=\"\"} 2\n", "a 1 5\na 1 5\na 2\n", "a_total 1e400\n",
	} {
		f.Add([]byte(s), "text/plain")
		f.Add([]byte(s), openMetrics)
	}
	f.Fuzz(fuzzExposition(f))
}

// FuzzProtobuf is FuzzExposition for messages.
func FuzzProtobuf(f *testing.F) {
	for _, p := range formatsScript {
		if p.contentType == protobuf {
			f.Add([]byte(p.body))
		}
	}
	for _, b := range []string{
		"\x00", "\x00\x00", "\x01\x0a", wire(sub(4)), wire(sub(1, "a"), sub(4, sub(7, sub(12)))), histograms(span(0, 1), span(1, 2)+sub(13, "\x02\x02")),
		histograms(num(1, 2)+span(math.MaxInt32, 1)+span(math.MaxInt32, 1)+sub(13, "\x02\x00"), sub(16, sub(3), sub(1))),
		wire(sub(1, "a"), num(3, 4), sub(4, sub(7, sub(3), sub(3))), sub(4, sub(7, span(0, 0)))), wire(sub(1, "up"), num(3, 1), sub(4)),
	} {
		f.Add([]byte(b))
	}
	fuzz := fuzzExposition(f)
	f.Fuzz(func(t *testing.T, body []byte) { fuzz(t, body, protobuf) })
}

// fuzzExposition collects what it is given twice, and then nothing.
func fuzzExposition(f *testing.F) func(t *testing.T, body []byte, contentType string) {
	f.Helper()
	var answer atomic.Pointer[page]
	pipes := newPipeNet()
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p := answer.Load()
		w.Header()["Content-Type"] = []string{p.contentType}
		_, _ = io.WriteString(w, p.body)
	})}
	go func() { _ = server.Serve(pipes) }()
	f.Cleanup(func() { server.Close() })
	out := &sink{t: f}
	s := scrape.New(scrape.Config{Sink: out, DialContext: pipes.dial})
	f.Cleanup(s.Close)

	return func(t *testing.T, body []byte, contentType string) {
		out.t = t
		// Not every string is a header.
		contentType = strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' {
				return -1
			}
			return r
		}, contentType)
		c, err := s.Open(producer())
		if err != nil {
			t.Fatal(err)
		}
		defer c.End(time.Now(), false)
		collect := func(p page) ([]sample.Sample, schedule.Result) {
			answer.Store(&p)
			result := c.Collect(t.Context(), time.Now())
			batches := out.take()
			if len(batches) != 1 {
				t.Fatalf("%d batches: %+v", len(batches), result)
			}
			return batches[0], result
		}
		const reports = 5
		first, result := collect(page{contentType: contentType, body: string(body)})
		checkFuzzed(t, body, contentType, first, result)
		if count(first, isStale) > 0 {
			return // In messages anybody can say so.
		}
		if strings.Contains(result.Message, "the parser failed") {
			t.Logf("a panic of the parser: %s", result.Message)
		}

		// Once more: nothing is new, nothing is stale.
		again, result2 := collect(page{contentType: contentType, body: string(body)})
		if len(again) != len(first) || result2.Reason != result.Reason || result2.Samples != result.Samples {
			t.Errorf("%d samples, then %d; %+v, then %+v", len(first), len(again), result, result2)
		}
		if n := count(again, isStale); n != 0 {
			t.Errorf("%d stale markers, want none", n)
		}

		// Nothing any more: all that had no time stamp is stale.
		live := map[string]bool{}
		for _, one := range again[:len(again)-reports] {
			if one.Time == again[len(again)-1].Time {
				live[one.Series.Labels().String()] = true
			}
		}
		last, _ := collect(page{contentType: "text/plain"})
		if n := count(last, isStale); n != len(live) || len(last) != n+reports {
			t.Errorf("%d stale markers in %d samples, want %d", n, len(last), len(live))
		}
	}
}

// fuzzLimit is what a body may be in the fuzz tests of decompression.
const fuzzLimit = 64 << 10

// FuzzGzip: a compressed answer is taken as what it is compressed from, or not at
// all, and never for more than the limit.
func FuzzGzip(f *testing.F) {
	whole := packed(f, "a 1\nb 2\n")
	for _, b := range [][]byte{
		nil, whole, whole[:len(whole)-1], whole[:5], append(slices.Clone(whole), whole...), append(slices.Clone(whole), 'x'),
		packed(f, strings.Repeat("\n", fuzzLimit)), packed(f, strings.Repeat("\n", fuzzLimit+1)), packed(f, strings.Repeat("\n", 20*fuzzLimit)),
	} {
		f.Add(b)
	}
	fuzz := fuzzCompressed(f, "gzip", func(b []byte) (io.Reader, error) { return gzip.NewReader(bytes.NewReader(b)) })
	f.Fuzz(fuzz)
}

// FuzzZstd is FuzzGzip for zstd. What it is compared with decodes a stream.
func FuzzZstd(f *testing.F) {
	whole := compressed("zstd", []byte("a 1\nb 2\n"))
	for _, b := range [][]byte{
		whole, whole[:len(whole)-1], whole[:5], append(slices.Clone(whole), whole...), append(slices.Clone(whole), 'x'),
		compressed("zstd", bytes.Repeat([]byte("\n"), fuzzLimit)), compressed("zstd", bytes.Repeat([]byte("\n"), fuzzLimit+1)),
		compressed("zstd", []byte(numbered(5000))), []byte(frame(block(false, 1, 40000, "\n"), block(true, 1, 30000, "\n"))),
		[]byte(frame(block(true, 0, 0, ""))), []byte("\x50\x2a\x4d\x18\x00\x00\x00\x00"),
	} {
		f.Add(b)
	}
	fuzz := fuzzCompressed(f, "zstd", func(b []byte) (io.Reader, error) {
		return zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	})
	f.Fuzz(func(t *testing.T, sent []byte) {
		if len(sent) >= 4 { // Less is nothing to the other.
			fuzz(t, sent)
		}
	})
}

// fuzzCompressed collects what it is given as it is, and decompressed by another.
func fuzzCompressed(f *testing.F, encoding string, decompress func([]byte) (io.Reader, error)) func(*testing.T, []byte) {
	f.Helper()
	var answer atomic.Pointer[[]byte]
	var told atomic.Pointer[string]
	pipes := newPipeNet()
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Content-Encoding", *told.Load())
		_, _ = w.Write(*answer.Load())
	})}
	go func() { _ = server.Serve(pipes) }()
	f.Cleanup(func() { server.Close() })
	out := &sink{t: f}
	s := scrape.New(scrape.Config{Sink: out, DialContext: pipes.dial, Setup: scrape.Setup{Limits: scrape.Limits{BodyBytes: fuzzLimit}}})
	f.Cleanup(s.Close)

	return func(t *testing.T, sent []byte) {
		if len(sent) > fuzzLimit {
			return
		}
		out.t = t
		collect := func(b []byte, encoding string) schedule.Result {
			c, err := s.Open(producer())
			if err != nil {
				t.Fatal(err)
			}
			defer c.End(time.Now(), false)
			answer.Store(&b)
			told.Store(&encoding)
			result := c.Collect(t.Context(), time.Now())
			if batches := out.take(); len(batches) != 1 || result.Reason != schedule.ReasonNone && len(batches[0]) != 5 {
				t.Fatalf("%d batches: %+v", len(batches), result)
			}
			return result
		}
		got := collect(sent, encoding)
		z, err := decompress(sent)
		var plain []byte
		if err == nil {
			plain, err = io.ReadAll(io.LimitReader(z, fuzzLimit+1))
		}
		if len(plain) > fuzzLimit || err != nil {
			// Both may be true of one body, and which is seen first is nobody's
			// business.
			if got.Reason != schedule.ReasonTooLarge && got.Reason != schedule.ReasonMalformed {
				t.Errorf("%d bytes and %v: %+v", len(plain), err, got)
			}
			return
		}
		if want := collect(plain, "identity"); got.Reason != want.Reason || got.Samples != want.Samples || got.BodyBytes != want.BodyBytes {
			t.Errorf("%+v, and uncompressed %+v", got, want)
		}
	}
}

func packed(t testing.TB, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func isStale(s sample.Sample) bool { return value.IsStaleNaN(s.Value) }

func count(samples []sample.Sample, f func(sample.Sample) bool) (n int) {
	for _, s := range samples {
		if f(s) {
			n++
		}
	}
	return n
}

// checkFuzzed compares a collection with what the parser makes of its body.
func checkFuzzed(t *testing.T, body []byte, contentType string, samples []sample.Sample, result schedule.Result) {
	t.Helper()
	up := samples[len(samples)-5].Value
	if (up == 1) != (result.Reason == schedule.ReasonNone) {
		t.Errorf("up %v, %+v", up, result)
	}
	if result.Reason != schedule.ReasonNone {
		if len(samples) != 5 {
			t.Errorf("%d samples of a failed collection", len(samples))
		}
		return
	}
	if len(body) == 0 {
		return
	}
	// Fallbacks apart, the format is as textparse has it.
	p, _ := textparse.New(body, contentType, labels.NewSymbolTable(), textparse.ParserOptions{FallbackContentType: "text/plain"})
	if _, isProto := p.(*textparse.ProtobufParser); isProto {
		return
	}
	n := 0
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("stored, though malformed: %v", err)
		}
		if entry == textparse.EntrySeries {
			n++
		}
	}
	if result.Samples != n || len(samples) > n+5 {
		t.Errorf("%d samples, %d of them stored, want %d", result.Samples, len(samples)-5, n)
	}
}
