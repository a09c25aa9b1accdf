package queue

import (
	"fmt"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

const segmentSuffix = ".segment"

// A segment is one part of the log. All fields but the first are guarded by
// Queue.mu.
type segment struct {
	number uint64

	// old tells that an earlier process has written it.
	old bool

	// encoder is there while batches are taken, table until all of them are
	// written. A reader that comes later makes its own.
	encoder *encoder
	table   *sample.Table

	// begun is when it took its first batch; not told of an old one.
	begun time.Time

	// size is what was encoded, end what was written: readers go no further.
	// samples are those before end, -1 when that is not known.
	size, end int64
	samples   int64

	// chunks are at work. sealed: end is final.
	chunks int
	sealed bool

	// data is the contents of a segment that is in memory only; nil of others.
	data []byte

	// file is for writing; it is closed when it is sealed, synced, and not in
	// use by the writer (writing) or the syncer (syncing).
	file             File
	writing, syncing bool

	// dirty is when the first byte was written that no sync has covered; synced
	// is the same for the sync that is at work. Zero when there is none.
	dirty, synced time.Time

	// unsure: a sync has failed, and there will be no other.
	unsure bool

	// gone: it is no part of the log any more.
	gone bool

	// marks are where records of some times begin.
	marks   []mark
	changed time.Time // of an old one: when it was last written
}

type mark struct {
	offset int64
	time   time.Time
}

// maxMarks is how exact Lag.Oldest is at least: the part of a segment.
const maxMarks = 1 << 12

// mark remembers when the record at an offset was written.
func (s *segment) mark(offset int64, written time.Time) {
	if n := len(s.marks); n > 0 {
		last := s.marks[n-1]
		if offset <= last.offset || written.Sub(last.time) < time.Second && offset-last.offset < maxSegmentBytes/maxMarks {
			return
		}
	}
	if len(s.marks) == maxMarks {
		for i := range maxMarks / 2 {
			s.marks[i] = s.marks[2*i]
		}
		s.marks = s.marks[:maxMarks/2]
	}
	s.marks = append(s.marks, mark{offset, written})
}

// timeAt is when the record at an offset was written, nearly.
func (s *segment) timeAt(offset int64) time.Time {
	i := sort.Search(len(s.marks), func(i int) bool { return s.marks[i].offset > offset })
	if i == 0 {
		if len(s.marks) > 0 {
			return s.marks[0].time
		}
		return s.changed
	}
	return s.marks[i-1].time
}

// A segment that is not small is ended after some time all the same: its table
// keeps series alive that were written once and never again.
const (
	maxAge  = 10 * time.Minute
	agedMin = 4 << 20
)

// full tells that a segment is to take no more batches.
func (s *segment) full(most int64, now time.Time) bool {
	return s.size >= most || s.size >= agedMin && now.Sub(s.begun) >= maxAge || s.encoder.defined > maxDefined/2
}

// begin is where the first record of a segment is.
func begin(offset int64) int64 { return max(offset, headerSize) }

// inMemory tells that the disk has nothing of it.
func (s *segment) inMemory() bool { return s.data != nil }

func segmentName(number uint64) string { return fmt.Sprintf("%016x%s", number, segmentSuffix) }

func (q *Queue) path(name string) string { return filepath.Join(q.cfg.Dir, name) }

// parseSegmentName is the inverse of segmentName.
func parseSegmentName(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != 16 {
		return 0, false
	}
	number, err := strconv.ParseUint(digits, 16, 62)
	return number, err == nil && segmentName(number) == name
}
