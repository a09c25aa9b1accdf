package auth

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the Porter's own. The assembly registers them.
type Metrics struct {
	Denied *prometheus.CounterVec
}

// NewMetrics makes them.
func NewMetrics() *Metrics {
	return &Metrics{Denied: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "rollcall_access_denied_total",
		Help: "Calls refused because of who made them, by protocol (grpc, http), code (unauthenticated, permission_denied) and reason.",
	}, []string{"protocol", "code", "reason"})}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) { m.Denied.Describe(ch) }

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) { m.Denied.Collect(ch) }
