package deliver

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// sinkLabel is in every metric.
const sinkLabel = "sink"

// Metrics are those of all sinks that deliver a log. It is a
// prometheus.Collector: the assembly makes one, registers it, and hands it to
// every New.
type Metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	retries  *prometheus.CounterVec
	sent     *prometheus.CounterVec
	leftOut  *prometheus.CounterVec
	panics   *prometheus.CounterVec
	refused  *prometheus.CounterVec

	// What a Status tells.
	delivered, dropped, inFlight, concurrency, lagBytes, lagSeconds, success, failing *prometheus.Desc

	mu    sync.Mutex
	sinks map[string]*Sink // guarded by mu
}

// NewMetrics makes the metrics of the sinks of one collector.
func NewMetrics() *Metrics {
	counter := func(name, help string, more ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{sinkLabel}, more...))
	}
	desc := func(name, help string, more ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, append([]string{sinkLabel}, more...), nil)
	}
	return &Metrics{
		requests: counter("rollcall_sink_requests_total", "Requests sent, by the code of the answer.", "code"),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "rollcall_sink_request_duration_seconds",
			Help:    "Time from the beginning of a request to its answer.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{sinkLabel}),
		retries: counter("rollcall_sink_retries_total", "Requests that were not taken and are sent again."),
		sent:    counter("rollcall_sink_sent_bytes_total", "Bodies of requests as sent, compressed, those of retries included."),
		leftOut: counter("rollcall_sink_relabel_dropped_samples_total", "Samples that relabeling leaves out."),
		panics:  counter("rollcall_sink_panics_total", "Panics while relabeling or sending. Each is a defect."),
		refused: counter("rollcall_sink_refused_samples_total", "Samples of requests that were taken without them, or refused as a whole."),

		delivered: desc("rollcall_sink_delivered_samples_total",
			"Samples that the receiver has taken. Some may be counted twice when an answer was lost."),
		dropped: desc("rollcall_sink_dropped_samples_total",
			"Samples that the receiver did not take, or that the queue dropped before they were sent.", "reason"),
		inFlight:    desc("rollcall_sink_in_flight_requests", "Requests at work."),
		concurrency: desc("rollcall_sink_concurrency_limit", "Requests that may be at work, just now."),
		lagBytes:    desc("rollcall_sink_lag_bytes", "What of the queue is not delivered."),
		lagSeconds:  desc("rollcall_sink_lag_seconds", "Age of the oldest batch that is not delivered; 0 when all is."),
		success:     desc("rollcall_sink_last_success_timestamp_seconds", "When the receiver last took something; 0 when it never did."),
		failing:     desc("rollcall_sink_failing", "1 when something went wrong and nothing was taken since."),

		sinks: map[string]*Sink{},
	}
}

// Describe makes Metrics a prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.vectors() {
		c.Describe(ch)
	}
	for _, d := range []*prometheus.Desc{
		m.delivered, m.dropped, m.inFlight, m.concurrency, m.lagBytes, m.lagSeconds, m.success, m.failing,
	} {
		ch <- d
	}
}

// Collect makes Metrics a prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.vectors() {
		c.Collect(ch)
	}
	for _, s := range m.attached() {
		m.collect(ch, s.Status())
	}
}

func (m *Metrics) collect(ch chan<- prometheus.Metric, st Status) {
	put := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, more ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, append([]string{st.Name}, more...)...)
	}
	put(m.delivered, prometheus.CounterValue, float64(st.Delivered))
	for _, reason := range Reasons() {
		put(m.dropped, prometheus.CounterValue, float64(st.Dropped[reason]), reason)
	}
	put(m.inFlight, prometheus.GaugeValue, float64(st.RequestsInFlight))
	put(m.concurrency, prometheus.GaugeValue, float64(st.Concurrency))
	put(m.lagBytes, prometheus.GaugeValue, float64(st.LagBytes))
	put(m.lagSeconds, prometheus.GaugeValue, st.LagDuration.Seconds())
	put(m.success, prometheus.GaugeValue, seconds(st.LastSuccess))
	failing := 0.0
	if st.Failing {
		failing = 1
	}
	put(m.failing, prometheus.GaugeValue, failing)
}

func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

type vector interface {
	prometheus.Collector
	DeletePartialMatch(l prometheus.Labels) int
}

func (m *Metrics) vectors() []vector {
	return []vector{m.requests, m.duration, m.retries, m.sent, m.leftOut, m.panics, m.refused}
}

func (m *Metrics) attached() []*Sink {
	m.mu.Lock()
	defer m.mu.Unlock()
	sinks := make([]*Sink, 0, len(m.sinks))
	for _, s := range m.sinks {
		sinks = append(sinks, s)
	}
	return sinks
}

// attach shows a sink in the place of another of its name.
func (m *Metrics) attach(s *Sink) *counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	name := s.config.Name
	m.sinks[name] = s
	return &counts{
		requests: m.requests.MustCurryWith(prometheus.Labels{sinkLabel: name}),
		duration: m.duration.WithLabelValues(name),
		retries:  m.retries.WithLabelValues(name),
		sent:     m.sent.WithLabelValues(name),
		leftOut:  m.leftOut.WithLabelValues(name),
		panics:   m.panics.WithLabelValues(name),
		refused:  m.refused.WithLabelValues(name),
	}
}

// detach forgets a sink that has ended, unless another has its name.
func (m *Metrics) detach(s *Sink) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sinks[s.config.Name] != s {
		return
	}
	delete(m.sinks, s.config.Name)
	for _, c := range m.vectors() {
		c.DeletePartialMatch(prometheus.Labels{sinkLabel: s.config.Name})
	}
}

// Counts are the counters of one sink.
type counts struct {
	requests                                *prometheus.CounterVec
	duration                                prometheus.Observer
	retries, sent, leftOut, panics, refused prometheus.Counter
}

// tried counts a try.
func (c *counts) tried(o *Outcome, took time.Duration) {
	code := o.Code
	if code == "" {
		code = "unknown"
	}
	c.requests.WithLabelValues(code).Inc()
	c.duration.Observe(took.Seconds())
	c.sent.Add(float64(max(o.Bytes, 0)))
}

// judged counts what came of a try.
func (c *counts) judged(n *news) {
	if n.failed {
		c.retries.Inc()
	}
	c.refused.Add(float64(n.lost))
}
