package remotewrite_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/remotewrite"
)

// answers are what each answer means, when two samples were sent as 2.0 to a
// receiver that counts, and as 1.0.
var answers = []struct {
	status int
	text   string
	want   deliver.Outcome // Code, Err and Bytes are not looked at
}{
	{200, "", deliver.Outcome{Result: deliver.Delivered}},
	{202, "", deliver.Outcome{Result: deliver.Delivered}},
	{204, "", deliver.Outcome{Result: deliver.Delivered}},
	{301, "", deliver.Outcome{Result: deliver.Retry}},
	{302, "", deliver.Outcome{Result: deliver.Retry}},
	{307, "", deliver.Outcome{Result: deliver.Retry}},
	{308, "", deliver.Outcome{Result: deliver.Retry}},
	{400, "", deliver.Outcome{Result: deliver.Rejected, Reason: deliver.ReasonRejected}},
	{400, "out of order sample", deliver.Outcome{Result: deliver.Rejected, Reason: deliver.ReasonOutOfOrder, Divisible: true}},
	{400, "snappy: corrupt input", deliver.Outcome{Result: deliver.Rejected, Reason: deliver.ReasonInvalid, Divisible: true}},
	{400, "too big unpacked request; mustn't exceed 33554432 bytes", deliver.Outcome{Result: deliver.TooLarge}},
	{400, "decoded size exceeds the 33554432 bytes limit", deliver.Outcome{Result: deliver.TooLarge}},
	{401, "out of order sample", deliver.Outcome{Result: deliver.Retry}},
	{402, "", deliver.Outcome{Result: deliver.Retry}},
	{403, "", deliver.Outcome{Result: deliver.Retry}},
	{404, "", deliver.Outcome{Result: deliver.Retry}},
	{405, "", deliver.Outcome{Result: deliver.Retry}},
	{406, "", deliver.Outcome{Result: deliver.Retry}},
	{407, "", deliver.Outcome{Result: deliver.Retry}},
	{408, "", deliver.Outcome{Result: deliver.Retry}},
	{409, "add 2 samples: duplicate sample for timestamp", deliver.Outcome{Result: deliver.Rejected, Reason: deliver.ReasonDuplicate}},
	{410, "", deliver.Outcome{Result: deliver.Retry}},
	{413, "", deliver.Outcome{Result: deliver.TooLarge}},
	{415, "", deliver.Outcome{Result: deliver.Retry}},
	{418, "", deliver.Outcome{Result: deliver.Rejected, Reason: deliver.ReasonRejected}},
	{421, "", deliver.Outcome{Result: deliver.Retry}},
	{422, "", deliver.Outcome{Result: deliver.Rejected, Reason: deliver.ReasonRejected}},
	{425, "", deliver.Outcome{Result: deliver.Retry}},
	{429, "", deliver.Outcome{Result: deliver.Retry, Overloaded: true}},
	{431, "", deliver.Outcome{Result: deliver.Retry}},
	{499, "", deliver.Outcome{Result: deliver.Rejected, Reason: deliver.ReasonRejected}},
	{500, "", deliver.Outcome{Result: deliver.Retry}},
	{500, "native histograms are disabled", deliver.Outcome{Result: deliver.Rejected, Reason: deliver.ReasonUnsupported, Divisible: true}},
	{500, "received message larger than max (5 vs 4)", deliver.Outcome{Result: deliver.TooLarge}},
	{502, "", deliver.Outcome{Result: deliver.Retry}},
	{503, "", deliver.Outcome{Result: deliver.Retry, Overloaded: true}},
	{504, "", deliver.Outcome{Result: deliver.Retry}},
	{599, "", deliver.Outcome{Result: deliver.Retry}},
	{999, "", deliver.Outcome{Result: deliver.Retry}},
}

