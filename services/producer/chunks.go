package producer

import (
	producerv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/producer/v1"
)

const (
	// maxChunk is the most bytes of one chunk.
	maxChunk = 256 << 10

	// chunkSlack is more than the tags and lengths of a chunk's columns, and its
	// begin and seal.
	chunkSlack = 2 << 10

	// maxString is what fits into a chunk.
	maxString = maxChunk - chunkSlack - 16
)

// The most bytes of one element of a packed column.
const (
	varint32 = 5
	varint64 = 10
	fixed64  = 8
)

// A cutter cuts an answer into chunks, column by column.
type cutter struct {
	send  func(*producerv1.CollectResponse) error
	chunk *producerv1.CollectResponse
	size  int // of chunk, at most
	sent  int64
	err   error // of send; no more is sent
}

// send sends an answer in chunks. What the answer points to is not changed.
func send(answer *producerv1.CollectResponse, samples int64, to func(*producerv1.CollectResponse) error) error {
	c := &cutter{send: to, chunk: &producerv1.CollectResponse{Begin: answer.GetBegin()}}
	if l := answer.GetLayout(); l != nil {
		c.layout(l)
	}
	column(c, answer.GetValues(), fixed64, func(r *producerv1.CollectResponse, part []float64) { r.Values = part })
	if h := answer.GetHistograms(); h != nil {
		c.histograms(h)
	}
	if t := answer.GetTimestamps(); t != nil {
		column(c, t.GetSeries(), varint32, func(r *producerv1.CollectResponse, part []uint32) { timestamps(r).Series = part })
		column(c, t.GetTimesMs(), varint64, func(r *producerv1.CollectResponse, part []int64) { timestamps(r).TimesMs = part })
	}
	if e := answer.GetExemplars(); e != nil {
		c.exemplars(e)
	}
	c.chunk.Seal = &producerv1.Seal{ChunkCount: c.sent + 1, SampleCount: samples}
	c.flush()
	return c.err
}

// flush sends the chunk and begins the next.
func (c *cutter) flush() {
	if c.err == nil {
		c.err = c.send(c.chunk)
	}
	c.sent++
	c.chunk, c.size = &producerv1.CollectResponse{}, 0
}

// column puts a column into as many chunks as it needs; size is the most bytes of
// one element.
func column[T any](c *cutter, all []T, size int, put func(*producerv1.CollectResponse, []T)) {
	for len(all) > 0 && c.err == nil {
		n := min(len(all), (maxChunk-chunkSlack-c.size)/size)
		if n > 0 {
			put(c.chunk, all[:n:n])
			all, c.size = all[n:], c.size+n*size
		}
		if len(all) > 0 {
			c.flush()
		}
	}
}

// texts is column for strings. None is longer than maxString.
func texts(c *cutter, all []string, put func(*producerv1.CollectResponse, []string)) {
	for len(all) > 0 && c.err == nil {
		n := 0
		for ; n < len(all); n++ {
			size := len(all[n]) + varint32 + 1
			if c.size+size > maxChunk-chunkSlack {
				break
			}
			c.size += size
		}
		if n > 0 {
			put(c.chunk, all[:n:n])
			all = all[n:]
		}
		if len(all) > 0 {
			c.flush()
		}
	}
}

func (c *cutter) layout(l *producerv1.Layout) {
	layoutOf(c.chunk) // An empty one is told, too.
	texts(c, l.GetSymbols(), func(r *producerv1.CollectResponse, part []string) { layoutOf(r).Symbols = part })
	column(c, l.GetFamilyTypes(), varint32, func(r *producerv1.CollectResponse, part []producerv1.MetricType) { layoutOf(r).FamilyTypes = part })
	c.layoutColumn(l.GetFamilyNames(), func(l *producerv1.Layout, part []uint32) { l.FamilyNames = part })
	c.layoutColumn(l.GetFamilyHelps(), func(l *producerv1.Layout, part []uint32) { l.FamilyHelps = part })
	c.layoutColumn(l.GetFamilyUnits(), func(l *producerv1.Layout, part []uint32) { l.FamilyUnits = part })
	c.layoutColumn(l.GetSeriesFamilies(), func(l *producerv1.Layout, part []uint32) { l.SeriesFamilies = part })
	c.layoutColumn(l.GetSeriesNames(), func(l *producerv1.Layout, part []uint32) { l.SeriesNames = part })
	c.layoutColumn(l.GetSeriesLabelCounts(), func(l *producerv1.Layout, part []uint32) { l.SeriesLabelCounts = part })
	c.layoutColumn(l.GetLabelSymbols(), func(l *producerv1.Layout, part []uint32) { l.LabelSymbols = part })
	column(c, l.GetSeriesStartTimesMs(), varint64, func(r *producerv1.CollectResponse, part []int64) { layoutOf(r).SeriesStartTimesMs = part })
	c.layoutColumn(l.GetHistogramSeries(), func(l *producerv1.Layout, part []uint32) { l.HistogramSeries = part })
}

