package producer

import (
	"crypto/sha256"
	"fmt"
	"math"
	"strconv"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"

	producerv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/producer/v1"
)

// A layout is what stays between gatherings. It is immutable.
type layout struct {
	id      []byte
	message *producerv1.Layout
	series  int

	// What it was made of, to tell whether it fits what was gathered.
	families []familyShape
	metrics  []metricShape // of all families, in order
}

type familyShape struct {
	name, help, unit string
	typ              dto.MetricType
	metrics          int
}

type metricShape struct {
	labels []labelPair
	start  int64
	native bool
	bounds []float64 // of buckets or quantiles
}

type labelPair struct{ name, value string }

// fits reports whether what was gathered has this layout.
func (l *layout) fits(families []*dto.MetricFamily) bool {
	if len(families) != len(l.families) {
		return false
	}
	metrics := l.metrics
	for i, f := range families {
		s := &l.families[i]
		if s.name != f.GetName() || s.help != f.GetHelp() || s.unit != f.GetUnit() || s.typ != f.GetType() || s.metrics != len(f.GetMetric()) {
			return false
		}
		for j, m := range f.GetMetric() {
			if !metrics[j].fits(f.GetType(), m) {
				return false
			}
		}
		metrics = metrics[s.metrics:]
	}
	return true
}

func (s *metricShape) fits(typ dto.MetricType, m *dto.Metric) bool {
	if len(s.labels) != len(m.GetLabel()) {
		return false
	}
	for i, l := range m.GetLabel() {
		if s.labels[i].name != l.GetName() || s.labels[i].value != l.GetValue() {
			return false
		}
	}
	switch typ {
	case dto.MetricType_COUNTER:
		return m.GetCounter() != nil && s.start == startTime(typ, m)
	case dto.MetricType_GAUGE:
		return m.GetGauge() != nil
	case dto.MetricType_SUMMARY:
		return m.GetSummary() != nil && s.start == startTime(typ, m) && s.fitsQuantiles(m.GetSummary().GetQuantile())
	case dto.MetricType_HISTOGRAM, dto.MetricType_GAUGE_HISTOGRAM:
		h := m.GetHistogram()
		return h != nil && s.start == startTime(typ, m) && s.native == isNative(h) && (s.native || s.fitsBuckets(h.GetBucket()))
	default:
		return m.GetUntyped() != nil
	}
}

func (s *metricShape) fitsQuantiles(quantiles []*dto.Quantile) bool {
	if len(quantiles) != len(s.bounds) {
		return false
	}
	for i, q := range quantiles {
		// Bits: NaN fits itself.
		if math.Float64bits(q.GetQuantile()) != math.Float64bits(s.bounds[i]) {
			return false
		}
	}
	return true
}

func (s *metricShape) fitsBuckets(buckets []*dto.Bucket) bool {
	if len(buckets) != len(s.bounds) {
		return false
	}
	for i, b := range buckets {
		if math.Float64bits(b.GetUpperBound()) != math.Float64bits(s.bounds[i]) {
			return false
		}
	}
	return true
}

// shapeOf is the shape of one metric.
func shapeOf(typ dto.MetricType, m *dto.Metric) metricShape {
	s := metricShape{start: startTime(typ, m), native: isNative(m.GetHistogram())}
	for _, l := range m.GetLabel() {
		s.labels = append(s.labels, labelPair{l.GetName(), l.GetValue()})
	}
	for _, q := range m.GetSummary().GetQuantile() {
		s.bounds = append(s.bounds, q.GetQuantile())
	}
	for _, b := range m.GetHistogram().GetBucket() {
		s.bounds = append(s.bounds, b.GetUpperBound())
	}
	return s
}

// startTime is when a metric began to count, in ms; 0 where that is not told.
func startTime(typ dto.MetricType, m *dto.Metric) int64 {
	switch typ {
	case dto.MetricType_COUNTER:
		if t := m.GetCounter().GetCreatedTimestamp(); t != nil {
			return t.GetSeconds()*1000 + int64(t.GetNanos())/1e6
		}
	case dto.MetricType_SUMMARY:
		if t := m.GetSummary().GetCreatedTimestamp(); t != nil {
			return t.GetSeconds()*1000 + int64(t.GetNanos())/1e6
		}
	case dto.MetricType_HISTOGRAM, dto.MetricType_GAUGE_HISTOGRAM:
		if t := m.GetHistogram().GetCreatedTimestamp(); t != nil {
			return t.GetSeconds()*1000 + int64(t.GetNanos())/1e6
		}
	default:
	}
	return 0
}

