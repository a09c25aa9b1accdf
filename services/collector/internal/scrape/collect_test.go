package scrape_test

import (
	"compress/gzip"
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/scrape"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

func TestCollectStoresSamplesAndReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.text("# HELP a_total Help.\n# TYPE a_total counter\na_total{x=\"1\"} 2\na_total{x=\"2\",e=\"\"} 3\nb NaN\n")
		c := r.open(producer())
		samples, at, result := r.collect(c)
		want := []string{
			series("a_total", "x", "1") + " 2",
			series("a_total", "x", "2") + " 3",
			series("b") + " NaN",
			series("up") + " 1",
			series("scrape_duration_seconds") + " _",
			series("scrape_samples_scraped") + " 3",
			series("scrape_samples_post_metric_relabeling") + " 3",
			series("scrape_series_added") + " 3",
		}
		equal(t, lines(samples, at), want)
		if result.Reason != schedule.ReasonNone || result.Message != "" || result.Samples != 3 || result.BodyBytes != 89 {
			t.Errorf("result %+v", result)
		}

		// The next time nothing is new, and the series are the same pointers.
		again, at, _ := r.collect(c)
		want[7] = series("scrape_series_added") + " 0"
		equal(t, lines(again, at), want)
		for i := range again {
			if again[i].Series != samples[i].Series {
				t.Errorf("another Series for %s", again[i].Series.Labels())
			}
		}
	})
}

func TestRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(cfg *scrape.Config) { cfg.CollectorID, cfg.UserAgent = "c7", "agent/1" })
		r.text("")
		a := producer()
		a.Endpoint = "http://node1:9100/probe?target=x"
		a.Timeout = 1500 * time.Millisecond
		r.good(r.open(a))
		req := <-r.requests
		for name, want := range map[string]string{
			"Accept": "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;escaping=allow-utf-8;q=0.7," +
				"application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5," +
				"text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
			"Accept-Encoding":                     "zstd,gzip;q=0.9",
			"User-Agent":                          "agent/1",
			"X-Prometheus-Scrape-Timeout-Seconds": "1.5",
			"Rollcall-Collector":                  "c7",
		} {
			if got := req.Header.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if req.Method != http.MethodGet || req.RequestURI != "/probe?target=x" || req.Host != "node1:9100" || req.Proto != "HTTP/1.1" {
			t.Errorf("%s %s %s, host %s", req.Method, req.RequestURI, req.Proto, req.Host)
		}
	})
}

func TestConnectionIsKept(t *testing.T) {
	t.Run("for the next collection", func(t *testing.T) { connections(t, 15*time.Second, 1, 1) })
	t.Run("not for hours", func(t *testing.T) { connections(t, time.Hour, 8, 0) })
}

// connections collects eight times in an interval, and expects so many dials, and
// so many connections that stay open.
func connections(t *testing.T, interval time.Duration, wantDials, wantOpen int32) {
	synctest.Test(t, func(t *testing.T) {
		var dials, open atomic.Int32
		r := newRig(t, func(cfg *scrape.Config) {
			dial := cfg.DialContext
			cfg.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
				dials.Add(1)
				open.Add(1)
				conn, err := dial(ctx, network, address)
				return &closing{Conn: conn, open: &open}, err
			}
		})
		r.text("a 1\n")
		a := producer()
		a.Interval = interval
		c := r.open(a)
		pause := min(interval, time.Minute)
		for range 5 {
			r.good(c)
			time.Sleep(pause)
		}
		r.answer(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusServiceUnavailable) })
		for range 3 {
			r.collect(c)
			time.Sleep(pause)
		}
		if n, left := dials.Load(), open.Load(); n != wantDials || left != wantOpen {
			t.Errorf("%d dials and %d open, want %d and %d", n, left, wantDials, wantOpen)
		}
	})
}

// closing is a connection that is counted until it is closed.
type closing struct {
	net.Conn

	open *atomic.Int32
	once sync.Once
}

func (c *closing) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}

func TestGzip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.answer(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; version=0.0.4")
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = io.WriteString(z, strings.Repeat("# a comment\n", 10_000)+"a 1\n")
			z.Close()
		})
		c := r.open(producer())
		for range 3 { // with a used decompressor too
			equal(t, r.good(c), []string{series("a") + " 1"})
		}
	})
}

