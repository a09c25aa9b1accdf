package scrape_test

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"
	configutil "github.com/prometheus/common/config"
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
	stores "github.com/rollcall-metrics/rollcall/services/collector/internal/sink"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A page is one answer of a producer.
type page struct {
	status      int // 0 is 200
	contentType string
	encoding    string // "" is identity
	body        string
	fault       fault
}

// A fault is how an answer goes wrong below HTTP.
type fault int

const (
	faultNone fault = iota
	faultCut        // ends before its length
	faultHang       // does not come
)

func (p page) write(w http.ResponseWriter, r *http.Request) {
	if p.fault == faultHang {
		<-r.Context().Done()
		return
	}
	// Prometheus shares its zstd decoders between bubbles, which they must not be.
	if p.encoding == "zstd" && !strings.Contains(r.Header.Get("Accept-Encoding"), p.encoding) {
		p.encoding = "gzip"
	}
	body := compressed(p.encoding, []byte(p.body))
	w.Header()["Content-Type"] = []string{p.contentType}
	if p.encoding != "" {
		w.Header().Set("Content-Encoding", p.encoding)
	}
	if p.fault == faultCut {
		w.Header().Set("Content-Length", fmt.Sprint(len(body)+1))
	}
	if p.status != 0 {
		w.WriteHeader(p.status)
	}
	_, _ = w.Write(body)
}

// A life is what one producer answers, collection by collection, and how its
// assignment is.
type life struct {
	pages            []page
	honorLabels      bool
	ignoreTimestamps bool

	// relabel are the rules for series, in YAML; empty is none.
	relabel string
}

// The limits of both sides.
const (
	parityBody    = 1 << 20
	paritySamples = 100
	parityStep    = 15 * time.Second
)

// ServeHTTP answers page after page, to each client its own, and then 404.
func (l *life) handler() http.Handler {
	var mu sync.Mutex
	next := map[string]int{}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		client, _, _ := strings.Cut(r.UserAgent(), "/")
		mu.Lock()
		i := next[client]
		next[client]++
		mu.Unlock()
		if i < len(l.pages) {
			l.pages[i].write(w, r)
			return
		}
		http.NotFound(w, r)
	})
}

// A record is what one side has made of a life: the samples and the exemplars by
// series, and the metadata by family.
type record struct {
	samples, exemplars, metadata map[string][]string
}

// live lets Prometheus's own scraping and this one pull the same life, at the same
// times of the bubble's clock, into two stores.
func (l *life) live(t *testing.T) (ours, theirs record) {
	pipes := newPipeNet()
	server := &http.Server{Handler: l.handler()}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(pipes)
	}()
	start := time.Now()
	their, our := openTSDB(t), openSink(t)
	m, stop := l.startPrometheus(t, their, pipes)
	defer func() {
		stop()
		server.Close()
		<-served
	}()
	ours.metadata = l.collect(t, our, pipes, start)
	theirs.metadata = map[string][]string{}
	for _, target := range m.TargetsActive()["node"] {
		for _, meta := range target.ListMetadata() {
			theirs.metadata[meta.MetricFamily] = []string{fmt.Sprintf("%s %q %q", meta.Type, meta.Unit, meta.Help)}
		}
	}
	until := start.Add(time.Duration(len(l.pages)) * parityStep).UnixMilli()
	ours.dump(t, our, start.UnixMilli(), until)
	theirs.dump(t, their, start.UnixMilli(), until)
	return ours, theirs
}

// A store is where samples and exemplars are read from.
type store interface {
	storage.Queryable
	storage.ExemplarQueryable
}

// parityWindow takes time stamps of 1970 beside those of the bubble.
const parityWindow = 60 * 365 * 24 * time.Hour