// A builder builds a layout.
type builder struct {
	layout
	symbols map[string]uint32
	started bool  // some series has a start time
	err     error // the first
}

// newLayout makes the layout of what was gathered.
func newLayout(families []*dto.MetricFamily) (*layout, error) {
	b := &builder{symbols: map[string]uint32{"": 0}, layout: layout{message: &producerv1.Layout{}}}
	for i, f := range families {
		b.family(f)
		for _, m := range f.GetMetric() {
			if err := checkMetric(f, m); err != nil {
				return nil, err
			}
			b.metric(uint32(i), f, m)
		}
	}
	if !b.started {
		b.message.SeriesStartTimesMs = nil
	}
	if b.err != nil {
		return nil, b.err
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(b.message)
	if err != nil {
		return nil, fmt.Errorf("the metrics cannot be encoded: %w", err)
	}
	sum := sha256.Sum256(encoded)
	b.id = sum[:16]
	l := b.layout
	return &l, nil
}

func (b *builder) family(f *dto.MetricFamily) {
	b.families = append(b.families, familyShape{
		name: f.GetName(), help: f.GetHelp(), unit: f.GetUnit(), typ: f.GetType(), metrics: len(f.GetMetric()),
	})
	b.message.FamilyNames = append(b.message.FamilyNames, b.symbol(f.GetName()))
	b.message.FamilyTypes = append(b.message.FamilyTypes, typeOf(f.GetType()))
	b.message.FamilyHelps = append(b.message.FamilyHelps, b.symbol(f.GetHelp()))
	b.message.FamilyUnits = append(b.message.FamilyUnits, b.symbol(f.GetUnit()))
}

func typeOf(t dto.MetricType) producerv1.MetricType {
	switch t {
	case dto.MetricType_COUNTER:
		return producerv1.MetricType_METRIC_TYPE_COUNTER
	case dto.MetricType_GAUGE:
		return producerv1.MetricType_METRIC_TYPE_GAUGE
	case dto.MetricType_SUMMARY:
		return producerv1.MetricType_METRIC_TYPE_SUMMARY
	case dto.MetricType_HISTOGRAM:
		return producerv1.MetricType_METRIC_TYPE_HISTOGRAM
	case dto.MetricType_GAUGE_HISTOGRAM:
		return producerv1.MetricType_METRIC_TYPE_GAUGE_HISTOGRAM
	default:
		return producerv1.MetricType_METRIC_TYPE_UNSPECIFIED
	}
}

func (b *builder) metric(family uint32, f *dto.MetricFamily, m *dto.Metric) {
	shape := shapeOf(f.GetType(), m)
	b.metrics = append(b.metrics, shape)
	b.started = b.started || shape.start != 0
	l := b.message
	walk(f.GetType(), m, func(r row) {
		l.SeriesFamilies = append(l.SeriesFamilies, family)
		l.SeriesNames = append(l.SeriesNames, b.symbol(f.GetName()+r.suffix))
		n := len(shape.labels)
		for _, pair := range shape.labels {
			l.LabelSymbols = append(l.LabelSymbols, b.symbol(pair.name), b.symbol(pair.value))
		}
		if r.label != "" {
			l.LabelSymbols = append(l.LabelSymbols, b.symbol(r.label), b.symbol(number(r.bound)))
			n++
		}
		l.SeriesLabelCounts = append(l.SeriesLabelCounts, uint32(n))
		l.SeriesStartTimesMs = append(l.SeriesStartTimesMs, shape.start)
		if r.histogram != nil {
			l.HistogramSeries = append(l.HistogramSeries, uint32(b.series))
		}
		b.series++
	})
}

// symbol is the number of a string.
func (b *builder) symbol(s string) uint32 {
	n, ok := b.symbols[s]
	if !ok {
		if len(s) > maxString && b.err == nil {
			b.err = fmt.Errorf("a string of %d bytes, at most %d can be sent: %.50q", len(s), maxString, s)
		}
		s = strings.Clone(s)
		b.message.Symbols = append(b.message.Symbols, s)
		n = uint32(len(b.message.Symbols))
		b.symbols[s] = n
	}
	return n
}

// number is how OpenMetrics writes a number in a label.
func number(f float64) string {
	switch {
	case math.IsInf(f, 1):
		return "+Inf"
	case math.IsInf(f, -1):
		return "-Inf"
	case math.IsNaN(f):
		return "NaN"
	}
	s := strconv.FormatFloat(f, 'g', -1, 64)
	if !strings.ContainsAny(s, "e.") {
		s += ".0"
	}
	return s
}