func TestAnswers(t *testing.T) {
	for _, test := range answers {
		for _, p := range []remotewrite.Protocol{remotewrite.V2, remotewrite.V1} {
			r := listen(t, func(w http.ResponseWriter, _ call) {
				if p == remotewrite.V2 && test.status/100 == 2 {
					written(w, 2, 0)
				} else if p == remotewrite.V2 {
					written(w, 0, 0)
				}
				if test.status/100 == 3 {
					w.Header().Set("Location", "/elsewhere?token=hunter2")
				}
				w.WriteHeader(test.status)
				_, _ = w.Write([]byte(test.text))
			})
			c := newClient(t, r.url, func(c *remotewrite.Config) { c.Protocol = p })
			o := c.Send(t.Context(), request(c, values(2)...))
			if (o.Err == nil) != (test.status/100 == 2) || o.Bytes == 0 || len(r.take()) != 1 {
				t.Errorf("%v %d: %+v", p, test.status, o)
			}
			o.Err, o.Code, o.Bytes = nil, "", 0
			want := test.want
			if p == remotewrite.V2 && test.text != "native histograms are disabled" {
				want.Divisible = false // what could be taken was
			}
			if diff := cmp.Diff(want, o); diff != "" {
				t.Errorf("%v %d %q (-want +got):\n%s", p, test.status, test.text, diff)
			}
		}
	}
}

func TestReasons(t *testing.T) {
	for text, want := range map[string]string{
		// Prometheus
		"out of order sample": deliver.ReasonOutOfOrder,
		"out of bounds":       deliver.ReasonTooOld,
		"too old sample":      deliver.ReasonTooOld,
		"out of bounds: timestamp is too far in the future": deliver.ReasonTooNew,
		`duplicate sample for timestamp 1700000000000; overrides not allowed: existing 1, new value 2 for series {__name__="rate_limit", x="too old"}`: deliver.ReasonDuplicate,
		`invalid metric name or labels, got {__name__="out of order"}`:                                                                                 deliver.ReasonInvalid,
		`invalid labels for series, labels {a="1", a="2"}, duplicated label a`:                                                                         deliver.ReasonInvalid,
		"duplicate sample for timestamp for series {a}\nout of order sample for series {b}":                                                            deliver.ReasonOutOfOrder,
		"unfinished {series": deliver.ReasonRejected,
		"3 negative buckets, but custom buckets: histogram has a zero bucket": deliver.ReasonInvalid,
		// Mimir and Cortex
		"failed pushing to ingester: user=1: the sample has been rejected because another sample with a more recent timestamp has already been ingested and out-of-order samples are not allowed (err-mimir-sample-out-of-order). The affected sample has timestamp 2022 and is from series x": deliver.ReasonOutOfOrder,
		"the sample has been rejected because its timestamp is too old (err-mimir-sample-timestamp-too-old)":                                                                   deliver.ReasonTooOld,
		"the sample has been rejected because another sample with the same timestamp, but a different value, has already been ingested (err-mimir-sample-duplicate-timestamp)": deliver.ReasonDuplicate,
		"received a sample whose timestamp is too far in the future, timestamp: 1 series: 'x' (err-mimir-too-far-in-future)":                                                   deliver.ReasonTooNew,
		"per-user series limit of 5 exceeded (err-mimir-max-series-per-user). To adjust the related per-tenant limit, configure -x":                                            deliver.ReasonLimit,
		"received a series whose number of labels exceeds the limit (actual: 31, limit: 30) series: 'x' (err-mimir-max-label-names-per-series)":                                deliver.ReasonLimit,
		"received series has no metric name, missing metric name (err-mimir-missing-metric-name)":                                                                              deliver.ReasonInvalid,
		"received a series with an invalid label: 'a b' series: 'x' (err-mimir-label-invalid)":                                                                                 deliver.ReasonInvalid,
		// Thanos
		"store locally for endpoint 127.0.0.1:10901: conflict: add 5 samples: out of order sample": deliver.ReasonOutOfOrder,
		"add 5 samples: too old sample": deliver.ReasonTooOld,
		// nobody
		"":              deliver.ReasonRejected,
		"go away":       deliver.ReasonRejected,
		"\xff\xfe{\x00": deliver.ReasonRejected,
	} {
		r := listen(t, func(w http.ResponseWriter, _ call) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(text))
		})
		c := newClient(t, r.url, func(c *remotewrite.Config) { c.Protocol = remotewrite.V1 })
		o := c.Send(t.Context(), request(c, values(1)...))
		if o.Result != deliver.Rejected || o.Reason != want {
			t.Errorf("%q: %v %q, want %q", text, o.Result, o.Reason, want)
		}
	}
}

