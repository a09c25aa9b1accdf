package membership

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/guard"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/snapshot"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// Status is the state of a collector's set.
type Status struct {
	snapshot.Position
	AcceptedCount int
	Digest        assignment.Digest
	HeldCount     int

	// AppliedDigest is the digest of all that is collected: the accepted set
	// and what is held.
	AppliedDigest assignment.Digest

	// Holds is how many producers were held since the start, those that it
	// resumed with included. When it has moved there is somebody new to ask
	// the registry about.
	Holds int64

	LastSeal    time.Time // zero before the first one of this process
	Persisted   bool
	LastRefusal *assignment.Refusal

	// Subscription and SnapshotID tell which snapshot was sealed or refused
	// last.
	Subscription Subscription
	SnapshotID   uint64
}

// Status returns the state of the set.
func (m *Membership) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Status{
		Position:      m.accepted.Position,
		AcceptedCount: m.accepted.Set.Len(),
		Digest:        m.accepted.Set.Digest(),
		HeldCount:     m.guard.Len(),
		AppliedDigest: m.accepted.Set.Digest() + m.guard.Digest(),
		Holds:         m.holds,
		LastSeal:      m.lastSeal,
		Persisted:     m.persisted,
		LastRefusal:   m.refusal,
		Subscription:  m.lastBegin,
		SnapshotID:    m.snapshot,
	}
}

// Accepted returns those of some producers that are in the accepted set.
func (m *Membership) Accepted(ids []assignment.ProducerID) []assignment.ProducerID {
	m.mu.Lock()
	defer m.mu.Unlock()
	var accepted []assignment.ProducerID
	for _, id := range ids {
		if _, ok := m.accepted.Set.HashOf(id); ok {
			accepted = append(accepted, id)
		}
	}
	return accepted
}

// Metrics are the membership's own. The assembly registers them.
type Metrics struct {
	Accepted    prometheus.Gauge
	Held        prometheus.Gauge
	Holds       prometheus.Counter
	Releases    *prometheus.CounterVec
	Revision    prometheus.Gauge
	Sealed      prometheus.Counter
	Refused     *prometheus.CounterVec
	Diverged    prometheus.Counter
	LogFailures prometheus.Counter
}

// NewMetrics makes them.
func NewMetrics() *Metrics {
	m := &Metrics{
		Accepted: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "rollcall_collector_accepted_producers", Help: "Producers in the last sealed set.",
		}),
		Held: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "rollcall_collector_held_producers", Help: "Producers still collected although absent from the last sealed set.",
		}),
		Holds: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_collector_holds_total", Help: "Producers that were held back because their removal was not believed.",
		}),
		Releases: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_collector_releases_total",
			Help: "Held producers that are held no more, by reason: named, explained, failing, confirmed, operator, or returned to the set.",
		}, []string{"reason"}),
		Revision: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "rollcall_collector_accepted_revision", Help: "Revision of the last sealed set.",
		}),
		Sealed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_collector_sealed_snapshots_total", Help: "Snapshots sealed and applied.",
		}),
		Refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_collector_refused_snapshots_total", Help: "Snapshots refused, by reason.",
		}, []string{"reason"}),
		Diverged: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_collector_divergences_total", Help: "Heartbeats that told another set than the accepted one.",
		}),
		LogFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_collector_state_file_failures_total", Help: "Entries that could not be written to the state file.",
		}),
	}
	for _, reason := range guard.Reasons() {
		m.Releases.WithLabelValues(string(reason))
	}
	return m
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.all() {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.all() {
		c.Collect(ch)
	}
}

func (m *Metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.Accepted, m.Held, m.Holds, m.Releases, m.Revision, m.Sealed, m.Refused, m.Diverged, m.LogFailures}
}

func (m *Membership) observe() {
	m.Metrics.Accepted.Set(float64(m.accepted.Set.Len()))
	m.Metrics.Held.Set(float64(m.guard.Len()))
	m.Metrics.Revision.Set(float64(m.accepted.Revision))
}
