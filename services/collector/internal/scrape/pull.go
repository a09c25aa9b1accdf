package scrape

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
)

// ProducerHeader is the header by which an endpoint tells which producer it is.
const ProducerHeader = "Rollcall-Producer"

// Values of request headers.
const (
	accept = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6," +
		"application/openmetrics-text;version=0.0.1;q=0.5," +
		"text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4," +
		"text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
	acceptEncoding = "gzip"
)

// drainBytes is how much of an unwanted answer is read for the sake of its
// connection.
const drainBytes = 64 << 10

// maxContentType is how much of a Content-Type is looked at.
const maxContentType = 256

// An answer is what came of a request. body and contentType are those of a body
// that was read to its end, size is its size; identity is told by failures, too.
type answer struct {
	body        *body
	contentType string
	size        int64
	identity    schedule.Identity
}

// request makes the request of one collection.
func (s *Scraper) request(ctx context.Context, t *target) *http.Request {
	header := http.Header{
		"Accept":                              {accept},
		"Accept-Encoding":                     {acceptEncoding},
		"User-Agent":                          s.userAgent,
		"X-Prometheus-Scrape-Timeout-Seconds": t.timeout,
	}
	if s.collectorID != nil {
		header["Rollcall-Collector"] = s.collectorID
	}
	r := &http.Request{
		Method: http.MethodGet, URL: t.url, Host: t.url.Host, Header: header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Close: t.assignment.Interval >= idleConnTimeout,
	}
	return r.WithContext(ctx)
}

// pull asks the producer once. The answer's body is the caller's to release.
// sizeHint is the size of the last body.
func (s *Scraper) pull(ctx context.Context, t *target, sizeHint int) (answer, *failure) {
	inner := ctx
	if t.assignment.Timeout > 0 {
		var cancel context.CancelFunc
		inner, cancel = context.WithTimeout(ctx, t.assignment.Timeout)
		defer cancel()
	}
	// Not through a http.Client: it would follow redirects.
	resp, err := s.transport.RoundTrip(s.request(inner, t))
	if err != nil {
		return answer{}, interrupted(ctx, inner, err)
	}
	defer resp.Body.Close()
	ans := answer{identity: identify(resp, t)}
	if f := checkAnswer(resp, t); f != nil {
		if resp.ContentLength >= 0 && resp.ContentLength <= drainBytes {
			_, _ = io.CopyN(io.Discard, resp.Body, drainBytes)
		}
		return ans, f
	}
	src := &source{r: resp.Body, left: t.limits.BodyBytes + drainBytes}
	b, f := s.readBody(src, resp, t, sizeHint)
	if f != nil {
		if src.err != nil {
			f = interrupted(ctx, inner, src.err)
		}
		return ans, f
	}
	s.metrics.bodyBytes.Add(float64(len(b.b)))
	contentType := resp.Header.Get("Content-Type")
	ans.body, ans.contentType = b, contentType[:min(len(contentType), maxContentType)]
	return ans, nil
}

// identify tells what an answer says of who it is from.
func identify(resp *http.Response, t *target) schedule.Identity {
	switch resp.Header.Get(ProducerHeader) {
	case "":
		return schedule.IdentityNameless
	case string(t.assignment.ProducerID):
		return schedule.IdentityOwn
	default:
		return schedule.IdentityOther
	}
}

// checkAnswer judges an answer by its headers.
func checkAnswer(resp *http.Response, t *target) *failure {
	if identify(resp, t) == schedule.IdentityOther {
		return fail(schedule.ReasonWrongProducer, "the endpoint says that it is producer %.130q", resp.Header.Get(ProducerHeader))
	}
	if resp.StatusCode != http.StatusOK {
		// Not resp.Status: its text is the producer's.
		return fail(schedule.ReasonStatus, "HTTP status %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	encoding := resp.Header.Get("Content-Encoding")
	if !isGzip(encoding) && encoding != "" && !strings.EqualFold(encoding, "identity") {
		return fail(schedule.ReasonMalformed, "Content-Encoding %.100q was not asked for", encoding)
	}
	if resp.ContentLength > t.limits.BodyBytes {
		return fail(schedule.ReasonTooLarge, "a body of %d bytes, at most %d are allowed", resp.ContentLength, t.limits.BodyBytes)
	}
	return nil
}

func isGzip(encoding string) bool { return strings.EqualFold(encoding, "gzip") }

// readBody reads an answer's body to its end, decompressed.
func (s *Scraper) readBody(src *source, resp *http.Response, t *target, sizeHint int) (*body, *failure) {
	r := io.Reader(src)
	if isGzip(resp.Header.Get("Content-Encoding")) {
		z := s.gunzip()
		defer s.gzips.Put(z)
		if err := z.reset(src); err != nil {
			return nil, fail(schedule.ReasonMalformed, "gzip: %v", err)
		}
		defer z.drop()
		r = &z.gz
	}
	b, ok := s.newBody(sizeHint)
	if !ok {
		return nil, s.overBudget()
	}
	if f := b.fill(r, t.limits.BodyBytes); f != nil {
		b.release()
		return nil, f
	}
	if r == src && unframed(resp) && len(b.b) > 0 && b.b[len(b.b)-1] != '\n' {
		b.release()
		return nil, fail(schedule.ReasonMalformed, "a body of unknown length ends without a line feed")
	}
	return b, nil
}

// unframed reports whether an answer ends with its connection: then it can be
// cut off unnoticed.
func unframed(resp *http.Response) bool {
	return resp.ContentLength < 0 && len(resp.TransferEncoding) == 0
}

// fill reads r to its end, at most limit bytes.
func (d *body) fill(r io.Reader, limit int64) *failure {
	for {
		room, ok := d.room()
		if !ok {
			return d.from.overBudget()
		}
		n, err := r.Read(room)
		d.b = d.b[:len(d.b)+n]
		if int64(len(d.b)) > limit {
			return fail(schedule.ReasonTooLarge, "a body of more than %d bytes", limit)
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, errCompressed):
			return fail(schedule.ReasonTooLarge, "a compressed body of more than %d bytes", limit)
		default:
			return fail(schedule.ReasonMalformed, "gzip: %v", err)
		}
	}
}

func (s *Scraper) overBudget() *failure {
	return fail(schedule.ReasonBudget, "running collections hold the %d bytes that they may hold together", s.budget.limit)
}

// errCompressed says that a source is longer than any body may be.
var errCompressed = errors.New("too many compressed bytes")

// A source is a body as it is sent. It keeps the error of the connection apart
// from those of the decompressor, and ends bodies of endless empty parts.
type source struct {
	r    io.Reader
	left int64
	err  error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	if s.left -= int64(n); s.left < 0 {
		return 0, errCompressed
	}
	return n, err
}

// A gunzip is a decompressor with its buffer.
type gunzip struct {
	gz  gzip.Reader
	buf *bufio.Reader
}

func (s *Scraper) gunzip() *gunzip {
	if z, ok := s.gzips.Get().(*gunzip); ok {
		return z
	}
	return &gunzip{buf: bufio.NewReaderSize(nil, 4<<10)}
}

func (z *gunzip) reset(src io.Reader) error {
	z.buf.Reset(src)
	if err := z.gz.Reset(z.buf); err != nil {
		z.drop()
		return fmt.Errorf("header: %w", err)
	}
	return nil
}

// drop lets go of the source.
func (z *gunzip) drop() { z.buf.Reset(nil) }
