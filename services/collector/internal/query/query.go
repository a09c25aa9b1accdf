// Package query answers Prometheus's HTTP API over the collector's store: it
// mounts Prometheus's own handlers, and adds only what bounds them. Its one
// invariant: whatever is asked, an answer is as Prometheus would give it, takes
// bounded time, memory and concurrency, and changes nothing.
package query

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/features"
)

// Defaults of [Config]; those that Prometheus has are Prometheus's.
const (
	DefaultTimeout         = 2 * time.Minute
	DefaultLookbackDelta   = 5 * time.Minute
	DefaultMaxSamples      = 50_000_000
	DefaultMaxConcurrent   = 20
	DefaultMaxRequestBytes = 1 << 20
)

// prefix is where Prometheus has its API.
const prefix = "/api/v1"

// A Store tells how the embedded store is doing. Its methods are called
// concurrently.
type Store interface {
	// Stats tells the cardinality of what is in memory; see tsdb.Head.Stats.
	Stats(label string, limit int) (*tsdb.Stats, error)

	// BlockMetas lists the blocks on disk.
	BlockMetas() ([]tsdb.BlockMeta, error)

	// WALReplayStatus tells how far the replay of the write-ahead log is.
	WALReplayStatus() (tsdb.WALReplayStatus, error)
}

// A Config says what is asked and how much of it at most. Zero limits stand for
// the defaults.
type Config struct {
	// Queryable, Exemplars, Store and Targets are what is asked. Queryable and
	// Exemplars may reach further than this collector's store, as far as
	// [ScopeOf] says; Store and Targets are this collector's. All are required.
	Queryable storage.SampleAndChunkQueryable
	Exemplars storage.ExemplarQueryable
	Store     Store
	Targets   TargetSource

	// Logger is required.
	Logger *slog.Logger

	// Registerer takes the metrics of the query engine and of this package; nil
	// registers none.
	Registerer prometheus.Registerer

	// Gatherer is asked for the process's own metrics, some of which are part of
	// the status answers. Required.
	Gatherer prometheus.Gatherer

	// Version is Rollcall's own, for the build information. Retention is told in
	// the runtime information, such as "15d or 10GiB".
	Version   string
	Retention string

	// ExternalURL is how others reach this collector's HTTP port. Targets on
	// localhost are shown under its host. Nil stands for the host name.
	ExternalURL *url.URL

	// Timeout bounds every request. LookbackDelta is how long a sample counts as
	// a series' current value.
	Timeout       time.Duration
	LookbackDelta time.Duration

	// MaxSamples bounds what one query may hold in memory, 16 B each, and what a
	// remote read may answer without streaming.
	MaxSamples int

	// MaxConcurrent bounds the requests at work that cost something. Four times
	// as many may wait; more are refused with 503.
	MaxConcurrent int

	// MaxRequestBytes bounds a request's URL query and its body, each.
	MaxRequestBytes int64
}

// New makes the handler of /api/v1/. It serves that prefix only, so it can be
// mounted on a mux as it is. The server that mounts it bounds the reading of
// requests and the writing of answers (its ReadTimeout and WriteTimeout), and closes the
// store only after the server has stopped.
func New(cfg Config) (http.Handler, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	// A registry of its own: Prometheus's constructors panic on metrics that are
	// registered already.
	registry := prometheus.NewRegistry()
	metrics := newMetrics(registry)
	queries := boundedParser{parser.NewParser(parser.Options{})}
	known := features.NewRegistry()
	engine := promql.NewEngine(promql.EngineOpts{
		Logger:                   cfg.Logger,
		Reg:                      registry,
		MaxSamples:               cfg.MaxSamples,
		Timeout:                  cfg.Timeout,
		LookbackDelta:            cfg.LookbackDelta,
		NoStepSubqueryIntervalFn: func(int64) int64 { return time.Minute.Milliseconds() },
		EnableAtModifier:         true,
		EnableNegativeOffset:     true,
		FeatureRegistry:          known,
		Parser:                   queries,
	})
	limits := newLimiter(cfg, metrics)
	router := route.New().WithInstrumentation(func(name string, next http.HandlerFunc) http.HandlerFunc {
		return limits.wrap(name, scoped(name, next))
	})
	newAPI(cfg, engine, queries, known, registry).Register(router)
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(registry); err != nil {
			return nil, fmt.Errorf("query: metrics: %w", err)
		}
	}
	return http.StripPrefix(prefix, router), nil
}

// complete checks the configuration and puts the defaults in.
func (c *Config) complete() error {
	switch {
	case c.Queryable == nil, c.Exemplars == nil, c.Store == nil, c.Targets == nil, c.Gatherer == nil:
		return errors.New("query: Queryable, Exemplars, Store, Targets and Gatherer are required")
	case c.Logger == nil:
		return errors.New("query: no logger given")
	case c.Timeout < 0, c.LookbackDelta < 0, c.MaxSamples < 0, c.MaxConcurrent < 0, c.MaxRequestBytes < 0:
		return errors.New("query: limits must not be negative")
	}
	orDefault(&c.Timeout, DefaultTimeout)
	orDefault(&c.LookbackDelta, DefaultLookbackDelta)
	orDefault(&c.MaxSamples, DefaultMaxSamples)
	orDefault(&c.MaxConcurrent, DefaultMaxConcurrent)
	orDefault(&c.MaxRequestBytes, DefaultMaxRequestBytes)
	return nil
}

func orDefault[T int | int64 | time.Duration](limit *T, value T) {
	if *limit == 0 {
		*limit = value
	}
}
