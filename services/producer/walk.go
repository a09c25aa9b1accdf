package producer

import (
	"fmt"
	"math"

	dto "github.com/prometheus/client_model/go"
)

// A row is one series of a metric, with its sample.
type row struct {
	suffix string // behind the family's name

	// bound is the value of the label le or quantile, which label names; there is
	// none when that is empty.
	label string
	bound float64

	value     float64
	histogram *dto.Histogram // native; nil for a value
	exemplar  *dto.Exemplar  // of a value
}

// walk visits the series of a metric, always in the same order.
func walk(typ dto.MetricType, m *dto.Metric, visit func(row)) {
	switch typ {
	case dto.MetricType_COUNTER:
		visit(row{value: m.GetCounter().GetValue(), exemplar: m.GetCounter().GetExemplar()})
	case dto.MetricType_GAUGE:
		visit(row{value: m.GetGauge().GetValue()})
	case dto.MetricType_SUMMARY:
		s := m.GetSummary()
		for _, q := range s.GetQuantile() {
			visit(row{label: "quantile", bound: q.GetQuantile(), value: q.GetValue()})
		}
		visit(row{suffix: "_sum", value: s.GetSampleSum()})
		visit(row{suffix: "_count", value: float64(s.GetSampleCount())})
	case dto.MetricType_HISTOGRAM, dto.MetricType_GAUGE_HISTOGRAM:
		h := m.GetHistogram()
		if isNative(h) {
			visit(row{histogram: h})
			return
		}
		walkClassic(h, visit)
	default:
		visit(row{value: m.GetUntyped().GetValue()})
	}
}

func walkClassic(h *dto.Histogram, visit func(row)) {
	total := count(h.GetSampleCountFloat(), h.GetSampleCount())
	infinite := false
	for _, b := range h.GetBucket() {
		infinite = infinite || math.IsInf(b.GetUpperBound(), 1)
		visit(row{
			suffix: "_bucket", label: "le", bound: b.GetUpperBound(),
			value: count(b.GetCumulativeCountFloat(), b.GetCumulativeCount()), exemplar: b.GetExemplar(),
		})
	}
	if !infinite {
		visit(row{suffix: "_bucket", label: "le", bound: math.Inf(1), value: total})
	}
	visit(row{suffix: "_sum", value: h.GetSampleSum()})
	visit(row{suffix: "_count", value: total})
}

// count is a count that is told as a double or as an integer.
func count(double float64, integer uint64) float64 {
	if double > 0 {
		return double
	}
	return float64(integer)
}

// isNative reports whether a histogram has a native half. One without any
// observation has a span of no buckets, to tell.
func isNative(h *dto.Histogram) bool {
	return len(h.GetPositiveSpan()) > 0 || len(h.GetNegativeSpan()) > 0 || h.GetZeroThreshold() > 0 || h.GetZeroCount() > 0
}

// isFloat reports whether a native histogram counts in doubles.
func isFloat(h *dto.Histogram) bool { return h.GetSampleCountFloat() > 0 || h.GetZeroCountFloat() > 0 }

// checkMetric reports a metric that is not of its family's type.
func checkMetric(f *dto.MetricFamily, m *dto.Metric) error {
	ok := true
	switch f.GetType() {
	case dto.MetricType_COUNTER:
		ok = m.GetCounter() != nil
	case dto.MetricType_GAUGE:
		ok = m.GetGauge() != nil
	case dto.MetricType_SUMMARY:
		ok = m.GetSummary() != nil
	case dto.MetricType_HISTOGRAM, dto.MetricType_GAUGE_HISTOGRAM:
		ok = m.GetHistogram() != nil
	case dto.MetricType_UNTYPED:
		ok = m.GetUntyped() != nil
	}
	if !ok {
		return fmt.Errorf("a metric of the family %.100q is not of its type %s", f.GetName(), f.GetType())
	}
	return nil
}
