package sink

import "github.com/prometheus/client_golang/prometheus"

// tsdbMetrics are the sink's own; the store has its prometheus_tsdb_ ones.
type tsdbMetrics struct {
	samples          prometheus.Counter
	refused          *prometheus.CounterVec // By reason.
	exemplarsRefused prometheus.Counter
	failures         prometheus.Counter
	stalled          prometheus.Counter
	duration         prometheus.Histogram
}

func newTSDBMetrics(r prometheus.Registerer, failing func() bool) *tsdbMetrics {
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
		stalled: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_sink_tsdb_batches_stalled_total",
			Help: "Batches that the embedded store did not take because the disk held it; among those that failed.",
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
	r.MustRegister(m.samples, m.refused, m.exemplarsRefused, m.failures, m.stalled, m.duration,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "rollcall_sink_tsdb_failing",
			Help: "Whether the embedded store takes no samples: 1 from an error of its own, or of its disk, to the next batch that it takes.",
		}, func() float64 {
			if failing() {
				return 1
			}
			return 0
		}))
	return m
}