func (c *cutter) layoutColumn(all []uint32, put func(*producerv1.Layout, []uint32)) {
	column(c, all, varint32, func(r *producerv1.CollectResponse, part []uint32) { put(layoutOf(r), part) })
}

func (c *cutter) histograms(h *producerv1.Histograms) {
	column(c, h.GetSchemas(), varint32, func(r *producerv1.CollectResponse, part []int32) { histograms(r).Schemas = part })
	column(c, h.GetFloats(), 1, func(r *producerv1.CollectResponse, part []bool) { histograms(r).Floats = part })
	column(c, h.GetCounterResets(), varint32, func(r *producerv1.CollectResponse, part []producerv1.CounterReset) {
		histograms(r).CounterResets = part
	})
	column(c, h.GetSums(), fixed64, func(r *producerv1.CollectResponse, part []float64) { histograms(r).Sums = part })
	column(c, h.GetZeroThresholds(), fixed64, func(r *producerv1.CollectResponse, part []float64) { histograms(r).ZeroThresholds = part })
	column(c, h.GetCounts(), varint64, func(r *producerv1.CollectResponse, part []uint64) { histograms(r).Counts = part })
	column(c, h.GetFloatCounts(), fixed64, func(r *producerv1.CollectResponse, part []float64) { histograms(r).FloatCounts = part })
	column(c, h.GetSpanCounts(), varint32, func(r *producerv1.CollectResponse, part []uint32) { histograms(r).SpanCounts = part })
	column(c, h.GetSpanOffsets(), varint32, func(r *producerv1.CollectResponse, part []int32) { histograms(r).SpanOffsets = part })
	column(c, h.GetSpanLengths(), varint32, func(r *producerv1.CollectResponse, part []uint32) { histograms(r).SpanLengths = part })
	column(c, h.GetBucketDeltas(), varint64, func(r *producerv1.CollectResponse, part []int64) { histograms(r).BucketDeltas = part })
	column(c, h.GetBucketCounts(), fixed64, func(r *producerv1.CollectResponse, part []float64) { histograms(r).BucketCounts = part })
	column(c, h.GetCustomBoundCounts(), varint32, func(r *producerv1.CollectResponse, part []uint32) { histograms(r).CustomBoundCounts = part })
	column(c, h.GetCustomBounds(), fixed64, func(r *producerv1.CollectResponse, part []float64) { histograms(r).CustomBounds = part })
}

func (c *cutter) exemplars(e *producerv1.Exemplars) {
	column(c, e.GetSeries(), varint32, func(r *producerv1.CollectResponse, part []uint32) { exemplars(r).Series = part })
	column(c, e.GetValues(), fixed64, func(r *producerv1.CollectResponse, part []float64) { exemplars(r).Values = part })
	column(c, e.GetTimesMs(), varint64, func(r *producerv1.CollectResponse, part []int64) { exemplars(r).TimesMs = part })
	column(c, e.GetLabelCounts(), varint32, func(r *producerv1.CollectResponse, part []uint32) { exemplars(r).LabelCounts = part })
	texts(c, e.GetLabels(), func(r *producerv1.CollectResponse, part []string) { exemplars(r).Labels = part })
}

// The parts of an answer, made where they are missing.

func layoutOf(r *producerv1.CollectResponse) *producerv1.Layout {
	if r.Layout == nil {
		r.Layout = &producerv1.Layout{}
	}
	return r.Layout
}

func histograms(r *producerv1.CollectResponse) *producerv1.Histograms {
	if r.Histograms == nil {
		r.Histograms = &producerv1.Histograms{}
	}
	return r.Histograms
}

func timestamps(r *producerv1.CollectResponse) *producerv1.Timestamps {
	if r.Timestamps == nil {
		r.Timestamps = &producerv1.Timestamps{}
	}
	return r.Timestamps
}

func exemplars(r *producerv1.CollectResponse) *producerv1.Exemplars {
	if r.Exemplars == nil {
		r.Exemplars = &producerv1.Exemplars{}
	}
	return r.Exemplars
}