func TestContentTypes(t *testing.T) {
	const text, om = "a 1\n", "a 1\n# EOF\n"
	for _, tc := range []struct {
		contentType string
		fallback    assignment.Format
		body        string
		odd         bool
		reason      schedule.Reason
	}{
		{contentType: "text/plain; version=0.0.4", body: text},
		{contentType: "text/plain", body: text},
		{contentType: openMetrics, body: om},
		{contentType: openMetrics, body: text, reason: schedule.ReasonMalformed}, // cut off before EOF
		{contentType: "", body: text, odd: true},
		{contentType: "text/html; charset=utf-8", body: text, odd: true},
		{contentType: "text/html", body: "<html>", odd: true, reason: schedule.ReasonMalformed},
		{contentType: ";;;", body: text, odd: true},
		{contentType: "application/json", body: text, odd: true},
		{contentType: protobuf, body: messages(one)},
		{contentType: "application/vnd.google.protobuf", body: messages(one)},
		{contentType: protobuf, body: "\x0a\x05", reason: schedule.ReasonMalformed},
		{contentType: protobuf, body: text, reason: schedule.ReasonMalformed},
		{contentType: "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=text", body: text, odd: true},
		{contentType: "application/vnd.google.protobuf; proto=another", body: text, odd: true},
		{contentType: "", fallback: assignment.FormatProtobuf, body: messages(one), odd: true},
		{contentType: "application/openmetrics-text; version=2.0.0", body: text, odd: true},
		{contentType: "", fallback: assignment.FormatOpenMetrics, body: om, odd: true},
		{contentType: "", fallback: assignment.FormatOpenMetrics, body: text, odd: true, reason: schedule.ReasonMalformed},
		{contentType: "", fallback: 77, body: text, odd: true},
		{contentType: strings.Repeat("x", 10_000), body: text, odd: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := scrape.NewMetrics()
			r := newRig(t, func(cfg *scrape.Config) { cfg.Metrics = m })
			r.typed(tc.contentType, tc.body)
			a := producer()
			a.FallbackFormat = tc.fallback
			c := r.open(a)
			for range 2 {
				if _, _, result := r.collect(c); result.Reason != tc.reason {
					t.Errorf("%.50q: %+v, want reason %d", tc.contentType, result, tc.reason)
				}
			}
			odd := 0.0
			if tc.odd {
				odd = 2
			}
			if got := metric(t, m, "rollcall_collector_scrape_content_type_fallbacks_total", ""); got != odd {
				t.Errorf("%.50q: %v fallbacks, want %v", tc.contentType, got, odd)
			}
		})
	}
}

func TestTimestamps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := scrape.NewMetrics()
		r := newRig(t, func(cfg *scrape.Config) { cfg.Metrics = m })
		limit := time.Now().Add(10 * time.Minute).UnixMilli()
		stamp := func(ms int64) string { return strconv.FormatInt(ms, 10) }
		r.text("a 1 1000\na 2 2000\nc 3 " + stamp(limit) + "\nd 4 " + stamp(limit+1) + "\ne 5\n")
		want := []string{
			series("a") + " 1 @1000", series("a") + " 2 @2000",
			series("c") + " 3 @" + stamp(limit), series("e") + " 5",
		}
		c := r.open(producer())
		equal(t, r.good(c), want)
		if got := metric(t, m, "rollcall_collector_scrape_skipped_samples_total", "future"); got != 1 {
			t.Errorf("%v skipped, want 1", got)
		}

		a := producer()
		a.IgnoreTimestamps = true
		if err := c.Update(a); err != nil {
			t.Fatal(err)
		}
		// Without the time stamps the second a is a second sample of one time.
		equal(t, r.good(c), []string{series("a") + " 1", series("c") + " 3", series("d") + " 4", series("e") + " 5"})
	})
}

func TestOpenMetricsTimestampsAreSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.typed(openMetrics, "a 1 1.5\nb 2 -3\n# EOF\n")
		equal(t, r.good(r.open(producer())), []string{series("a") + " 1 @1500", series("b") + " 2 @-3000"})
	})
}

