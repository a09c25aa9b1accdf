package leader

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/lease"
)

// Metrics are the leader's own. The assembly registers them.
type Metrics struct {
	Leading  prometheus.Gauge
	Tenure   prometheus.Gauge
	Asked    *prometheus.CounterVec
	Suspects prometheus.Gauge
	Due      prometheus.Gauge
	Held     prometheus.Gauge
	Struck   prometheus.Counter
	Lost     *prometheus.CounterVec
	Half     prometheus.Gauge
	Handoffs prometheus.Gauge
	Late     prometheus.Counter
	Stuck    prometheus.Gauge
	Moves    *prometheus.CounterVec
}

// NewMetrics makes them.
func NewMetrics() *Metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	vec := func(name, help, label string, values ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		for _, value := range values {
			v.WithLabelValues(value)
		}
		return v
	}
	var losses []string
	for _, loss := range lease.Losses() {
		losses = append(losses, string(loss))
	}
	return &Metrics{
		Leading:  gauge("rollcall_registry_leading", "1 while this process leads."),
		Tenure:   gauge("rollcall_registry_leader_tenure_seconds", "For how long this process has led without a break; 0 while it does not. Nobody is struck off under a leader that does not last."),
		Asked:    vec("rollcall_registry_collectors_asked_total", "Questions to collectors by outcome.", "outcome", "answered", "failed", "no_witness"),
		Suspects: gauge("rollcall_registry_suspect_producers", "Producers with a lease that fail at their collector, as the leader knows."),
		Due:      gauge("rollcall_registry_due_producers", "Suspects that have neither renewed nor answered for as long as it takes to be struck off."),
		Held:     gauge("rollcall_registry_expiry_held", "1 while the expiry of many producers at once is held or paced."),
		Struck:   counter("rollcall_registry_struck_off_producers_total", "Producers struck off because they neither renewed nor answered."),
		Lost:     vec("rollcall_registry_leader_clock_losses_total", "Rounds whose time counts against nobody, by why.", "reason", losses...),
		Half:     gauge("rollcall_registry_more_than_half_away", "1 while more than half of the collectors have no subscription: the registry is the ill one, more likely than they."),
		Handoffs: gauge("rollcall_registry_handoffs", "Producers that are being handed off, as the leader knows."),
		Late:     counter("rollcall_registry_late_handoffs_total", "Handoffs that were ended because they took too long."),
		Stuck:    gauge("rollcall_registry_stuck_producers", "Producers that have to leave their collector, and there is none to give them to."),
		Moves:    vec("rollcall_registry_moves_total", "Handoffs begun by the leader, by why.", "reason", "leave", "rebalance", "unreachable"),
	}
}

// forget clears what holds only while this process leads.
func (m *Metrics) forget() {
	for _, g := range []prometheus.Gauge{m.Leading, m.Tenure, m.Suspects, m.Due, m.Held, m.Half, m.Handoffs, m.Stuck} {
		g.Set(0)
	}
}

func (m *Metrics) all() []prometheus.Collector {
	return []prometheus.Collector{
		m.Leading, m.Tenure, m.Asked, m.Suspects, m.Due, m.Held, m.Struck, m.Lost, m.Half, m.Handoffs, m.Late, m.Stuck, m.Moves,
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
