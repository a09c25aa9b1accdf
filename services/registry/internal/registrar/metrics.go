package registrar

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// Metrics are the registrar's own. The assembly registers them.
type Metrics struct {
	Producers  prometheus.Gauge
	Unassigned prometheus.Gauge
	Collectors *prometheus.GaugeVec
	Revision   prometheus.Gauge
	Commits    *prometheus.CounterVec
	Reloads    prometheus.Counter
	Epochs     prometheus.Counter
	Refusals   prometheus.Counter
	Claims     *prometheus.CounterVec
	TooMany    prometheus.Counter
	Conflicts  *prometheus.GaugeVec
}

// NewMetrics makes them.
func NewMetrics() *Metrics {
	return &Metrics{
		Producers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "rollcall_registry_producers", Help: "Producers on the roll.",
		}),
		Unassigned: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "rollcall_registry_unassigned_producers", Help: "Producers without a collector.",
		}),
		Collectors: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "rollcall_registry_collectors", Help: "Known collectors by state.",
		}, []string{"state"}),
		Revision: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "rollcall_registry_view_revision", Help: "Revision of the view.",
		}),
		Commits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_registry_commits_total", Help: "Transactions by outcome: committed, conflict or failed.",
		}, []string{"outcome"}),
		Reloads: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_registry_reloads_total", Help: "Times the store's events were lost and the view was loaded anew.",
		}),
		Epochs: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_registry_epochs_total", Help: "Epochs begun by this process.",
		}),
		Refusals: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_registry_refused_snapshots_total", Help: "Snapshots that collectors refused.",
		}),
		Claims: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_registry_rewind_claims_total",
			Help: "Collectors' claims to have seen a revision that the store has not reached: believed (a new epoch), or disregarded because an epoch has just begun.",
		}, []string{"outcome"}),
		TooMany: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_registry_collectors_refused_total", Help: "Registrations of new collectors refused because too many are known.",
		}),
		Conflicts: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "rollcall_registry_conflicting_producers",
			Help: "Producers in conflict: with the same labels as another one, or (as far as this process was asked) with two instances that register them.",
		}, []string{"kind"}),
	}
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
	return []prometheus.Collector{m.Producers, m.Unassigned, m.Collectors, m.Revision, m.Commits, m.Reloads, m.Epochs, m.Refusals, m.Claims, m.TooMany, m.Conflicts}
}

// observe takes the figures of a view that cost nothing: it is called for every
// revision.
func (m *Metrics) observe(v *roster.View) {
	m.Producers.Set(float64(v.Producers()))
	m.Unassigned.Set(float64(v.Unassigned()))
	m.Revision.Set(float64(v.Revision()))
}

// observeCollectors counts the collectors of a view, which takes a look at each.
func (m *Metrics) observeCollectors(v *roster.View) {
	var live, away float64
	for c := range v.Collectors {
		if c.Live() {
			live++
		} else {
			away++
		}
	}
	m.Collectors.WithLabelValues("live").Set(live)
	m.Collectors.WithLabelValues("away").Set(away)
}