func openSink(t *testing.T) *stores.TSDB {
	t.Helper()
	db, err := stores.OpenTSDB(stores.TSDBConfig{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler), OutOfOrderWindow: parityWindow})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func openTSDB(t *testing.T) *tsdb.DB {
	t.Helper()
	opts := tsdb.DefaultOptions()
	opts.OutOfOrderTimeWindow = parityWindow.Milliseconds()
	opts.EnableExemplarStorage, opts.MaxExemplars = true, stores.DefaultMaxExemplars
	db, err := tsdb.Open(t.TempDir(), slog.New(slog.DiscardHandler), nil, opts, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// startPrometheus scrapes from now on until stop.
func (l *life) startPrometheus(t *testing.T, db *tsdb.DB, pipes *pipeNet) (m *promscrape.Manager, stop func()) {
	t.Helper()
	cfg, err := config.Load(fmt.Sprintf(`
global: {scrape_interval: 15s, scrape_timeout: 10s}
scrape_configs:
- job_name: node
  honor_labels: %v
  honor_timestamps: %v
  scrape_native_histograms: true
  fallback_scrape_protocol: PrometheusText0.0.4
  body_size_limit: %dB
  sample_limit: %d
  follow_redirects: false
  metric_relabel_configs: %s
`, l.honorLabels, !l.ignoreTimestamps, parityBody, paritySamples, cmp.Or(l.relabel, "[]")), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	opts := &promscrape.Options{
		DiscoveryReloadOnStartup: true,
		HTTPClientOptions:        []configutil.HTTPClientOption{configutil.WithDialContextFunc(pipes.dial)},
	}
	// It asks the resolver for its own name, which no bubble may, and starts at
	// another time on each machine. Its own tests turn that off, by a field that
	// is theirs.
	skip := reflect.ValueOf(opts).Elem().FieldByName("skipJitterOffsetting")
	*(*bool)(unsafe.Pointer(skip.UnsafeAddr())) = true
	m, err = promscrape.NewManager(opts, nil, nil, nil, db, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.ApplyConfig(cfg); err != nil {
		t.Fatal(err)
	}
	targets := make(chan map[string][]*targetgroup.Group, 1)
	targets <- map[string][]*targetgroup.Group{"node": {{Targets: []model.LabelSet{{model.AddressLabel: "node1:9100"}}}}}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		_ = m.Run(targets)
	}()
	return m, func() {
		m.Stop()
		<-stopped
	}
}

// collect collects each page at its time, and returns the metadata in the end.
func (l *life) collect(t *testing.T, db *stores.TSDB, pipes *pipeNet, start time.Time) map[string][]string {
	t.Helper()
	s := scrape.New(scrape.Config{Sink: checked{t, db}, DialContext: pipes.dial, Setup: scrape.Setup{
		Limits: scrape.Limits{BodyBytes: parityBody, Samples: paritySamples},
		Series: rules(t, cmp.Or(l.relabel, "[]")),
	}})
	defer s.Close()
	a := producer()
	a.HonorLabels, a.IgnoreTimestamps = l.honorLabels, l.ignoreTimestamps
	a.FallbackFormat = assignment.FormatPrometheusText
	opened, err := s.Open(a)
	if err != nil {
		t.Fatal(err)
	}
	for i := range l.pages {
		at := start.Add(time.Duration(i) * parityStep)
		time.Sleep(time.Until(at))
		opened.Collect(t.Context(), at)
	}
	time.Sleep(time.Until(start.Add(time.Duration(len(l.pages))*parityStep - time.Second)))
	all := map[string][]string{}
	c, _ := s.Find(a.ProducerID)
	for name, meta := range c.Metadata() {
		all[name] = []string{fmt.Sprintf("%s %q %q", meta.Type, meta.Unit, meta.Help)}
	}
	return all
}

// A checked sink checks each batch before it stores it.
type checked struct {
	t  *testing.T
	db *stores.TSDB
}

func (s checked) Write(ctx context.Context, b *sample.Batch) error {
	checkBatch(s.t, b)
	return s.db.Write(ctx, b)
}

// dump reads all of a store but what is of the time until or later: samples by
// series, the time as the number of the step. How long a collection took is left
// out.
func (r *record) dump(t *testing.T, db store, start, until int64) {
	t.Helper()
	r.samples, r.exemplars = map[string][]string{}, map[string][]string{}
	when := func(ms int64) string {
		if step := ms - start; step >= 0 && step%parityStep.Milliseconds() == 0 {
			return fmt.Sprint("step ", step/parityStep.Milliseconds())
		}
		return fmt.Sprint("at ", ms-start)
	}
	q, err := db.Querier(math.MinInt64, until-1)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	set := q.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchNotEqual, "__name__", "scrape_duration_seconds"))
	for set.Next() {
		key := set.At().Labels().String()
		it := set.At().Iterator(nil)
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			ms, what := read(it, kind)
			r.samples[key] = append(r.samples[key], when(ms)+": "+what)
		}
		if err := it.Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := set.Err(); err != nil {
		t.Fatal(err)
	}
	eq, err := db.ExemplarQuerier(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all, err := eq.Select(math.MinInt64, math.MaxInt64, []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+")})
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range all {
		for _, e := range one.Exemplars {
			key := "exemplars of " + one.SeriesLabels.String()
			r.exemplars[key] = append(r.exemplars[key], fmt.Sprintf("%s: %s %v", when(e.Ts), e.Labels, e.Value))
		}
	}
}

// read shows one sample with its kind: a stale marker has one, too.
func read(it chunkenc.Iterator, kind chunkenc.ValueType) (ms int64, what string) {
	stale := func(v float64, what string) string {
		if value.IsStaleNaN(v) {
			return "stale"
		}
		return what
	}
	switch kind {
	case chunkenc.ValFloat:
		ms, v := it.At()
		return ms, stale(v, fmt.Sprint(v))
	case chunkenc.ValHistogram:
		ms, h := it.AtHistogram(nil)
		return ms, "int " + stale(h.Sum, fmt.Sprintf("%s hint %d", h, h.CounterResetHint))
	default:
		ms, h := it.AtFloatHistogram(nil)
		return ms, "float " + stale(h.Sum, fmt.Sprintf("%s hint %d", h, h.CounterResetHint))
	}
}
