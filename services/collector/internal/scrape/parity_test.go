package scrape_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	promscrape "github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/scrape"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A page is one answer of a script.
type page struct {
	status      int // 0 is 200
	contentType string
	body        string
}

// parityScript is one producer's life: each answer is what vanished, came,
// changed or broke since the one before.
var parityScript = []page{
	{contentType: "text/plain; version=0.0.4", body: `# HELP http_requests_total Requests.
# TYPE http_requests_total counter
http_requests_total{method="get",code="200"} 10
http_requests_total{method="post",code="200"} 3
# TYPE latency_seconds histogram
latency_seconds_bucket{le="0.5"} 1
latency_seconds_bucket{le="1"} 2
latency_seconds_bucket{le="+Inf"} 3
latency_seconds_sum 2.5
latency_seconds_count 3
# TYPE quantiles summary
quantiles{quantile="0"} 1
quantiles{quantile="0.99"} 2
quantiles_sum 3
quantiles_count 4
up{job="pretends"} 1
clash{job="x",instance="y",exported_job="z"} 1
empty{a="",b="c"} NaN
escaped{a="q\"b\\n\nx"} +Inf
old 1 1000
{"utf8.name","label name"="v"} 7
`},
	{contentType: "text/plain; version=0.0.4", body: `# TYPE http_requests_total counter
http_requests_total{code="200",method="get"} 11
http_requests_total{method="post",code="200"} 4
latency_seconds_bucket{le="0.5"} 1
twice 1
twice 2
empty{b="c"} 5
old 2 2000
stamped 1
far 1 99999999999999
`},
	{status: 503},
	{contentType: "text/plain; version=0.0.4", body: "http_requests_total{method=\"get\",code=\"200\"} 12\nstamped 2 3000\nempty{b=\"c\"} 6\n"},
	{contentType: "text/plain; version=0.0.4", body: "http_requests_total{method=\"get\",code=\"200\"} 13\nbroken{\n"},
	{contentType: "application/openmetrics-text; version=1.0.0", body: `# TYPE http_requests counter
# HELP http_requests Requests.
http_requests_total{method="get",code="200"} 14 # {trace_id="x"} 1
# TYPE latency_seconds histogram
# UNIT latency_seconds seconds
latency_seconds_bucket{le="1"} 1
latency_seconds_bucket{le="+Inf"} 2
latency_seconds_created 5
old 3 3.5
# EOF
`},
	{contentType: "application/openmetrics-text; version=1.0.0", body: "http_requests_total{method=\"get\",code=\"200\"} 15\n"}, // no EOF
	{contentType: "application/openmetrics-text; version=1.0.0", body: ""},
	{contentType: "text/plain", body: "http_requests_total{method=\"get\",code=\"200\"} 16"},
	{contentType: "text/plain", body: "last 1\n"},
}

// scripted answers page after page, to each client its own, and closes done[i]
// when client i asks for one more than there are.
func scripted(pages []page, clients ...string) (http.Handler, map[string]chan struct{}) {
	var mu sync.Mutex
	next := map[string]int{}
	done := map[string]chan struct{}{}
	for _, c := range clients {
		done[c] = make(chan struct{})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		client, _, _ := strings.Cut(r.UserAgent(), "/")
		mu.Lock()
		i := next[client]
		next[client]++
		mu.Unlock()
		if i == len(pages) {
			close(done[client])
		}
		if i >= len(pages) {
			<-r.Context().Done()
			return
		}
		w.Header()["Content-Type"] = []string{pages[i].contentType}
		if pages[i].status != 0 {
			w.WriteHeader(pages[i].status)
		}
		_, _ = io.WriteString(w, pages[i].body)
	}), done
}

// deliberate are the differences that are meant, by metric and sample: what
// Prometheus stores is put into what is stored here, "" for nothing.
var deliberate = map[string]map[string]string{
	// Prometheus forgets the marker of a series that stood before the fault of
	// a malformed exposition, and gives it one at the next empty answer.
	"http_requests_total": {"step 4: stale": "", "step 6: stale": "step 7: stale"},
	// Prometheus counts a series as new when it is merely written otherwise.
	"scrape_series_added": {"step 1: 3": "step 1: 4", "step 3: 0": "step 3: 1"},
}

// likePrometheus undoes the deliberate differences.
func likePrometheus(name string, samples []string) []string {
	var all []string
	for _, s := range samples {
		for metric, differences := range deliberate {
			theirs, ok := differences[s]
			if ok && strings.Contains(name, `"`+metric+`"`) && (metric != "http_requests_total" || strings.Contains(name, `method="get"`)) {
				s = theirs
			}
		}
		if s != "" {
			all = append(all, s)
		}
	}
	return all
}

