package scrape

import (
	"context"
	"io"
	"net/http"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// ProducerHeader is the header by which an endpoint tells which producer it is.
const ProducerHeader = "Rollcall-Producer"

// Values of request headers. Protobuf is asked for first, always: only it has
// native histograms, it costs no more than text to read (1.1 us a sample, text 1.3,
// OpenMetrics 1.4) and a quarter less to send. To ask first for the one and then
// for the other, as the producer has histograms or not, would make series of
// OpenMetrics (_created) come and go. zstd is a tenth to a quarter smaller than
// gzip, at about the same cost.
const (
	accept = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;escaping=allow-utf-8;q=0.7," +
		"application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6," +
		"application/openmetrics-text;version=0.0.1;q=0.5," +
		"text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4," +
		"text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
	acceptEncoding = "zstd,gzip;q=0.9"
)

// drainBytes is how much of an unwanted answer is read for the sake of its
// connection.
const drainBytes = 64 << 10

// maxContentType is how much of a Content-Type is looked at.
const maxContentType = 256

// An answer is what came of a request. body and contentType are those of a body
// that was read to its end, size is its size, and cuttable says that nothing but
// what is in it tells where it ends; identity is told by failures, too.
type answer struct {
	body        *body
	contentType string
	size        int64
	cuttable    bool
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
	if t.access.authorization != nil {
		header["Authorization"] = t.access.authorization
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
	resp, err := s.transports.to(&t.access).RoundTrip(s.request(inner, t))
	if err != nil {
		return answer{}, interrupted(ctx, inner, err)
	}
	defer resp.Body.Close()
	ans := answer{identity: identify(resp, t)}
	if f := checkAnswer(resp, t); f != nil {
		// What follows a switch of protocols is the connection itself: no context ends a
		// read of it.
		if resp.ContentLength >= 0 && resp.ContentLength <= drainBytes && resp.StatusCode != http.StatusSwitchingProtocols {
			_, _ = io.CopyN(io.Discard, resp.Body, drainBytes)
		}
		return ans, f
	}
	src := &source{r: resp.Body, left: t.limits.BodyBytes + drainBytes}
	encoding, _ := encodingOf(resp)
	b, f := s.readBody(src, encoding, t, sizeHint)
	if f != nil {
		if src.err != nil {
			f = interrupted(ctx, inner, src.err)
		}
		return ans, f
	}
	s.metrics.bodyBytes.Add(float64(len(b.b)))
	contentType := resp.Header.Get("Content-Type")
	ans.body, ans.contentType = b, contentType[:min(len(contentType), maxContentType)]
	ans.cuttable = encoding == identity && unframed(resp)
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
	if _, ok := encodingOf(resp); !ok {
		return fail(schedule.ReasonMalformed, "Content-Encoding %.100q was not asked for", resp.Header.Get("Content-Encoding"))
	}
	if resp.ContentLength > t.limits.BodyBytes {
		return fail(schedule.ReasonTooLarge, "a body of %d bytes, at most %d are allowed", resp.ContentLength, t.limits.BodyBytes)
	}
	return nil
}

// unframed reports whether an answer ends with its connection: then it can be
// cut off unnoticed. HTTP/2 tells the end of each.
func unframed(resp *http.Response) bool {
	return resp.ProtoMajor < 2 && resp.ContentLength < 0 && len(resp.TransferEncoding) == 0
}

// checkEnd refuses a text that is cut off in a line.
func checkEnd(ans answer, format assignment.Format) *failure {
	b := ans.body.b
	if ans.cuttable && format != assignment.FormatProtobuf && len(b) > 0 && b[len(b)-1] != '\n' {
		return fail(schedule.ReasonMalformed, "a body of unknown length ends without a line feed")
	}
	return nil
}
