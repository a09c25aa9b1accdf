package queue

import (
	"fmt"
	"os"
	"time"
)

// A Status is how a queue is.
type Status struct {
	// DiskBytes is what it takes on disk, MaxBytes what it may take.
	DiskBytes, MaxBytes int64

	// MemoryBytes is what is in memory only, because the disk does not take it.
	MemoryBytes int64

	// LastError is what the disk last failed with, at some time; nil when it did
	// not.
	LastError     error
	LastErrorTime time.Time

	// Failing: the disk fails now.
	Failing bool

	// Synced is until when all that was written is durable.
	Synced time.Time
}

// Status tells how the queue is now.
func (q *Queue) Status() Status {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := Status{
		DiskBytes:     q.diskBytes,
		MaxBytes:      q.cfg.MaxBytes,
		MemoryBytes:   q.memoryBytes,
		LastError:     q.trouble.last,
		LastErrorTime: q.trouble.at,
		Failing:       q.trouble.failing || q.trouble.unsynced,
		Synced:        q.unsyncedSince(),
	}
	if s.Synced.IsZero() {
		s.Synced = time.Now()
	}
	return s
}

// lastOfItsProcess tells of an old segment whether the next one is another
// process's: then its end may be torn.
func (q *Queue) lastOfItsProcess(s *segment) bool {
	q.mu.Lock()
	i := q.find(s.number + 1)
	if i == len(q.segments) || !q.segments[i].old {
		q.mu.Unlock()
		return true
	}
	next := q.segments[i].number
	q.mu.Unlock()
	mine, err := q.header(s.number)
	if err != nil {
		return true // torn at once
	}
	other, err := q.header(next)
	return err != nil || mine.session != other.session
}

// header reads that of a segment.
func (q *Queue) header(number uint64) (header, error) {
	file, err := q.cfg.FS.OpenFile(q.path(segmentName(number)), os.O_RDONLY, 0)
	if err != nil {
		return header{}, fmt.Errorf("segment %d: %w", number, err)
	}
	defer file.Close()
	b := make([]byte, headerSize)
	if _, err := file.ReadAt(b, 0); err != nil {
		return header{}, fmt.Errorf("segment %d: %w", number, err)
	}
	return parseHeader(b)
}