// TestPartialWrites has two samples sent, and an answer that counts.
func TestPartialWrites(t *testing.T) {
	for _, test := range []struct {
		status, samples int
		text            string
		want            deliver.Outcome
	}{
		{400, 1, "out of order sample", deliver.Outcome{Result: deliver.Delivered, Refused: 1, Reason: deliver.ReasonOutOfOrder}},
		{400, 0, "out of order sample", deliver.Outcome{Result: deliver.Rejected, Reason: deliver.ReasonOutOfOrder}},
		{400, 2, "out of order exemplar", deliver.Outcome{Result: deliver.Delivered}},
		{400, 7, "more than there were", deliver.Outcome{Result: deliver.Rejected, Reason: deliver.ReasonRejected}},
		// Mimir has counted before its ingesters refused.
		{400, 2, "per-user series limit of 5 exceeded (err-mimir-max-series-per-user)", deliver.Outcome{Result: deliver.Rejected, Reason: deliver.ReasonLimit}},
		{400, 1, "user=7: out of order sample (err-mimir-sample-out-of-order)", deliver.Outcome{Result: deliver.Rejected, Reason: deliver.ReasonOutOfOrder}},
		{422, 1, "limit", deliver.Outcome{Result: deliver.Delivered, Refused: 1, Reason: deliver.ReasonLimit}},
		{200, 1, "", deliver.Outcome{Result: deliver.Delivered, Refused: 1, Reason: deliver.ReasonRejected}},
		{200, 0, "", deliver.Outcome{Result: deliver.Delivered, Refused: 2, Reason: deliver.ReasonRejected}},
		{500, 1, "", deliver.Outcome{Result: deliver.Retry}}, // sent again as a whole
		{429, 1, "", deliver.Outcome{Result: deliver.Retry, Overloaded: true}},
	} {
		r := listen(t, func(w http.ResponseWriter, _ call) {
			written(w, test.samples, 0)
			w.WriteHeader(test.status)
			_, _ = w.Write([]byte(test.text))
		})
		c := newClient(t, r.url, nil)
		o := c.Send(t.Context(), request(c, values(2)...))
		if o.Err == nil && (o.Refused > 0 || test.status != 200) {
			t.Errorf("%d %d: no error", test.status, test.samples)
		}
		o.Err, o.Code, o.Bytes = nil, "", 0
		if diff := cmp.Diff(test.want, o); diff != "" {
			t.Errorf("%d with %d written (-want +got):\n%s", test.status, test.samples, diff)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for text, want := range map[string]time.Duration{
			"":                        0,
			"7":                       7 * time.Second,
			"0.5":                     500 * time.Millisecond,
			" 3 ":                     3 * time.Second,
			"-4":                      0,
			"NaN":                     0,
			"Inf":                     10 * time.Minute,
			"99999999999999999999999": 10 * time.Minute,
			"601":                     10 * time.Minute,
			"soon":                    0,
			time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat): 90 * time.Second,
			time.Now().Add(time.Hour).UTC().Format(http.TimeFormat):        10 * time.Minute,
			time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat):       0,
		} {
			r, c := bubble(t, func(w http.ResponseWriter, _ call) {
				w.Header()["Retry-After"] = []string{text}
				w.WriteHeader(http.StatusServiceUnavailable)
			}, nil)
			o := c.Send(t.Context(), request(c, values(1)...))
			if o.Result != deliver.Retry || !o.Overloaded || o.RetryAfter != want {
				t.Errorf("%q: %+v, want %v", text, o, want)
			}
			r.stop()
		}
	})
}

func TestNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := bubble(t, func(http.ResponseWriter, call) { time.Sleep(time.Hour) }, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		begin := time.Now()
		o := c.Send(ctx, request(c, values(1)...))
		if o.Result != deliver.Retry || o.Code != "timeout" || time.Since(begin) != 30*time.Second || o.Err == nil {
			t.Errorf("a receiver that hangs: %+v after %v", o, time.Since(begin))
		}
		cancel()

		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if o := c.Send(ctx, request(c, values(1)...)); o.Result != deliver.Retry || o.Code != "cancelled" {
			t.Errorf("cancelled: %+v", o)
		}
		time.Sleep(time.Hour)
		r.stop()
		if o := c.Send(t.Context(), request(c, values(1)...)); o.Result != deliver.Retry || o.Code != "unreachable" || o.Err == nil {
			t.Errorf("nobody there: %+v", o)
		}
	})
}

// TestEncodedIsKept sends the same request twice, and looks at the bytes.
func TestEncodedIsKept(t *testing.T) {
	status := http.StatusServiceUnavailable
	r := listen(t, func(w http.ResponseWriter, _ call) {
		written(w, 2, 0)
		w.WriteHeader(status)
	})
	c := newClient(t, r.url, nil)
	req := request(c, values(2)...)
	if o := c.Send(t.Context(), req); o.Result != deliver.Retry || req.Encoded == nil {
		t.Errorf("%+v, kept %v", o, req.Encoded != nil)
	}
	first := req.Encoded
	c.Send(t.Context(), req)
	if req.Encoded != first {
		t.Error("a request is encoded anew for the same protocol")
	}
	status = http.StatusOK
	if o := c.Send(t.Context(), req); o.Result != deliver.Delivered || req.Encoded != nil {
		t.Errorf("%+v, kept %v", o, req.Encoded != nil)
	}
	calls := r.take()
	if len(calls) != 3 || string(calls[0].raw) != string(calls[2].raw) {
		t.Errorf("%d calls that differ", len(calls))
	}
}

// TestNoSecretIsTold looks at what people see.
func TestNoSecretIsTold(t *testing.T) {
	r := listen(t, func(w http.ResponseWriter, _ call) {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte("no\nto sesame-basic, sesame-query, sesame-header\x1b[2J" + strings.Repeat("x", 100000)))
	})
	address := strings.Replace(r.url, "http://", "http://user:sesame-basic@", 1) + "?token=sesame-query"
	hidden := func(c *remotewrite.Config) { c.Headers = map[string]string{"X-Api-Key": "sesame-header"} }
	c := newClient(t, address, hidden)
	o := c.Send(t.Context(), request(c, values(1)...))
	text := o.Err.Error()
	if strings.Contains(text, "sesame") || !strings.Contains(text, "401: no to <hidden>") || len(text) > 700 || strings.ContainsAny(text, "\n\x1b") {
		t.Errorf("an answer is shown as %q", text)
	}
	if got := r.take()[0].header; got.Get("X-Api-Key") != "sesame-header" || !strings.HasPrefix(got.Get("Authorization"), "Basic ") {
		t.Errorf("sent %v", got)
	}
	if strings.Contains(c.Target(), "sesame") || !strings.HasSuffix(c.Target(), "/api/v1/write") {
		t.Errorf("the target is %q", c.Target())
	}

	gone := newClient(t, "http://user:sesame-basic@127.0.0.1:1/?token=sesame-query", hidden)
	o = gone.Send(t.Context(), request(gone, values(1)...))
	if o.Result != deliver.Retry || strings.Contains(o.Err.Error(), "sesame") || !strings.Contains(o.Err.Error(), "127.0.0.1:1") {
		t.Errorf("a fault is shown as %q", o.Err)
	}
	// A token that cannot be fetched.
	inner := &url.Error{Op: "Post", URL: "https://login/?client=sesame-inner", Err: errors.New("refused")}
	unlucky := newClient(t, r.url, func(c *remotewrite.Config) {
		c.HTTP = &http.Client{Transport: fails{fmt.Errorf("no token: %w", inner)}}
	})
	if o := unlucky.Send(t.Context(), request(unlucky, values(1)...)); strings.Contains(o.Err.Error(), "sesame") || !strings.Contains(o.Err.Error(), "https://login/: refused") {
		t.Errorf("a fault is shown as %q", o.Err)
	}
	for _, address := range []string{"http://sesame\x7f:x@y", "ftp://sesame@x", "http:///sesame", "sesame", ""} {
		if _, err := remotewrite.New(remotewrite.Config{URL: address, HTTP: http.DefaultClient}); err == nil || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%q: %v", address, err)
		}
	}
}

