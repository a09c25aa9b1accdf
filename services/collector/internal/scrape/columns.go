package scrape

import (
	"fmt"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	producerv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/producer/v1"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
)

const (
	// maxChunk is the most bytes of one chunk of an answer in columns.
	maxChunk = 256 << 10

	// chunkCost is what a chunk counts beside its bytes: there is no end to
	// empty ones.
	chunkCost = 256

	// swelling is how much larger a chunk can be in memory: the shortest element
	// is a byte on the wire, the largest is a string of one byte with its header.
	swelling = 9

	// maxSwollen times what may come is what an answer may be in memory: columns
	// of small numbers are larger there.
	maxSwollen = 2

	// keepColumns is the most bytes of columns that are kept for the next answer.
	keepColumns = 1 << 20
)

// columns are an answer, chunk by chunk. What they hold is paid for out of the
// budget before they hold it.
type columns struct {
	answer producerv1.CollectResponse

	from   *Scraper
	limit  int64 // bytes that may come
	came   int64 // bytes
	chunks int64
	paid   int64

	// fault is why the last chunk was not taken.
	fault *failure
}

func (s *Scraper) newColumns(t *target) *columns {
	c, ok := s.columns.Get().(*columns)
	if !ok {
		c = &columns{from: s}
	}
	c.limit = t.limits.BodyBytes
	return c
}

// release gives the columns and their share of the budget back. Nothing may point
// into them any more.
func (c *columns) release() {
	s := c.from
	s.budget.give(c.paid)
	c.came, c.chunks, c.paid, c.fault = 0, 0, 0, nil
	if c.capacity() > keepColumns {
		return
	}
	c.clear()
	s.columns.Put(c)
}

// add takes one chunk. The elements of its columns go behind those that are
// there, as protobuf merges messages.
func (c *columns) add(b []byte) *failure {
	n := int64(len(b))
	c.came += n
	if c.chunks++; c.came+chunkCost*c.chunks > c.limit+chunkCost {
		return fail(schedule.ReasonTooLarge, "an answer of more than %d bytes", c.limit)
	}
	budget := &c.from.budget
	if !budget.takeMore(swelling*n, c.paid) {
		return budget.over()
	}
	before := c.capacity()
	err := proto.UnmarshalOptions{Merge: true, DiscardUnknown: true}.Unmarshal(b, &c.answer)
	budget.give(swelling * n)
	if err != nil {
		return fail(schedule.ReasonMalformed, "%v", err)
	}
	// Strings have their bytes beside the column.
	kept := c.capacity() - before + n
	if most := maxSwollen * c.limit; c.paid+kept > most+chunkCost {
		return fail(schedule.ReasonTooLarge, "an answer of more than %d bytes in memory", most)
	}
	if !budget.takeMore(kept, c.paid) {
		return budget.over()
	}
	c.paid += kept
	return nil
}

// capacity is how many bytes the columns have room for.
func (c *columns) capacity() int64 {
	l, h, e, t := c.answer.GetLayout(), c.answer.GetHistograms(), c.answer.GetExemplars(), c.answer.GetTimestamps()
	n := 16*(cap(l.GetSymbols())+cap(e.GetLabels())) +
		8*(cap(c.answer.GetValues())+cap(l.GetSeriesStartTimesMs())+cap(t.GetTimesMs())+
			cap(e.GetValues())+cap(e.GetTimesMs())+
			cap(h.GetSums())+cap(h.GetZeroThresholds())+cap(h.GetCounts())+cap(h.GetFloatCounts())+
			cap(h.GetBucketDeltas())+cap(h.GetBucketCounts())+cap(h.GetCustomBounds())) +
		4*(cap(l.GetFamilyNames())+cap(l.GetFamilyTypes())+cap(l.GetFamilyHelps())+cap(l.GetFamilyUnits())+
			cap(l.GetSeriesFamilies())+cap(l.GetSeriesNames())+cap(l.GetSeriesLabelCounts())+cap(l.GetLabelSymbols())+
			cap(l.GetHistogramSeries())+cap(t.GetSeries())+cap(e.GetSeries())+cap(e.GetLabelCounts())+
			cap(h.GetSchemas())+cap(h.GetCounterResets())+cap(h.GetSpanCounts())+cap(h.GetSpanOffsets())+
			cap(h.GetSpanLengths())+cap(h.GetCustomBoundCounts())) +
		cap(h.GetFloats())
	return int64(n)
}

// clear empties the columns. That of values, the one that every answer has, keeps
// its room.
func (c *columns) clear() {
	values := c.answer.GetValues()[:0]
	c.answer.Reset()
	c.answer.Values = values
}

// A chunkCodec makes gRPC put chunks into columns.
type chunkCodec struct{}

// Name is the content-subtype.
func (chunkCodec) Name() string { return "proto" }

// Marshal encodes a request.
func (chunkCodec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("a %T is no message", v)
	}
	b, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

// Unmarshal takes a chunk into columns. They know why they cannot.
func (chunkCodec) Unmarshal(data mem.BufferSlice, v any) error {
	c, ok := v.(*columns)
	if !ok {
		return fmt.Errorf("a %T is no columns", v)
	}
	b := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer b.Free()
	if c.fault = c.add(b.ReadOnlyData()); c.fault != nil {
		return fmt.Errorf("the chunk is not taken: %s", c.fault.message)
	}
	return nil
}
