package remotewrite

import (
	"encoding/binary"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
)

// Tags of a Histogram, the same in 1.0 and 2.0, each with its wire type, which is
// 0 for a varint.
const (
	histogramCountInt       = 1 << 3
	histogramCountFloat     = 2<<3 | 1
	histogramSum            = 3<<3 | 1
	histogramSchema         = 4 << 3
	histogramZeroThreshold  = 5<<3 | 1
	histogramZeroCountInt   = 6 << 3
	histogramZeroCountFloat = 7<<3 | 1
	histogramNegativeSpans  = 8<<3 | 2
	histogramNegativeDeltas = 9<<3 | 2
	histogramNegativeCounts = 10<<3 | 2
	histogramPositiveSpans  = 11<<3 | 2
	histogramPositiveDeltas = 12<<3 | 2
	histogramPositiveCounts = 13<<3 | 2
	histogramResetHint      = 14 << 3
	histogramTime           = 15 << 3

	// These take two bytes as a tag, so they are numbers only.
	histogramCustomValues = 16
	histogramStart        = 17 // 2.0 only

	spanOffset = 1 << 3
	spanLength = 2 << 3
)

// appendHistogram writes the histogram of an item under a tag.
func appendHistogram(b []byte, tag byte, item *deliver.Item, start int64) []byte {
	b, at := open(b, tag)
	if h := item.Extra.Histogram; h != nil {
		// The two counts are of a oneof: 0 is said, as it says which kind it is.
		b = protowire.AppendVarint(append(b, histogramCountInt), h.Count)
		b = appendDouble(b, histogramSum, h.Sum)
		b = appendZigZag(b, histogramSchema, int64(h.Schema))
		b = appendDouble(b, histogramZeroThreshold, h.ZeroThreshold)
		b = protowire.AppendVarint(append(b, histogramZeroCountInt), h.ZeroCount)
		b = appendSpans(b, histogramNegativeSpans, h.NegativeSpans)
		b = appendDeltas(b, histogramNegativeDeltas, h.NegativeBuckets)
		b = appendSpans(b, histogramPositiveSpans, h.PositiveSpans)
		b = appendDeltas(b, histogramPositiveDeltas, h.PositiveBuckets)
		b = appendTail(b, h.CounterResetHint, item.Time, h.CustomValues, start)
	} else {
		h := item.Extra.FloatHistogram
		b = protowire.AppendFixed64(append(b, histogramCountFloat), math.Float64bits(h.Count))
		b = appendDouble(b, histogramSum, h.Sum)
		b = appendZigZag(b, histogramSchema, int64(h.Schema))
		b = appendDouble(b, histogramZeroThreshold, h.ZeroThreshold)
		b = protowire.AppendFixed64(append(b, histogramZeroCountFloat), math.Float64bits(h.ZeroCount))
		b = appendSpans(b, histogramNegativeSpans, h.NegativeSpans)
		b = appendCounts(b, histogramNegativeCounts, h.NegativeBuckets)
		b = appendSpans(b, histogramPositiveSpans, h.PositiveSpans)
		b = appendCounts(b, histogramPositiveCounts, h.PositiveBuckets)
		b = appendTail(b, h.CounterResetHint, item.Time, h.CustomValues, start)
	}
	return shut(b, at)
}

func appendTail(b []byte, hint histogram.CounterResetHint, t int64, custom []float64, start int64) []byte {
	b = appendInt(b, histogramResetHint, int64(hint)) // the protocol numbers them alike
	b = appendInt(b, histogramTime, t)
	if len(custom) > 0 {
		b = protowire.AppendTag(b, histogramCustomValues, protowire.BytesType)
		b = appendFixed(b, custom)
	}
	if start != 0 {
		b = protowire.AppendTag(b, histogramStart, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(start))
	}
	return b
}

func appendZigZag(b []byte, tag byte, v int64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(append(b, tag), protowire.EncodeZigZag(v))
}

func appendSpans(b []byte, tag byte, spans []histogram.Span) []byte {
	for _, s := range spans {
		var at int
		b, at = open(b, tag)
		b = appendZigZag(b, spanOffset, int64(s.Offset))
		b = appendInt(b, spanLength, int64(s.Length))
		b = shut(b, at)
	}
	return b
}

func appendDeltas(b []byte, tag byte, deltas []int64) []byte {
	if len(deltas) == 0 {
		return b
	}
	b, at := open(b, tag)
	for _, d := range deltas {
		b = protowire.AppendVarint(b, protowire.EncodeZigZag(d))
	}
	return shut(b, at)
}

func appendCounts(b []byte, tag byte, counts []float64) []byte {
	if len(counts) == 0 {
		return b
	}
	return appendFixed(append(b, tag), counts)
}

// appendFixed writes a length and numbers.
func appendFixed(b []byte, numbers []float64) []byte {
	b = protowire.AppendVarint(b, uint64(8*len(numbers)))
	for _, v := range numbers {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
	}
	return b
}
