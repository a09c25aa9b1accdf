package query

import (
	"errors"
	"iter"
	"net/url"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/scrape"
)

// A TargetSource knows what the collector collects. Its method is called
// concurrently, once for each request about targets or metadata.
type TargetSource interface {
	// Targets lists the producers that are assigned now, in any order. The
	// slice is the caller's; what its elements point to does not change.
	Targets() []Target
}

// A Target is one producer as /api/v1/targets shows it.
type Target struct {
	// Labels are those that the producer's series get, job and instance among
	// them. Targets are grouped by job, as Prometheus groups them by the job of
	// their scrape configuration.
	Labels labels.Labels

	// Discovered are shown beside Labels, as Prometheus shows what its discovery
	// found. Their names begin with __meta_.
	Discovered labels.Labels

	// Dropped says that the producer is not collected: it is shown as a target
	// that Prometheus's relabeling has dropped.
	Dropped bool

	// URL is where the producer is collected. User and password are not shown.
	URL *url.URL

	// Interval and Timeout are those of its collections.
	Interval time.Duration
	Timeout  time.Duration

	// LastCollection is when the last collection began, zero before the first.
	LastCollection time.Time
	LastDuration   time.Duration

	// LastError is why the last collection failed, for people. Empty says that
	// it succeeded.
	LastError string

	// Metadata is what the producer told of its metric families, nil for
	// nothing.
	Metadata FamilySource
}

// A FamilySource has the HELP, TYPE and UNIT of a producer's metric families,
// as of its last collection. Its methods are called concurrently.
type FamilySource interface {
	// Family looks up one metric family.
	Family(name string) (metadata.Metadata, bool)

	// Families goes through all of them, in any order.
	Families() iter.Seq2[string, metadata.Metadata]
}

// errNoScrapeConfig is the answer to a question that has none here.
var errNoScrapeConfig = errors.New("targets come from the registry, not from a scrape configuration")

// targetRetriever answers Prometheus's API from a TargetSource.
type targetRetriever struct{ source TargetSource }

// TargetsActive are the targets that are collected, by job.
func (r targetRetriever) TargetsActive() map[string][]*scrape.Target { return r.targets(false) }

// TargetsDropped are those that are assigned and not collected.
func (r targetRetriever) TargetsDropped() map[string][]*scrape.Target { return r.targets(true) }

func (r targetRetriever) targets(dropped bool) map[string][]*scrape.Target {
	targets := slices.DeleteFunc(r.source.Targets(), func(t Target) bool { return t.Dropped != dropped })
	slices.SortFunc(targets, func(a, b Target) int { return labels.Compare(a.Labels, b.Labels) })
	pools := map[string][]*scrape.Target{}
	configs := map[scrapeKey]*config.ScrapeConfig{}
	for i := range targets {
		job := targets[i].Labels.Get(model.JobLabel)
		pools[job] = append(pools[job], targets[i].scrapeTarget(configs))
	}
	return pools
}

// TargetsDroppedCounts counts them, by job.
func (r targetRetriever) TargetsDroppedCounts() map[string]int {
	counts := map[string]int{}
	for _, t := range r.source.Targets() {
		if t.Dropped {
			counts[t.Labels.Get(model.JobLabel)]++
		}
	}
	return counts
}

// ScrapePoolConfig always fails: there is no scrape configuration to show.
func (targetRetriever) ScrapePoolConfig(string) (*config.ScrapeConfig, error) {
	return nil, errNoScrapeConfig
}

// ScrapePools lists the jobs.
func (r targetRetriever) ScrapePools() []string {
	seen := map[string]struct{}{}
	for _, t := range r.source.Targets() {
		seen[t.Labels.Get(model.JobLabel)] = struct{}{}
	}
	pools := make([]string, 0, len(seen))
	for job := range seen {
		pools = append(pools, job)
	}
	return pools
}

// A scrapeKey is what makes two targets' scrape configurations differ.
type scrapeKey struct {
	job, scheme, path, params string
	interval, timeout         time.Duration
}

// scrapeTarget is the target in Prometheus's words. The configurations are
// shared, since there may be 100,000 targets.
func (t *Target) scrapeTarget(configs map[scrapeKey]*config.ScrapeConfig) *scrape.Target {
	endpoint := t.URL
	if endpoint == nil {
		endpoint = &url.URL{}
	}
	key := scrapeKey{t.Labels.Get(model.JobLabel), endpoint.Scheme, endpoint.Path, endpoint.RawQuery, t.Interval, t.Timeout}
	cfg, ok := configs[key]
	if !ok {
		cfg = &config.ScrapeConfig{
			JobName:        key.job,
			Scheme:         key.scheme,
			MetricsPath:    key.path,
			Params:         endpoint.Query(),
			ScrapeInterval: model.Duration(key.interval),
			ScrapeTimeout:  model.Duration(key.timeout),
		}
		configs[key] = cfg
	}

	public := labels.NewBuilder(t.Labels)
	public.Set(model.AddressLabel, endpoint.Host)
	public.Set(model.SchemeLabel, key.scheme)
	public.Set(model.MetricsPathLabel, key.path)
	public.Set(model.ScrapeIntervalLabel, cfg.ScrapeInterval.String())
	public.Set(model.ScrapeTimeoutLabel, cfg.ScrapeTimeout.String())
	discovered := make(model.LabelSet, t.Labels.Len()+t.Discovered.Len()+1)
	add := func(l labels.Label) { discovered[model.LabelName(l.Name)] = model.LabelValue(l.Value) }
	t.Labels.Range(add)
	t.Discovered.Range(add)
	discovered[model.AddressLabel] = model.LabelValue(endpoint.Host)

	target := scrape.NewTarget(public.Labels(), cfg, discovered, nil)
	if t.Metadata != nil {
		target.SetMetadataStore(familyStore{t.Metadata})
	}
	if !t.LastCollection.IsZero() {
		var err error
		if t.LastError != "" {
			err = errors.New(t.LastError)
		}
		target.Report(t.LastCollection, t.LastDuration, err)
	}
	return target
}

// familyStore answers Prometheus's API from a FamilySource.
type familyStore struct{ source FamilySource }

// ListMetadata has all families.
func (s familyStore) ListMetadata() []scrape.MetricMetadata {
	var all []scrape.MetricMetadata
	for name, m := range s.source.Families() {
		all = append(all, metricMetadata(name, m))
	}
	return all
}

// GetMetadata has one family.
func (s familyStore) GetMetadata(name string) (scrape.MetricMetadata, bool) {
	m, ok := s.source.Family(name)
	return metricMetadata(name, m), ok
}

// SizeMetadata is the length of all texts, in bytes.
func (s familyStore) SizeMetadata() int {
	size := 0
	for _, m := range s.source.Families() {
		size += len(m.Help) + len(m.Unit) + len(m.Type)
	}
	return size
}

// LengthMetadata is the number of families.
func (s familyStore) LengthMetadata() int {
	n := 0
	for range s.source.Families() {
		n++
	}
	return n
}

func metricMetadata(name string, m metadata.Metadata) scrape.MetricMetadata {
	return scrape.MetricMetadata{MetricFamily: name, Type: m.Type, Help: m.Help, Unit: m.Unit}
}
