package schedule

import "github.com/prometheus/client_golang/prometheus"

// The outcomes of a collection that are no Reason.
const (
	outcomeSuccess   = "success"
	outcomeCancelled = "cancelled"
	outcomePanic     = "panic"
)

// Metrics are the schedule's own metrics. It is a prometheus.Collector: the
// assembly makes one, registers it and hands it to New.
type Metrics struct {
	collections *prometheus.CounterVec
	missed      *prometheus.CounterVec
	duration    prometheus.Histogram
	startDelay  prometheus.Histogram
	running     prometheus.Gauge
	applied     prometheus.Gauge
	unrunnable  prometheus.Gauge
}

// NewMetrics makes the metrics of one schedule.
func NewMetrics() *Metrics {
	m := &Metrics{
		collections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_collector_collections_total",
			Help: "Collections by outcome: success, the reason of the failure, panic, or cancelled when the schedule itself ended it.",
		}, []string{"outcome"}),
		missed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_collector_missed_ticks_total",
			Help: "Due times without a collection: overlap, the one before was running; budget, the collector had no room.",
		}, []string{"reason"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "rollcall_collector_collection_duration_seconds",
			Help:    "Time from start to end of a collection.",
			Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}),
		startDelay: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "rollcall_collector_start_delay_seconds",
			Help:    "Time from when a collection was due to its start.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .05, .1, .5, 1, 5, 10, 30, 60},
		}),
		running: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "rollcall_collector_running_collections",
			Help: "Collections that are running.",
		}),
		applied: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "rollcall_collector_applied_producers",
			Help: "Producers in the applied set.",
		}),
		unrunnable: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "rollcall_collector_unrunnable_producers",
			Help: "Producers of the applied set whose assignment cannot be run here.",
		}),
	}
	m.collections.WithLabelValues(outcomeSuccess)
	m.missed.WithLabelValues(ReasonOverlap.String())
	m.missed.WithLabelValues(ReasonBudget.String())
	return m
}

// Describe makes Metrics a prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.all() {
		c.Describe(ch)
	}
}

// Collect makes Metrics a prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.all() {
		c.Collect(ch)
	}
}

func (m *Metrics) all() []prometheus.Collector {
	return []prometheus.Collector{
		m.collections, m.missed, m.duration, m.startDelay, m.running, m.applied, m.unrunnable,
	}
}
