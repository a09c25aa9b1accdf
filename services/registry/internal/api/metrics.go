package api

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the API's own. The assembly registers them.
type Metrics struct {
	Subscriptions prometheus.Gauge
	Snapshots     *prometheus.CounterVec
	Assignments   *prometheus.CounterVec
	Removals      prometheus.Counter
	ChunkBytes    prometheus.Counter
	SlowReaders   prometheus.Counter
	Turned        *prometheus.CounterVec
	Sending       prometheus.Gauge
	Paced         prometheus.Counter
	OverQuota     *prometheus.CounterVec
}

// NewMetrics makes them.
func NewMetrics() *Metrics {
	return &Metrics{
		Subscriptions: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "rollcall_registry_subscriptions", Help: "Subscriptions that stand, observers included.",
		}),
		Snapshots: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_registry_snapshots_sent_total", Help: "Snapshots sent whole, by scope: all, buckets or changes.",
		}, []string{"scope"}),
		Assignments: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_registry_assignments_sent_total", Help: "Assignments sent in snapshots, by scope.",
		}, []string{"scope"}),
		Removals: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_registry_removals_sent_total", Help: "Named removals sent in snapshots.",
		}),
		ChunkBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_registry_chunk_bytes_total", Help: "Bytes of snapshot chunks sent.",
		}),
		SlowReaders: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_registry_slow_readers_total", Help: "Streams ended because the subscriber did not read.",
		}),
		Turned: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_registry_subscriptions_refused_total", Help: "Subscriptions refused because too many are open, by bound.",
		}, []string{"reason"}),
		Sending: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "rollcall_registry_first_snapshots_sending", Help: "First snapshots with assignments that are being sent.",
		}),
		Paced: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_registry_paced_registrations_total", Help: "Registrations refused because their peer sent more than it may.",
		}),
		OverQuota: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_registry_quota_refused_total",
			Help: "Registrations refused because of a quota: producers of one identity, or label_bytes of one producer.",
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
	return []prometheus.Collector{
		m.Subscriptions, m.Snapshots, m.Assignments, m.Removals, m.ChunkBytes, m.SlowReaders, m.Turned, m.Sending, m.Paced,
		m.OverQuota,
	}
}
