package query

import "github.com/prometheus/client_golang/prometheus"

// metrics are this package's own; the engine has its prometheus_engine_ ones.
type metrics struct {
	requests *prometheus.CounterVec   // By handler and code.
	duration *prometheus.HistogramVec // By handler.
	working  prometheus.Gauge
	shed     prometheus.Counter
	panics   prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_query_requests_total",
			Help: "Requests to the query API, by handler and status code.",
		}, []string{"handler", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "rollcall_query_request_duration_seconds",
			Help:    "How long requests to the query API took, waiting included.",
			Buckets: []float64{.001, .01, .1, 1, 10, 100},
		}, []string{"handler"}),
		working: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "rollcall_query_requests_in_flight",
			Help: "Requests to the query API that are at work, without those that cost next to nothing.",
		}),
		shed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_query_requests_shed_total",
			Help: "Requests to the query API that were refused because too many were at work.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_query_panics_total",
			Help: "Requests to the query API that ended in a panic.",
		}),
	}
	r.MustRegister(m.requests, m.duration, m.working, m.shed, m.panics)
	return m
}
