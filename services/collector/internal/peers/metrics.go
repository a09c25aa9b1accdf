package peers

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics tells how the others are asked.
type Metrics struct {
	Known         prometheus.Gauge
	LearnFailures prometheus.Counter
	Asked         *prometheus.HistogramVec // By outcome.
	Bytes         prometheus.Counter
}

// An outcome is how asking one collector ended.
type outcome string

const (
	outcomeAnswered outcome = "answered"
	outcomeLate     outcome = "late"
	outcomeFailed   outcome = "failed"
)

// NewMetrics makes them.
func NewMetrics() *Metrics {
	m := &Metrics{
		Known: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "rollcall_peers_known",
			Help: "Other collectors that queries ask.",
		}),
		LearnFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_peers_learn_failures_total",
			Help: "Times that no registry told of the other collectors.",
		}),
		Asked: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "rollcall_peers_ask_duration_seconds",
			Help:    "How long other collectors took to answer, by outcome: answered, late, failed.",
			Buckets: []float64{.001, .01, .1, 1, 10},
		}, []string{"outcome"}),
		Bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_peers_received_bytes_total",
			Help: "What other collectors answered, as it is held in memory.",
		}),
	}
	for _, o := range []outcome{outcomeAnswered, outcomeLate, outcomeFailed} {
		m.Asked.WithLabelValues(string(o))
	}
	return m
}

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

// Collect implements [prometheus.Collector].
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.Known.Collect(ch)
	m.LearnFailures.Collect(ch)
	m.Asked.Collect(ch)
	m.Bytes.Collect(ch)
}

func (m *Metrics) asked(o outcome, took time.Duration) {
	m.Asked.WithLabelValues(string(o)).Observe(took.Seconds())
}
