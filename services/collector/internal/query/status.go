package query

import (
	"fmt"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

// apiVersion is the Prometheus whose API this is. Grafana chooses what it asks
// for by it. A test keeps it in step with go.mod.
const apiVersion = "3.15.0"

// status answers the API's questions about the process.
type status struct {
	start     time.Time
	version   string
	retention string
	gatherer  prometheus.Gatherer
	flags     map[string]string
}

func newStatus(cfg Config) *status {
	return &status{
		start:     time.Now().UTC(),
		version:   cfg.Version,
		retention: cfg.Retention,
		gatherer:  cfg.Gatherer,
		// Under Prometheus's names, for those who ask for them.
		flags: map[string]string{
			"query.lookback-delta":  model.Duration(cfg.LookbackDelta).String(),
			"query.max-concurrency": strconv.Itoa(cfg.MaxConcurrent),
			"query.max-samples":     strconv.Itoa(cfg.MaxSamples),
			"query.timeout":         model.Duration(cfg.Timeout).String(),
		},
	}
}

// build has Prometheus's version where its version is looked for, and
// Rollcall's beside it.
func (s *status) build() *v1.PrometheusVersion {
	return &v1.PrometheusVersion{
		Version:   apiVersion,
		Revision:  s.version,
		Branch:    "rollcall",
		GoVersion: runtime.Version(),
	}
}

func (s *status) runtime() (v1.RuntimeInfo, error) {
	host, err := os.Hostname()
	if err != nil {
		return v1.RuntimeInfo{}, fmt.Errorf("host name: %w", err)
	}
	dir, err := os.Getwd()
	if err != nil {
		return v1.RuntimeInfo{}, fmt.Errorf("working directory: %w", err)
	}
	corruptions, err := s.corruptions()
	if err != nil {
		return v1.RuntimeInfo{}, err
	}
	return v1.RuntimeInfo{
		StartTime:           s.start,
		CWD:                 dir,
		Hostname:            host,
		ServerTime:          time.Now().UTC(),
		ReloadConfigSuccess: true, // It is read once, at the start.
		LastConfigTime:      s.start,
		CorruptionCount:     corruptions,
		GoroutineCount:      runtime.NumGoroutine(),
		GOMAXPROCS:          runtime.GOMAXPROCS(0),
		GOMEMLIMIT:          debug.SetMemoryLimit(-1),
		GOGC:                os.Getenv("GOGC"),
		GODEBUG:             os.Getenv("GODEBUG"),
		StorageRetention:    s.retention,
	}, nil
}

// corruptions counts those of the write-ahead log, as the store's metrics do.
func (s *status) corruptions() (int64, error) {
	families, err := s.gatherer.Gather()
	if err != nil {
		return 0, fmt.Errorf("own metrics: %w", err)
	}
	var n float64
	for _, f := range families {
		if f.GetName() != "prometheus_tsdb_wal_corruptions_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			n += m.GetCounter().GetValue()
		}
	}
	return int64(n), nil
}

// passed lets every request through.
func passed(h http.HandlerFunc) http.HandlerFunc { return h }