// TestParityWithPrometheus lets Prometheus's own scrape loop and this one pull
// the same script into two stores, and compares the stores.
func TestParityWithPrometheus(t *testing.T) {
	for _, honor := range []bool{false, true} {
		t.Run(fmt.Sprint("honor_labels ", honor), func(t *testing.T) {
			t.Parallel()
			handler, done := scripted(parityScript, "Prometheus", "rollcall-collector")
			server := httptest.NewServer(handler)
			t.Cleanup(server.Close)
			host := strings.TrimPrefix(server.URL, "http://")

			theirs := openTSDB(t)
			stop := startPrometheus(t, theirs, host, fmt.Sprintf("honor_labels: %v", honor))
			ours := openTSDB(t)
			collectScript(t, ours, server.URL, honor, len(parityScript), scrape.Setup{})
			select {
			case <-done["Prometheus"]:
			case <-time.After(time.Minute):
				t.Fatal("Prometheus has not read the script in a minute")
			}
			server.CloseClientConnections()
			stop()

			got, want := dump(t, ours, len(parityScript)), dump(t, theirs, len(parityScript))
			if len(want) < 20 {
				t.Fatalf("Prometheus has only %d series", len(want))
			}
			names := map[string]bool{}
			for _, m := range []map[string][]string{got, want} {
				for name := range m {
					names[name] = true
				}
			}
			for _, name := range slices.Sorted(maps.Keys(names)) {
				if !slices.Equal(likePrometheus(name, got[name]), want[name]) {
					t.Errorf("%s\n  Rollcall   %q\n  Prometheus %q", name, got[name], want[name])
				}
			}
		})
	}
}

func openTSDB(t *testing.T) *tsdb.DB {
	t.Helper()
	opts := tsdb.DefaultOptions()
	opts.RetentionDuration = math.MaxInt64 / 2
	// Time stamps of 1970 beside those of today.
	opts.OutOfOrderTimeWindow = math.MaxInt64 / 4
	db, err := tsdb.Open(t.TempDir(), slog.New(slog.DiscardHandler), nil, opts, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// startPrometheus scrapes host until stop, as settings of the job say.
func startPrometheus(t *testing.T, db *tsdb.DB, host, settings string) (stop func()) {
	t.Helper()
	cfg, err := config.Load(fmt.Sprintf(`
global: {scrape_interval: 500ms, scrape_timeout: 500ms}
scrape_configs:
- job_name: node
  fallback_scrape_protocol: PrometheusText0.0.4
  %s
`, settings), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	m, err := promscrape.NewManager(&promscrape.Options{DiscoveryReloadOnStartup: true}, nil, nil, db, nil, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.ApplyConfig(cfg); err != nil {
		t.Fatal(err)
	}
	targets := make(chan map[string][]*targetgroup.Group, 1)
	targets <- map[string][]*targetgroup.Group{"node": {{Targets: []model.LabelSet{{model.AddressLabel: model.LabelValue(host)}}}}}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		_ = m.Run(targets)
	}()
	return func() {
		m.Stop()
		<-stopped
	}
}

// collectScript collects n times.
func collectScript(t *testing.T, db *tsdb.DB, url string, honor bool, n int, setup scrape.Setup) {
	t.Helper()
	s := scrape.New(scrape.Config{Sink: tsdbSink{t, db}, Setup: setup})
	defer s.Close()
	a := producer()
	a.Endpoint = url + "/metrics"
	a.HonorLabels = honor
	a.FallbackFormat = assignment.FormatPrometheusText
	c, err := s.Open(a)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Truncate(time.Millisecond)
	for range n {
		c.Collect(t.Context(), at)
		at = at.Add(500 * time.Millisecond)
	}
}

// A tsdbSink stores as a collector would: what the store refuses as late or
// twice is left out.
type tsdbSink struct {
	t  *testing.T
	db *tsdb.DB
}

func (s tsdbSink) Write(ctx context.Context, b *sample.Batch) error {
	checkBatch(s.t, b)
	app := s.db.Appender(ctx)
	for _, one := range b.Samples {
		_, err := app.Append(0, one.Series.Labels, one.Time, one.Value)
		if err != nil && !errors.Is(err, storage.ErrOutOfOrderSample) && !errors.Is(err, storage.ErrDuplicateSampleForTimestamp) {
			return errors.Join(err, app.Rollback())
		}
	}
	return app.Commit()
}

// dump is what a store has of the first n collections: samples by series, the
// time as the number of the collection.
func dump(t *testing.T, db *tsdb.DB, n int) map[string][]string {
	t.Helper()
	steps := map[int64]int{}
	all := map[string][]string{}
	// The times of the collections: only these have this series.
	each(t, db, labels.MustNewMatcher(labels.MatchEqual, "__name__", "scrape_samples_scraped"), func(_ labels.Labels, ts int64, _ float64) {
		steps[ts] = len(steps)
	})
	each(t, db, labels.MustNewMatcher(labels.MatchNotEqual, "__name__", "scrape_duration_seconds"), func(set labels.Labels, ts int64, v float64) {
		when := fmt.Sprint("at ", ts)
		if step, ok := steps[ts]; ok {
			if step >= n {
				return
			}
			when = fmt.Sprint("step ", step)
		}
		what := fmt.Sprint(v)
		if value.IsStaleNaN(v) {
			what = "stale"
		}
		all[set.String()] = append(all[set.String()], when+": "+what)
	})
	return all
}

func each(t *testing.T, db *tsdb.DB, m *labels.Matcher, f func(labels.Labels, int64, float64)) {
	t.Helper()
	q, err := db.Querier(math.MinInt64, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	set := q.Select(t.Context(), true, nil, m)
	for set.Next() {
		it := set.At().Iterator(nil)
		for it.Next() == chunkenc.ValFloat {
			ts, v := it.At()
			f(set.At().Labels(), ts, v)
		}
		if it.Err() != nil {
			t.Fatal(it.Err())
		}
	}
	if set.Err() != nil {
		t.Fatal(set.Err())
	}
}
