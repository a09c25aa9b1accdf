package sink

import "github.com/prometheus/client_golang/prometheus"

// tsdbMetrics are the sink's own; the store has its prometheus_tsdb_ ones.
type tsdbMetrics struct {
	samples          prometheus.Counter
	refused          *prometheus.CounterVec // By reason.
	exemplarsRefused prometheus.Counter
	failures         prometheus.Counter
	duration         prometheus.Histogram
}

func newTSDBMetrics(r prometheus.Registerer) *tsdbMetrics {
	m := &tsdbMetrics{
		samples: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_sink_tsdb_samples_total",
			Help: "Samples stored in the embedded store.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_sink_tsdb_samples_refused_total",
			Help: "Samples that the embedded store did not take, by reason.",
		}, []string{"reason"}),
		exemplarsRefused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_sink_tsdb_exemplars_refused_total",
			Help: "Exemplars that the embedded store did not take; their samples were stored.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_sink_tsdb_batches_failed_total",
			Help: "Batches of which nothing was stored in the embedded store.",
		}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "rollcall_sink_tsdb_write_duration_seconds",
			Help:    "How long a batch took to be in the embedded store's write-ahead log.",
			Buckets: []float64{.0001, .0005, .001, .005, .01, .05, .1, .5, 1, 5},
		}),
	}
	for reason := range (Refused{}).byReason() {
		m.refused.WithLabelValues(reason) // Zero is worth showing.
	}
	r.MustRegister(m.samples, m.refused, m.exemplarsRefused, m.failures, m.duration)
	return m
}
