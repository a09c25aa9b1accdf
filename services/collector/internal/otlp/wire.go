package otlp

import (
	"encoding/binary"
	"math"
	"math/bits"
	"strings"
)

// The tags of the fields that are written: number and type, one byte each. A
// name tells its message and field; those of one line are the same in all.
const (
	tagResourceMetrics = 1<<3 | typeBytes // ExportMetricsServiceRequest

	tagResource        = 1<<3 | typeBytes // ResourceMetrics
	tagScopeMetrics    = 2<<3 | typeBytes
	tagResourceAttr    = 1<<3 | typeBytes // Resource
	tagScope           = 1<<3 | typeBytes // ScopeMetrics
	tagMetric          = 2<<3 | typeBytes
	tagScopeSchemaURL  = 3<<3 | typeBytes
	tagScopeName       = 1<<3 | typeBytes // InstrumentationScope
	tagScopeVersion    = 2<<3 | typeBytes
	tagScopeAttr       = 3<<3 | typeBytes
	tagMetricName      = 1<<3 | typeBytes // Metric
	tagDescription     = 2<<3 | typeBytes
	tagUnit            = 3<<3 | typeBytes
	tagGauge           = 5<<3 | typeBytes
	tagSum             = 7<<3 | typeBytes
	tagHistogram       = 9<<3 | typeBytes
	tagExponential     = 10<<3 | typeBytes
	tagSummary         = 11<<3 | typeBytes
	tagMetricMetadata  = 12<<3 | typeBytes
	tagDataPoint       = 1<<3 | typeBytes // Gauge, Sum, Histogram, ExponentialHistogram, Summary
	tagTemporality     = 2<<3 | typeVarint
	tagMonotonic       = 3<<3 | typeVarint // Sum
	tagStart           = 2<<3 | typeFixed  // all data points, as far as "Number"
	tagTime            = 3<<3 | typeFixed
	tagNumberValue     = 4<<3 | typeFixed // NumberDataPoint
	tagNumberExemplar  = 5<<3 | typeBytes
	tagNumberAttr      = 7<<3 | typeBytes
	tagNumberFlags     = 8<<3 | typeVarint
	tagCount           = 4<<3 | typeFixed // HistogramDataPoint, ExponentialHistogramDataPoint, SummaryDataPoint
	tagPointSum        = 5<<3 | typeFixed
	tagBucketCounts    = 6<<3 | typeBytes // HistogramDataPoint
	tagBounds          = 7<<3 | typeBytes
	tagBucketExemplar  = 8<<3 | typeBytes
	tagHistogramAttr   = 9<<3 | typeBytes
	tagHistogramFlags  = 10<<3 | typeVarint // and ExponentialHistogramDataPoint
	tagExponentialAttr = 1<<3 | typeBytes   // ExponentialHistogramDataPoint
	tagScale           = 6<<3 | typeVarint
	tagZeroCount       = 7<<3 | typeFixed
	tagPositive        = 8<<3 | typeBytes
	tagNegative        = 9<<3 | typeBytes
	tagNativeExemplar  = 11<<3 | typeBytes
	tagZeroThreshold   = 14<<3 | typeFixed
	tagOffset          = 1<<3 | typeVarint // Buckets
	tagDenseCounts     = 2<<3 | typeBytes
	tagQuantile        = 6<<3 | typeBytes // SummaryDataPoint
	tagQuantileRank    = 1<<3 | typeFixed // ValueAtQuantile
	tagQuantileValue   = 2<<3 | typeFixed
	tagExemplarTime    = 2<<3 | typeFixed // Exemplar
	tagExemplarValue   = 3<<3 | typeFixed
	tagExemplarSpan    = 4<<3 | typeBytes
	tagExemplarTrace   = 5<<3 | typeBytes
	tagExemplarAttr    = 7<<3 | typeBytes
	tagKey             = 1<<3 | typeBytes // KeyValue
	tagAnyValue        = 2<<3 | typeBytes
	tagString          = 1<<3 | typeBytes // AnyValue

	typeVarint = 0
	typeFixed  = 1
	typeBytes  = 2
)

const (
	temporalityCumulative = 2
	flagNoRecordedValue   = 1
)

// A writer writes a message from its end to its beginning, so that the length
// of each inner message is known when it is written. What is written is b[at:].
type writer struct {
	b  []byte
	at int
}

// reserve makes room for n more bytes.
func (w *writer) reserve(n int) {
	if w.at >= n {
		return
	}
	written := len(w.b) - w.at
	grown := make([]byte, max(2*len(w.b), written+n, 4<<10))
	copy(grown[len(grown)-written:], w.b[w.at:])
	w.b, w.at = grown, len(grown)-written
}

// mark is the place where a message ends, for close.
func (w *writer) mark() int { return len(w.b) - w.at }

// close writes the length of all since the mark, and a tag.
func (w *writer) close(tag byte, mark int) {
	w.varint(uint64(len(w.b) - w.at - mark))
	w.tag(tag)
}

func (w *writer) tag(tag byte) {
	w.reserve(1)
	w.at--
	w.b[w.at] = tag
}

func (w *writer) raw(p []byte) {
	w.reserve(len(p))
	w.at -= len(p)
	copy(w.b[w.at:], p)
}

func (w *writer) bytes(tag byte, p []byte) {
	w.raw(p)
	w.varint(uint64(len(p)))
	w.tag(tag)
}

func (w *writer) text(tag byte, s string) {
	w.reserve(len(s))
	w.at -= len(s)
	copy(w.b[w.at:], s)
	w.varint(uint64(len(s)))
	w.tag(tag)
}

func (w *writer) varint(v uint64) {
	n := (bits.Len64(v|1) + 6) / 7
	w.reserve(n)
	w.at -= n
	binary.PutUvarint(w.b[w.at:w.at+n], v)
}

func (w *writer) number(tag byte, v uint64) {
	w.varint(v)
	w.tag(tag)
}

func (w *writer) fixed(tag byte, v uint64) {
	w.reserve(9)
	w.at -= 9
	w.b[w.at] = tag
	binary.LittleEndian.PutUint64(w.b[w.at+1:], v)
}

func (w *writer) float(tag byte, v float64) { w.fixed(tag, math.Float64bits(v)) }

// word writes an element of a packed field.
func (w *writer) word(v uint64) {
	w.reserve(8)
	w.at -= 8
	binary.LittleEndian.PutUint64(w.b[w.at:], v)
}

// time writes milliseconds as nanoseconds. A time before the epoch cannot be
// said.
func (w *writer) time(tag byte, ms int64) {
	if ms > 0 {
		w.fixed(tag, uint64(ms)*1e6)
	}
}

func zigzag(v int32) uint64 { return uint64(uint32(v<<1) ^ uint32(v>>31)) }

// attribute writes a KeyValue of two strings.
func (w *writer) attribute(tag byte, key, value string) {
	end := w.mark()
	w.text(tagString, valid(value))
	w.close(tagAnyValue, end)
	w.text(tagKey, valid(key))
	w.close(tag, end)
}

// attributes writes KeyValues that were encoded with some tag under another one.
func (w *writer) attributes(tag byte, encoded []byte) {
	w.raw(encoded)
	for b := w.b[w.at : w.at+len(encoded)]; len(b) > 0; {
		b[0] = tag
		size, n := binary.Uvarint(b[1:])
		b = b[1+n+int(size):]
	}
}

// valid is a string that a message may have.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
