package follow

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the follower's own. The assembly registers them.
type Metrics struct {
	Subscribed   prometheus.Gauge
	Sealed       prometheus.Counter
	Acknowledged prometheus.Counter
	Ended        *prometheus.CounterVec
}

// NewMetrics makes them.
func NewMetrics() *Metrics {
	return &Metrics{
		Subscribed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "rollcall_collector_subscribed", Help: "Whether a subscription is live.",
		}),
		Sealed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_collector_followed_snapshots_total", Help: "Snapshots sealed by a stream of this process.",
		}),
		Acknowledged: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_collector_acknowledgements_total", Help: "Acknowledgements that the registry took.",
		}),
		Ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_collector_subscriptions_ended_total", Help: "Subscriptions that ended or could not be had, by reason.",
		}, []string{"reason"}),
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
	return []prometheus.Collector{m.Subscribed, m.Sealed, m.Acknowledged, m.Ended}
}