// fails is a RoundTripper that does.
type fails struct{ err error }

func (f fails) RoundTrip(r *http.Request) (*http.Response, error) {
	_ = r.Body.Close()
	return nil, f.err
}

func TestHeaders(t *testing.T) {
	r := listen(t, confirm(t))
	c := newClient(t, r.url, func(c *remotewrite.Config) {
		c.Headers = map[string]string{"x-scope-orgid": "tenant"}
		c.UserAgent = "rollcall/test"
	})
	c.Send(t.Context(), request(c, values(1)...))
	h := r.take()[0].header
	for name, want := range map[string]string{
		"X-Scope-OrgID": "tenant", "User-Agent": "rollcall/test", "Content-Encoding": "snappy",
		"X-Prometheus-Remote-Write-Version": "2.0.0", "Content-Type": "application/x-protobuf;proto=io.prometheus.write.v2.Request",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{"content-type", "Content-Encoding", "x-prometheus-remote-write-version", "Host", "a b", "X:"} {
		_, err := remotewrite.New(remotewrite.Config{URL: r.url, HTTP: http.DefaultClient, Headers: map[string]string{name: "x"}})
		if err == nil {
			t.Errorf("the header %q is allowed", name)
		}
	}
	_, err := remotewrite.New(remotewrite.Config{URL: r.url, HTTP: http.DefaultClient, Headers: map[string]string{"X": "sesame\r\ny"}})
	if err == nil || strings.Contains(err.Error(), "sesame") {
		t.Errorf("a header of two lines: %v", err)
	}
}

func TestOmitted(t *testing.T) {
	r := listen(t, confirm(t))
	c := newClient(t, r.url, func(c *remotewrite.Config) { c.OmitNativeHistograms, c.OmitExemplars = true, true })
	mixed := append(values(2), histograms()...)
	o := c.Send(t.Context(), request(c, mixed...))
	if o.Result != deliver.Delivered || o.Refused != len(mixed)-2 || o.Reason != deliver.ReasonUnsupported {
		t.Errorf("%+v", o)
	}
	for _, s := range r.take()[0].decode2(t).Timeseries {
		if len(s.Histograms) > 0 || len(s.Exemplars) > 0 {
			t.Errorf("sent %v", s)
		}
	}
	o = c.Send(t.Context(), request(c, histograms()...))
	if o.Result != deliver.Delivered || o.Refused != len(histograms()) || len(r.take()) != 0 {
		t.Errorf("nothing is left: %+v", o)
	}
}

func TestTooLargeToSend(t *testing.T) {
	r := listen(t, confirm(t))
	c := newClient(t, r.url, nil)
	all := values(2)
	for i := range all {
		all[i].labels = labels.FromStrings("a", strings.Repeat(string(rune('a'+i)), 12<<20), "b", strings.Repeat(string(rune('m'+i)), 12<<20))
	}
	if o := c.Send(t.Context(), request(c, all...)); o.Result != deliver.TooLarge {
		t.Errorf("48 MiB: %v", o)
	}
	all[0].labels = labels.FromStrings("a", strings.Repeat("a", 12<<20), "b", strings.Repeat("b", 12<<20), "c", strings.Repeat("c", 12<<20))
	if o := c.Send(t.Context(), request(c, all[0])); o.Result != deliver.Rejected || o.Reason != deliver.ReasonTooLarge {
		t.Errorf("36 MiB in one sample: %v", o)
	}
	if len(r.take()) != 0 {
		t.Error("they were sent")
	}
	refusing := listen(t, func(w http.ResponseWriter, _ call) { w.WriteHeader(http.StatusRequestEntityTooLarge) })
	c = newClient(t, refusing.url, nil)
	if o := c.Send(t.Context(), request(c, values(1)...)); o.Result != deliver.Rejected || o.Reason != deliver.ReasonTooLarge {
		t.Errorf("413 for one sample: %+v", o)
	}
}
