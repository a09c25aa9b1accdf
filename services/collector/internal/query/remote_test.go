package query_test

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage/remote"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/query"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

var readKinds = []prompb.ReadRequest_ResponseType{prompb.ReadRequest_SAMPLES, prompb.ReadRequest_STREAMED_XOR_CHUNKS}

// read sends a remote-read request for up.
func read(t *testing.T, b *bench, kind prompb.ReadRequest_ResponseType) *httptest.ResponseRecorder {
	t.Helper()
	return readFrom(t, b, "/api/v1/read", kind)
}

func readFrom(t *testing.T, b *bench, path string, kind prompb.ReadRequest_ResponseType) *httptest.ResponseRecorder {
	t.Helper()
	request := prompb.ReadRequest{
		Queries: []*prompb.Query{{
			StartTimestampMs: start, EndTimestampMs: math.MaxInt64,
			Matchers: []*prompb.LabelMatcher{{Type: prompb.LabelMatcher_EQ, Name: "__name__", Value: "up"}},
		}},
		AcceptedResponseTypes: []prompb.ReadRequest_ResponseType{kind},
	}
	body, err := request.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, bytes.NewReader(snappy.Encode(nil, body)))
	rec := httptest.NewRecorder()
	b.handler.ServeHTTP(rec, r)
	return rec
}

func remoteReadOfSamples(t *testing.T, b *bench) {
	rec := read(t, b, prompb.ReadRequest_SAMPLES)
	body, err := snappy.Decode(nil, rec.Body.Bytes())
	if err != nil || rec.Code != http.StatusOK {
		t.Fatal(rec.Code, err)
	}
	var got prompb.ReadResponse
	if err := got.Unmarshal(body); err != nil {
		t.Fatal(err)
	}
	if series := got.Results[0].Timeseries; len(series) != 2 || len(series[0].Samples) != 5 {
		t.Errorf("series are %v", series)
	}
}

func remoteReadOfChunks(t *testing.T, b *bench) {
	rec := read(t, b, prompb.ReadRequest_STREAMED_XOR_CHUNKS)
	frames := remote.NewChunkedReader(rec.Body, 1<<20, nil)
	series := 0
	for {
		var got prompb.ChunkedReadResponse
		if err := frames.NextProto(&got); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		series += len(got.ChunkedSeries)
	}
	if series != 2 || rec.Code != http.StatusOK {
		t.Errorf("%d, %d series, want 2", rec.Code, series)
	}
}

func TestRemoteReadIsBounded(t *testing.T) {
	b := filled(t, func(c *query.Config) { c.MaxSamples = 3 })
	if rec := read(t, b, prompb.ReadRequest_SAMPLES); rec.Code != http.StatusBadRequest || !strings.Contains(rec.Body.String(), "limit") {
		t.Errorf("too many samples: %d %s", rec.Code, rec.Body)
	}
	// A few bytes that say they are 4 GiB.
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/read", strings.NewReader("\xff\xff\xff\xff\x0f"))
	rec := httptest.NewRecorder()
	b.handler.ServeHTTP(rec, r)
	if rec.Code != http.StatusBadRequest {
		t.Errorf("a bomb: %d %s", rec.Code, rec.Body)
	}
}

// Debian's promtool is years older than the API.
func TestPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("ROLLCALL_REQUIRE_ALL") == "1" {
			t.Fatal("promtool is required (Debian package prometheus)")
		}
		t.Skip("promtool is not installed (Debian package prometheus)")
	}
	b := newBench(t, nil)
	b.write(t, sample.Sample{Series: series("__name__", "up", "job", "api"), Time: time.Now().UnixMilli(), Value: 1})
	server := httptest.NewServer(b.handler)
	defer server.Close()
	for _, test := range []struct {
		want string
		args []string
	}{
		{`up{job="api"} => 1 @`, []string{"query", "instant", server.URL, "up"}},
		{`up{job="api"} =>`, []string{"query", "range", server.URL, "up"}},
		{`{__name__="up", job="api"}`, []string{"query", "series", "--match=up", server.URL}},
		{"api", []string{"query", "labels", server.URL, "job"}},
	} {
		out, err := exec.CommandContext(t.Context(), promtool, test.args...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), test.want) {
			t.Errorf("promtool %v: %v\n%s", test.args, err, out)
		}
	}
}
