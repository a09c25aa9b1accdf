package query

import (
	"context"
	"errors"
	"net/url"
	"os"

	"github.com/grafana/regexp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/util/features"
	"github.com/prometheus/prometheus/util/notifications"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

// remoteReadFrame is Prometheus's default size of a streamed remote-read frame,
// in bytes.
const remoteReadFrame = 1 << 20

// newAPI mounts nothing that writes: no admin, remote-write or OTLP endpoint.
// What Prometheus has and a collector has not (rules, alerts, Alertmanagers,
// notifications, a configuration file) is answered as by a Prometheus that has
// none of it.
func newAPI(cfg Config, engine promql.QueryEngine, queries parser.Parser, known features.Collector, registry prometheus.Registerer) *v1.API {
	targets := targetRetriever{cfg.Targets}
	status := newStatus(cfg)
	return v1.NewAPI(
		engine,
		cfg.Queryable,
		nil, nil, // No appender: nothing is written through the API.
		cfg.Exemplars,
		func(context.Context) v1.ScrapePoolsRetriever { return targets },
		func(context.Context) v1.TargetRetriever { return targets },
		func(context.Context) v1.AlertmanagerRetriever { return nothing{} },
		func() config.Config { return config.Config{} }, // No file, and no external labels in remote reads.
		status.flags,
		globalURLOptions(cfg.ExternalURL),
		passed, // There is no handler before there is a store.
		adminStats{cfg.Store},
		"",       // Only the admin snapshot asks for the directory.
		false,    // No admin.
		false, 0, // No search: it is experimental.
		cfg.Logger,
		func(context.Context) v1.RulesRetriever { return nothing{} },
		cfg.MaxSamples,    // Of a remote read that is not streamed.
		cfg.MaxConcurrent, // Remote reads at once; the limiter lets no more in.
		remoteReadFrame,
		false,                    // No agent: there is a store to ask.
		regexp.MustCompile("^$"), // No page of another origin reads this.
		status.runtime,
		status.build(),
		func() []notifications.Notification { return []notifications.Notification{} },
		func() (<-chan notifications.Notification, func(), bool) { return nil, func() {}, false },
		cfg.Gatherer,
		registry,
		nil,        // The usual rendering of statistics.
		false, nil, // No remote write.
		false, false, false, // No OTLP, and none of its conversions.
		false, // Of remote write: start timestamps as zero samples.
		cfg.LookbackDelta,
		false, false, // Of remote write: type and unit labels, metadata.
		nil, // The usual status codes.
		known,
		v1.OpenAPIOptions{IncludePaths: described(), ExternalURL: externalURL(cfg.ExternalURL), Version: apiVersion},
		queries,
	)
}

// described lists what /openapi.yaml tells of, by prefix: all but what writes.
func described() []string {
	return []string{
		"/query", "/format_query", "/parse_query", "/label", "/series", "/read",
		"/metadata", "/scrape_pools", "/targets", "/alert", "/rules", "/status", "/features", "/notifications",
	}
}

func globalURLOptions(external *url.URL) v1.GlobalURLOptions {
	if external != nil {
		return v1.GlobalURLOptions{ListenAddress: ":" + external.Port(), Host: external.Host, Scheme: external.Scheme}
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return v1.GlobalURLOptions{ListenAddress: ":", Host: host, Scheme: "http"}
}

func externalURL(u *url.URL) string {
	if u == nil {
		return ""
	}
	return u.String()
}

// nothing is a Prometheus without rules and Alertmanagers.
type nothing struct{}

func (nothing) Alertmanagers() []*url.URL            { return nil }
func (nothing) DroppedAlertmanagers() []*url.URL     { return nil }
func (nothing) RuleGroups() []*rules.Group           { return nil }
func (nothing) AlertingRules() []*rules.AlertingRule { return nil }

// errReadOnly is what the store's changing methods say, if ever they are called.
var errReadOnly = errors.New("the API is read-only")

// adminStats lets the API ask the store, and change nothing in it.
type adminStats struct{ Store }

func (adminStats) CleanTombstones() error { return errReadOnly }

func (adminStats) Delete(context.Context, int64, int64, ...*labels.Matcher) error { return errReadOnly }

func (adminStats) Snapshot(string, bool) error { return errReadOnly }
