package query_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/query"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sink"
)

// A bench is a handler over a real store.
type bench struct {
	store   *sink.TSDB
	reg     *prometheus.Registry
	logs    *bytes.Buffer
	handler http.Handler
}

func newStore(t testing.TB, reg prometheus.Registerer) *sink.TSDB {
	t.Helper()
	store, err := sink.OpenTSDB(sink.TSDBConfig{Dir: t.TempDir(), WriteWait: time.Minute, Registerer: reg, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

// newBench makes a bench; change may be nil.
func newBench(t testing.TB, change func(*query.Config)) *bench {
	t.Helper()
	b := &bench{reg: prometheus.NewRegistry(), logs: &bytes.Buffer{}}
	b.store = newStore(t, b.reg)
	cfg := query.Config{
		Queryable:  b.store,
		Exemplars:  b.store,
		Store:      b.store,
		Targets:    targets{},
		Logger:     slog.New(slog.NewTextHandler(b.logs, nil)),
		Registerer: b.reg,
		Gatherer:   b.reg,
	}
	if change != nil {
		change(&cfg)
	}
	handler, err := query.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	b.handler = handler
	return b
}

func (b *bench) write(t testing.TB, samples ...sample.Sample) {
	t.Helper()
	if refused, err := b.store.Append(t.Context(), &sample.Batch{Samples: samples}); err != nil || refused != (sink.Refused{}) {
		t.Fatal(refused, err)
	}
}

func series(pairs ...string) *sample.Series {
	ls := labels.FromStrings(pairs...)
	return &sample.Series{Own: ls}
}

// answer is Prometheus's envelope.
type answer struct {
	Status    string          `json:"status"`
	Data      json.RawMessage `json:"data"`
	ErrorType string          `json:"errorType"`
	Error     string          `json:"error"`
	Warnings  []string        `json:"warnings"`
}

// get asks path, whose values follow in pairs.
func (b *bench) get(t testing.TB, path string, pairs ...string) (int, answer) {
	t.Helper()
	values := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		values.Add(pairs[i], pairs[i+1])
	}
	return b.do(t, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path+"?"+values.Encode(), http.NoBody))
}

func (b *bench) do(t testing.TB, r *http.Request) (int, answer) {
	t.Helper()
	rec := httptest.NewRecorder()
	b.handler.ServeHTTP(rec, r)
	var a answer
	if err := json.Unmarshal(rec.Body.Bytes(), &a); err != nil && rec.Code != http.StatusNoContent {
		t.Fatalf("%s: %d, no JSON: %v\n%s", r.URL, rec.Code, err, rec.Body)
	}
	return rec.Code, a
}

// TestDefaults runs what needs no configuration over one handler, since making
// one renders Prometheus's whole API description.
func TestDefaults(t *testing.T) {
	b := filled(t, nil)
	for name, test := range map[string]func(*testing.T, *bench){
		"answers are compressed":             answersAreCompressed,
		"many matchers are fine":             manyMatchersAreFine,
		"no other origin":                    noOtherOrigin,
		"nothing is written through the API": nothingIsWritten,
		"other paths are not found":          otherPathsAreNotFound,
		"remote read of chunks":              remoteReadOfChunks,
		"remote read of samples":             remoteReadOfSamples,
		"scrape configurations are refused":  scrapeConfigurationsAreRefused,
		"the version is that of the module":  versionIsThatOfTheModule,
	} {
		t.Run(name, func(t *testing.T) { test(t, b) })
	}
}

// start of the samples of filled.
const start = 1_700_000_000_000

// filled is a bench with a little of everything.
func filled(t testing.TB, change func(*query.Config)) *bench {
	b := newBench(t, change)
	up := []*sample.Series{
		series("__name__", "up", "job", "api", "instance", "a:1"),
		series("__name__", "up", "job", "api", "instance", "b:1"),
	}
	total := series("__name__", "requests_total", "job", "api", "instance", "a:1")
	for i := range int64(5) {
		ms := start + i*10_000
		b.write(t,
			sample.Sample{Series: up[0], Time: ms, Value: 1},
			sample.Sample{Series: up[1], Time: ms, Value: 0},
			sample.Sample{Series: total, Time: ms, Value: float64(i * 100), Extra: &sample.Extra{Exemplars: []exemplar.Exemplar{{
				Labels: labels.FromStrings("trace_id", "abc"), Value: float64(i),
			}}}},
		)
	}
	return b
}

func TestAnswers(t *testing.T) {
	b := filled(t, func(c *query.Config) {
		c.Targets = someTargets()
		c.ExternalURL = &url.URL{Scheme: "https", Host: "collector.example:7481"}
		c.Version, c.Retention = "1.2.3", "15d"
	})
	const last = "1700000040"
	tests := []struct {
		name  string
		path  string
		pairs []string
		want  string // The data; texts in it are matched as substrings when it begins with ~.
	}{
		{
			"instant query", "query",
			[]string{"query", "up", "time", last},
			`{"resultType":"vector","result":[` +
				`{"metric":{"__name__":"up","instance":"a:1","job":"api"},"value":[1700000040,"1"]},` +
				`{"metric":{"__name__":"up","instance":"b:1","job":"api"},"value":[1700000040,"0"]}]}`,
		},
		{
			"subquery without a step", "query",
			[]string{"query", "max_over_time(rate(requests_total[30s])[40s:])", "time", last},
			`~"value":[1700000040,`,
		},
		{
			"negative offset and at", "query",
			[]string{"query", "requests_total @ 1700000000 offset -10s", "time", last},
			`~"value":[1700000040,"100"]`,
		},
		{
			"range query", "query_range",
			[]string{"query", "sum(rate(requests_total[20s]))", "start", "1700000020", "end", last, "step", "10"},
			`~{"resultType":"matrix","result":[{"metric":{},"values":[[1700000020,"10"],[1700000030,"10"],[1700000040,"10"]]}]}`,
		},
		{
			"series", "series",
			[]string{"match[]", `up{instance="b:1"}`},
			`[{"__name__":"up","instance":"b:1","job":"api"}]`,
		},
		{"labels", "labels", nil, `["__name__","instance","job"]`},
		{"label values", "label/instance/values", []string{"match[]", "up"}, `["a:1","b:1"]`},
		{
			"metadata", "metadata",
			nil,
			`{"requests_total":[{"type":"counter","unit":"requests","help":"Requests."}],"temperature":[{"type":"gauge","unit":"","help":"How warm."}]}`,
		},
		{
			"metadata of a metric", "metadata",
			[]string{"metric", "temperature"},
			`{"temperature":[{"type":"gauge","unit":"","help":"How warm."}]}`,
		},
		{
			"metadata of targets", "targets/metadata",
			[]string{"match_target", `{job="api"}`, "metric", "temperature"},
			`[{"target":{"instance":"a:1","job":"api"},"type":"gauge","help":"How warm.","unit":""}]`,
		},
		{
			"exemplars", "query_exemplars",
			[]string{"query", "requests_total", "start", "1700000000", "end", last},
			`~[{"seriesLabels":{"__name__":"requests_total","instance":"a:1","job":"api"},"exemplars":[{"labels":{"trace_id":"abc"},"value":"0","timestamp":1700000000}`,
		},
		{"format", "format_query", []string{"query", "sum by(job)(up)>1"}, `"sum by (job) (up) \u003e 1"`},
		{"parse", "parse_query", []string{"query", "up"}, `~"type":"vectorSelector"`},
		{"scrape pools", "scrape_pools", nil, `{"scrapePools":["api","db"]}`},
		{"alerts", "alerts", nil, `{"alerts":[]}`},
		{"rules", "rules", nil, `{"groups":[]}`},
		{"alertmanagers", "alertmanagers", nil, `{"activeAlertmanagers":[],"droppedAlertmanagers":[]}`},
		{"notifications", "notifications", nil, `[]`},
		{"features", "features", nil, `~"at_modifier":true`},
		{"build", "status/buildinfo", nil, `~{"version":"3.15.0","revision":"1.2.3","branch":"rollcall"`},
		{"runtime", "status/runtimeinfo", nil, `~"reloadConfigSuccess":true`},
		{"retention", "status/runtimeinfo", nil, `~"storageRetention":"15d"`},
		{"flags", "status/flags", nil, `{"query.lookback-delta":"5m","query.max-concurrency":"20","query.max-samples":"50000000","query.timeout":"2m"}`},
		{"configuration", "status/config", nil, `~{"yaml":"`},
		{"head statistics", "status/tsdb", nil, `~{"headStats":{"numSeries":3,"numLabelPairs":5,"chunkCount":3,`},
		{"blocks", "status/tsdb/blocks", nil, `{"blocks":[]}`},
		{"replay", "status/walreplay", nil, `~"current"`},
		{"own metrics", "status/self_metrics", []string{"metric_name_pattern", "prometheus_tsdb_head_series"}, `~"gauge":{"value":3}`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			code, got := b.get(t, "/api/v1/"+test.path, test.pairs...)
			if code != http.StatusOK || got.Status != "success" || got.Warnings != nil {
				t.Fatalf("%d %+v", code, got)
			}
			part, isPart := strings.CutPrefix(test.want, "~")
			if data := string(got.Data); data != part && (!isPart || !strings.Contains(data, part)) {
				t.Errorf("got  %s\nwant %s", data, test.want)
			}
		})
	}
}

func TestRefusedConfigurations(t *testing.T) {
	store, reg := newStore(t, nil), prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "rollcall_query_requests_in_flight", Help: "Another."}))
	good := query.Config{
		Queryable: store, Exemplars: store, Store: store, Targets: targets{},
		Logger: slog.New(slog.DiscardHandler), Gatherer: reg,
	}
	for name, spoil := range map[string]func(*query.Config){
		"no queryable":      func(c *query.Config) { c.Queryable = nil },
		"no exemplars":      func(c *query.Config) { c.Exemplars = nil },
		"no store":          func(c *query.Config) { c.Store = nil },
		"no targets":        func(c *query.Config) { c.Targets = nil },
		"no gatherer":       func(c *query.Config) { c.Gatherer = nil },
		"no logger":         func(c *query.Config) { c.Logger = nil },
		"negative limit":    func(c *query.Config) { c.MaxSamples = -1 },
		"metrics are taken": func(c *query.Config) { c.Registerer = reg },
	} {
		cfg := good
		spoil(&cfg)
		if h, err := query.New(cfg); err == nil || h != nil {
			t.Errorf("%s: no error", name)
		}
	}
}
