package remotewrite_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"go.uber.org/goleak"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/remotewrite"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// missing skips a test for the lack of something, or fails it where everything
// has to be there.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("ROLLCALL_REQUIRE_ALL") == "1" {
		t.Fatalf("%s, and ROLLCALL_REQUIRE_ALL=1", what)
	}
	t.Skip(what)
}

// A call is one request as a receiver has it.
type call struct {
	header http.Header
	raw    []byte // not compressed
}

func (c call) v2() bool {
	return c.header.Get("Content-Type") == "application/x-protobuf;proto=io.prometheus.write.v2.Request"
}

func (c call) decode2(t testing.TB) *writev2.Request {
	t.Helper()
	var r writev2.Request
	if err := r.Unmarshal(c.raw); err != nil {
		t.Fatalf("2.0 as Prometheus reads it: %v", err)
	}
	return &r
}

func (c call) decode1(t testing.TB) *prompb.WriteRequest {
	t.Helper()
	var r prompb.WriteRequest
	if err := r.Unmarshal(c.raw); err != nil {
		t.Fatalf("1.0 as Prometheus reads it: %v", err)
	}
	return &r
}

// A receiver answers as its function says, and keeps what it was sent.
type receiver struct {
	url string

	mu    sync.Mutex
	calls []call
}

// listen starts a receiver over loopback.
func listen(t testing.TB, answer func(w http.ResponseWriter, c call)) *receiver {
	t.Helper()
	r := &receiver{}
	server := httptest.NewServer(r.handler(t, answer))
	t.Cleanup(server.Close)
	r.url = server.URL + "/api/v1/write"
	return r
}

func (r *receiver) handler(t testing.TB, answer func(w http.ResponseWriter, c call)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return // the other side went away
		}
		if req.Header.Get("Content-Encoding") != "snappy" || req.Method != http.MethodPost {
			t.Errorf("%s with encoding %q", req.Method, req.Header.Get("Content-Encoding"))
		}
		raw, err := snappy.Decode(nil, body)
		if err != nil {
			t.Errorf("Go's snappy does not read the body: %v", err)
		}
		c := call{req.Header, raw}
		r.mu.Lock()
		r.calls = append(r.calls, c)
		r.mu.Unlock()
		answer(w, c)
	})
}

func (r *receiver) take() []call {
	r.mu.Lock()
	defer r.mu.Unlock()
	calls := r.calls
	r.calls = nil
	return calls
}

// newClient makes a client of its own connections.
func newClient(t testing.TB, url string, change func(*remotewrite.Config)) *remotewrite.Client {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	config := remotewrite.Config{Name: "test", URL: url, HTTP: &http.Client{Transport: transport}}
	if change != nil {
		change(&config)
	}
	c, err := remotewrite.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// A one is one sample with its series in full.
type one struct {
	labels labels.Labels
	meta   *metadata.Metadata
	point  sample.Point
}

// request makes a request of samples, each series once in its list.
func request(c deliver.Transport, samples ...one) *deliver.Request {
	r := &deliver.Request{Series: c.NewSeries()}
	known := map[string]uint32{}
	for _, s := range samples {
		key := string(s.labels.Bytes(nil))
		if s.meta != nil {
			key += string(s.meta.Type) + "\x00" + s.meta.Help + "\x00" + s.meta.Unit
		}
		index, ok := known[key]
		if !ok {
			index = uint32(len(known))
			known[key] = index
			r.Series.Add(s.labels, s.meta)
		}
		r.Items = append(r.Items, deliver.Item{Index: index, Point: s.point})
	}
	r.Ends = []int{len(r.Items)}
	return r
}

// values are n plain samples of n series.
func values(n int) []one {
	var all []one
	for i := range n {
		all = append(all, one{
			labels: labels.FromStrings("__name__", "requests_total", "code", string(rune('a'+i%26)), "n", string(rune('a'+i/26))),
			point:  sample.Point{Time: 1700000000000, Value: float64(i)},
		})
	}
	return all
}

// histograms are one of each kind, with exemplars.
func histograms() []one {
	at := time.Now().UnixMilli()
	var all []one
	for i, h := range []*histogram.Histogram{
		{
			CounterResetHint: histogram.NotCounterReset, Schema: 2, ZeroThreshold: 0.001, ZeroCount: 3, Count: 16, Sum: -2.5,
			PositiveSpans: []histogram.Span{{Offset: -2, Length: 2}, {Offset: 3, Length: 1}}, PositiveBuckets: []int64{4, -1, 0},
			NegativeSpans: []histogram.Span{{Offset: 0, Length: 1}}, NegativeBuckets: []int64{3},
		},
		{Schema: histogram.CustomBucketsSchema, Count: 6, Sum: 20, CustomValues: []float64{1, 2.5, 10}, PositiveSpans: []histogram.Span{{Length: 4}}, PositiveBuckets: []int64{1, 1, 0, -1}},
		{CounterResetHint: histogram.GaugeType, Schema: -4, Count: 1, Sum: 1, PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []int64{1}},
	} {
		for _, float := range []bool{false, true} {
			x := &sample.Extra{Histogram: h}
			kind := "int"
			if float {
				x, kind = &sample.Extra{FloatHistogram: h.ToFloat(nil)}, "float"
			}
			x.Exemplars = []exemplar.Exemplar{{Labels: labels.FromStrings("trace_id", "abc", "span_id", kind), Value: 0.5}}
			all = append(all, one{
				labels: labels.FromStrings("__name__", "latency_seconds", "kind", kind, "n", strconv.Itoa(i)),
				meta:   &metadata.Metadata{Type: model.MetricTypeHistogram, Help: "How long.", Unit: "seconds"},
				point:  sample.Point{Time: at, Start: at - 60000, Extra: x},
			})
		}
	}
	return all
}
