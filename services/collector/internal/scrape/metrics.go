package scrape

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the counters of one Scraper. It is a prometheus.Collector, to be
// registered by the assembly.
type Metrics struct {
	samples          prometheus.Counter
	bodyBytes        prometheus.Counter
	staleMarkers     prometheus.Counter
	lostStaleMarkers prometheus.Counter
	skippedSamples   *prometheus.CounterVec
	skippedExemplars prometheus.Counter
	fallbacks        prometheus.Counter
	inFlightBytes    prometheus.Gauge
	series           prometheus.Gauge

	duplicate, future prometheus.Counter // of skippedSamples
}

// NewMetrics makes the metrics of one Scraper.
func NewMetrics() *Metrics {
	const ns, sub = "rollcall_collector", "scrape"
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: name, Help: help})
	}
	m := &Metrics{
		samples:          counter("samples_total", "Samples of expositions that were stored."),
		bodyBytes:        counter("body_bytes_total", "Bytes of answers that were read to their end, uncompressed."),
		staleMarkers:     counter("stale_markers_total", "Stale markers that were stored."),
		lostStaleMarkers: counter("lost_stale_markers_total", "Stale markers of ended producers that could not be stored."),
		skippedSamples: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: ns, Subsystem: sub, Name: "skipped_samples_total",
			Help: "Samples of stored expositions that were left out: a second one of a series (duplicate), or one with a time stamp over 10 minutes ahead (future).",
		}, []string{"reason"}),
		skippedExemplars: counter("skipped_exemplars_total", "Exemplars of stored expositions that were left out: their labels are too long or not valid, or their time stamp is over 10 minutes ahead."),
		fallbacks:        counter("content_type_fallbacks_total", "Answers whose Content-Type told no format that is supported; they were read in the producer's fallback format."),
		inFlightBytes:    gauge("in_flight_bytes", "Bytes of buffers held by running collections."),
		series:           gauge("cached_series", "Series known from the last collections."),
	}
	m.duplicate = m.skippedSamples.WithLabelValues("duplicate")
	m.future = m.skippedSamples.WithLabelValues("future")
	return m
}

// stored counts the samples of an exposition that was stored, and what was left
// out of it.
func (m *Metrics) stored(sc *scratch, samples int) {
	m.samples.Add(float64(samples))
	m.duplicate.Add(float64(sc.duplicates))
	m.future.Add(float64(sc.ahead))
	m.skippedExemplars.Add(float64(sc.badExemplars))
}

func (m *Metrics) all() []prometheus.Collector {
	return []prometheus.Collector{
		m.samples, m.bodyBytes, m.staleMarkers, m.lostStaleMarkers, m.skippedSamples,
		m.skippedExemplars, m.fallbacks, m.inFlightBytes, m.series,
	}
}

// Describe is for the registry.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.all() {
		c.Describe(ch)
	}
}

// Collect is for the registry.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.all() {
		c.Collect(ch)
	}
}