func TestDuplicates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := scrape.NewMetrics()
		r := newRig(t, func(cfg *scrape.Config) { cfg.Metrics = m })
		// The same text, the same labels in another order, empty labels, one
		// time stamp twice; and the collection's own series.
		r.text("a{x=\"1\",y=\"2\"} 1\na{x=\"1\",y=\"2\"} 2\na{y=\"2\",x=\"1\"} 3\na{x=\"1\",y=\"2\",z=\"\"} 4\n" +
			"b 1 1000\nb 2 1000\nb 3 2000\nup 0\nup 0 5\nup{x=\"1\"} 7\n")
		c := r.open(producer())
		for i := range 3 {
			samples, at, result := r.collect(c)
			got := lines(samples, at)
			added := " 0"
			if i == 0 {
				added = " 3"
			}
			equal(t, got, []string{
				series("a", "x", "1", "y", "2") + " 1",
				series("b") + " 1 @1000", series("b") + " 3 @2000",
				series("up", "x", "1") + " 7",
				series("up") + " 1",
				series("scrape_duration_seconds") + " _",
				series("scrape_samples_scraped") + " 10",
				series("scrape_samples_post_metric_relabeling") + " 10",
				series("scrape_series_added") + added,
			})
			if result.Samples != 10 {
				t.Errorf("%d samples, want 10", result.Samples)
			}
		}
		if got := metric(t, m, "rollcall_collector_scrape_skipped_samples_total", "duplicate"); got != 3*6 {
			t.Errorf("%v skipped, want 18", got)
		}
	})
}

func TestHonorLabels(t *testing.T) {
	for _, tc := range []struct {
		name   string
		honor  bool
		labels []assignment.Label
		body   string
		want   string
	}{
		{
			name: "conflict", body: `a{job="x",instance="y"} 1`,
			want: `{__name__="a", exported_instance="y", exported_job="x", instance="node1:9100", job="node"} 1`,
		}, {
			name: "exported name taken", body: `a{job="x",exported_job="y"} 1`,
			want: `{__name__="a", exported_exported_job="x", exported_job="y", instance="node1:9100", job="node"} 1`,
		}, {
			name: "exported label of the target", body: `a{job="x",exported_job="y"} 1`,
			labels: []assignment.Label{{Name: "exported_job", Value: "t"}, {Name: "job", Value: "node"}},
			want:   `{__name__="a", exported_exported_exported_job="y", exported_exported_job="x", exported_job="t", instance="node1:9100", job="node"} 1`,
		}, {
			name: "empty label is none", body: `a{job="",x=""} 1`,
			want: `{__name__="a", instance="node1:9100", job="node"} 1`,
		}, {
			name: "honored", honor: true, body: `a{job="x",instance="y"} 1`,
			want: `{__name__="a", instance="y", job="x"} 1`,
		}, {
			name: "honored, one missing", honor: true, body: `a{job="x"} 1`,
			want: `{__name__="a", instance="node1:9100", job="x"} 1`,
		}, {
			name: "honored, empty takes the label away", honor: true, body: `a{instance=""} 1`,
			want: `{__name__="a", job="node"} 1`,
		}, {
			name: "defaults", labels: []assignment.Label{{Name: "job", Value: ""}, {Name: "zone", Value: "z"}}, body: `a 1`,
			want: `{__name__="a", instance="node1:9100", job="rollcall", zone="z"} 1`,
		}, {
			name: "told instance", labels: []assignment.Label{{Name: "instance", Value: "i"}}, body: `a 1`,
			want: `{__name__="a", instance="i", job="rollcall"} 1`,
		}, {
			name: "quoted names", body: `{"a.b","c d"="e"} 1`,
			want: `{"__name__"="a.b", "c d"="e", "instance"="node1:9100", "job"="node"} 1`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, nil)
				r.text(tc.body + "\n")
				a := producer()
				a.HonorLabels = tc.honor
				if tc.labels != nil {
					a.Labels = tc.labels
				}
				got := r.good(r.open(a))
				want := strings.NewReplacer(`"__name__"`, "__name__", `"instance"`, "instance", `"job"`, "job").Replace(tc.want)
				equal(t, got, []string{want})
			})
		})
	}
}

// metric is the value of a counter or gauge, with the one label value.
func metric(t *testing.T, m *scrape.Metrics, name, label string) float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(m)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, one := range f.GetMetric() {
			if label == "" || one.GetLabel()[0].GetValue() == label {
				return one.GetCounter().GetValue() + one.GetGauge().GetValue()
			}
		}
	}
	return 0
}
