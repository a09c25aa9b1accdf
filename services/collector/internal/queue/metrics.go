package queue

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
)

// Metrics are those of one queue. It is a prometheus.Collector: the assembly
// makes one, registers it, and hands it to Open.
type Metrics struct {
	diskBytes, memoryBytes, segments, failing prometheus.Gauge
	unsynced                                  prometheus.GaugeFunc
	batches, samples, bytes                   prometheus.Counter
	errors                                    *prometheus.CounterVec
	syncs                                     prometheus.Histogram
	dropped                                   *prometheus.CounterVec
	corrupt, torn, corruptBytes               prometheus.Counter

	mu    sync.Mutex
	queue *Queue // guarded by mu
}

// NewMetrics makes the metrics of one queue.
func NewMetrics() *Metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &Metrics{
		diskBytes:    gauge("rollcall_queue_disk_bytes", "What the segments take on disk."),
		memoryBytes:  gauge("rollcall_queue_memory_bytes", "What is in memory only because the disk fails; lost if the process dies."),
		segments:     gauge("rollcall_queue_segments", "Segments that are kept."),
		failing:      gauge("rollcall_queue_failing", "1 while the disk takes no batches and they are kept in memory."),
		batches:      counter("rollcall_queue_written_batches_total", "Batches that were written."),
		samples:      counter("rollcall_queue_written_samples_total", "Samples that were written."),
		bytes:        counter("rollcall_queue_written_bytes_total", "Bytes that were written to disk."),
		corrupt:      counter("rollcall_queue_corrupt_segments_total", "Segments of which a sink could not read all."),
		corruptBytes: counter("rollcall_queue_corrupt_bytes_total", "Bytes of segments that a sink could not read."),
		torn:         counter("rollcall_queue_torn_tails_total", "Segments that ended in a torn record because their process was killed; nothing that was taken is missing."),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_queue_disk_errors_total",
			Help: "Operations of the disk that failed.",
		}, []string{"operation"}),
		syncs: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "rollcall_queue_sync_duration_seconds",
			Help:    "Time that it took to sync a segment.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_queue_dropped_samples_total",
			Help: "Samples that a sink did not get: overflow, the queue was full; corrupt, they could not be read; too_large, one alone was more than a record can be.",
		}, []string{"sink", "reason"}),
	}
	m.unsynced = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "rollcall_queue_unsynced_seconds",
		Help: "The age of the oldest batch that is not synced to the disk; 0 when all are.",
	}, m.unsyncedSeconds)
	for _, op := range []string{"open", "create", "write", "truncate", "room", "sync", "position", "remove", "read"} {
		m.errors.WithLabelValues(op)
	}
	return m
}

// Describe makes Metrics a prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.all() {
		c.Describe(ch)
	}
}

// Collect makes Metrics a prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.all() {
		c.Collect(ch)
	}
}

func (m *Metrics) all() []prometheus.Collector {
	return []prometheus.Collector{
		m.diskBytes, m.memoryBytes, m.segments, m.failing, m.unsynced, m.batches, m.samples, m.bytes, m.errors, m.syncs,
		m.dropped, m.corrupt, m.corruptBytes, m.torn,
	}
}

// observe says whose metrics they are.
func (m *Metrics) observe(q *Queue) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queue = q
}

func (m *Metrics) unsyncedSeconds() float64 {
	m.mu.Lock()
	q := m.queue
	m.mu.Unlock()
	if q == nil {
		return 0
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	since := q.unsyncedSince()
	if since.IsZero() {
		return 0
	}
	return time.Since(since).Seconds()
}

// wrote counts what was written; none of the bytes are on disk when it went to
// memory.
func (m *Metrics) wrote(batches int, samples int64, bytes int) {
	m.batches.Add(float64(batches))
	m.samples.Add(float64(samples))
	m.bytes.Add(float64(bytes))
}

// track makes the series of a sink.
func (m *Metrics) track(sink string) {
	m.dropped.WithLabelValues(sink, deliver.ReasonOverflow)
	m.dropped.WithLabelValues(sink, deliver.ReasonCorrupt)
	m.dropped.WithLabelValues(sink, deliver.ReasonTooLarge)
}
