package sample

import (
	"slices"
	"sync"
	"time"
)

// A Point is a Sample without its series.
type Point struct {
	// Time and Start are in milliseconds since the Unix epoch; Start is 0 where
	// it is not told.
	Time, Start int64

	// Value is not used when there is a histogram.
	Value float64

	// Extra is nil for nearly every point.
	Extra *Extra
}

// A Table numbers the series of one stretch of a log, from 0 and without gaps.
// It only grows. It is safe for concurrent use.
type Table struct {
	mu     sync.RWMutex
	series []*Series // guarded by mu
}

// Add gives a series the next number.
func (t *Table) Add(s *Series) uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.series = append(t.series, s)
	return uint32(len(t.series) - 1)
}

// At is the series of a number that Add has given.
func (t *Table) At(number uint32) *Series {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.series[number]
}

// All are the series given so far, in the order of their numbers. They are not
// to be changed.
func (t *Table) All() []*Series {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Clip(t.series)
}

// A Position is a place in a log, behind a record. The zero Position is before
// all records.
type Position struct {
	// Segment is the number of a part of the log, rising.
	Segment uint64

	// Offset is in bytes, in that part.
	Offset int64
}

// Before reports whether p is nearer to the beginning than o.
func (p Position) Before(o Position) bool {
	if p.Segment != o.Segment {
		return p.Segment < o.Segment
	}
	return p.Offset < o.Offset
}

// A Record is a batch, or a part of one that is very large, as a log gives it
// back. Whoever reads may hand the same
// Record to the log again and again: its slices are used anew.
type Record struct {
	// Source is the same for all batches of one producer, and for hardly two
	// producers. Those of one Source come in the order in which they were written.
	Source uint64

	// Table has the series of this record, and of those beside it.
	Table *Table

	// Numbers are the series in Table, Points their samples, in the order of the
	// batch.
	Numbers []uint32
	Points  []Point

	// Bytes is what the record takes in the log.
	Bytes int

	// End is where the next record begins.
	End Position
}

// A Lag is how far a reader is behind the end of a log.
type Lag struct {
	// Bytes of the log are not committed yet.
	Bytes int64

	// Oldest is when the oldest batch that is not committed was written, to
	// within a segment after a restart; zero when all are.
	Oldest time.Time

	// Dropped counts the samples that the log has dropped before this reader read
	// them, by reason, since it was opened.
	Dropped map[string]int64
}
