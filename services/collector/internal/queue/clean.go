package queue

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
)

// clean is the goroutine that removes what all sinks have, and the oldest when
// there is too much.
func (q *Queue) clean() {
	for {
		q.dropCommitted()
		for q.dropOldest() {
		}
		var again <-chan time.Time
		if q.removeCondemned() {
			again = time.After(retryInterval)
		}
		select {
		case <-q.toClean:
		case <-again:
		case <-q.stop:
			q.dropCommitted()
			q.removeCondemned()
			return
		}
	}
}

// overCap tells that the oldest segment is to be dropped. It leaves some room,
// so that the writer seldom has to wait for it.
func (q *Queue) overCap() bool {
	left := q.diskBytes + max(q.cfg.SegmentBytes/8, q.wanted)
	for _, s := range q.condemned {
		left -= s.end
	}
	return left > q.cfg.MaxBytes
}

// oldestOnDisk is the first segment that may be dropped to make room on the
// disk.
func (q *Queue) oldestOnDisk() *segment {
	for _, s := range q.segments {
		if s.sealed && !s.inMemory() {
			return s
		}
	}
	return nil
}

// dropCommitted takes segments out of the log that all holders are done with.
func (q *Queue) dropCommitted() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.segments) > 0 {
		s := q.segments[0]
		if !s.sealed || s.old && !q.settled && len(q.holders) == 0 {
			return
		}
		for _, h := range q.holders {
			p := h.committed
			if p.Segment < s.number || p.Segment == s.number && p.Offset < s.end {
				return
			}
		}
		q.remove(s)
		q.forgetCorrupt(s)
	}
}

// remove takes a segment out of the log.
func (q *Queue) remove(s *segment) {
	i := q.find(s.number)
	q.segments = append(q.segments[:i:i], q.segments[i+1:]...)
	q.cfg.Metrics.segments.Set(float64(len(q.segments)))
	s.gone, s.table = true, nil
	if s.inMemory() {
		q.addMemory(-int64(cap(s.data)))
		s.data = nil
		return
	}
	s.dirty = time.Time{}
	q.condemned = append(q.condemned, s)
}

// drop takes a segment out of the log whose samples are known, and counts those
// that were not read, for each holder.
func (q *Queue) drop(s *segment) {
	q.remove(s)
	for _, h := range q.holders {
		if h.next.Segment > s.number {
			continue
		}
		lost := s.samples - h.corrupt[s.number]
		if h.next.Segment == s.number {
			lost -= max(h.read, 0)
			h.skip(s)
		} // else it has others to read before, when this one was in memory
		q.dropFor(h, deliver.ReasonOverflow, lost)
	}
	q.forgetCorrupt(s)
	q.cfg.Logger.Warn("the queue is full, its oldest segment is dropped", "segment", s.number, "samples", s.samples,
		"in_memory", q.trouble.failing)
}

// dropOldest drops one segment when there is too much on the disk, and tells
// whether there may be more to do.
func (q *Queue) dropOldest() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.oldestOnDisk()
	if s == nil || !q.overCap() {
		return false
	}
	if !q.known(s) {
		q.mu.Unlock()
		c := q.count(s)
		q.mu.Lock()
		q.learn(s, c)
		return true
	}
	q.drop(s)
	wake(q.toKeep)
	return true
}

func (q *Queue) forgetCorrupt(s *segment) {
	for _, h := range q.holders {
		delete(h.corrupt, s.number)
	}
}

// known tells that what each holder would lose with a segment is known.
func (q *Queue) known(s *segment) bool {
	if s.samples < 0 {
		return false
	}
	for _, h := range q.holders {
		if h.next.Segment == s.number && h.read < 0 {
			return false
		}
	}
	return true
}

// learn takes over what was counted of a segment.
func (q *Queue) learn(s *segment, c census) {
	if s.samples < 0 {
		s.samples = c.total
	}
	for _, h := range q.holders {
		if h.next.Segment == s.number && h.read < 0 {
			h.read = min(c.before(h.next.Offset), s.samples)
			if h.next == h.committed {
				h.done = h.read
			}
		}
	}
}

// removeCondemned removes files, and tells whether some could not be removed. They
// are condemned until they are gone: makeRoom waits for them.
func (q *Queue) removeCondemned() (retry bool) {
	q.mu.Lock()
	condemned := slices.Clone(q.condemned)
	mine := q.lock != nil
	q.mu.Unlock()
	for _, s := range condemned {
		err := fs.ErrInvalid
		if mine {
			err = q.erase(q.path(segmentName(s.number)))
		}
		q.mu.Lock()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			q.note("remove", err)
			retry = true
		} else {
			q.condemned = slices.DeleteFunc(q.condemned, func(c *segment) bool { return c == s })
			q.addDisk(-s.end)
			q.newNames = true
			wake(q.room)
		}
		file := q.release(s)
		q.mu.Unlock()
		closeFile(file)
	}
	return retry
}

// erase removes a file, and gives back its space also while a reader that does
// not move has it open.
func (q *Queue) erase(name string) error {
	if file, err := q.cfg.FS.OpenFile(name, os.O_WRONLY|os.O_TRUNC, 0); err == nil {
		closeFile(file)
	}
	return q.cfg.FS.Remove(name)
}

// A census is how many samples a segment has, and where.
type census struct {
	total   int64
	offsets []int64 // of records
	sums    []int64 // before them
}

func (c census) before(offset int64) int64 {
	sum := int64(0)
	for i, o := range c.offsets {
		if o >= offset {
			return c.sums[i]
		}
		sum = c.total
	}
	return sum
}

// count reads the frames of a segment, as far as they make sense.
func (q *Queue) count(s *segment) census {
	var c census
	file, err := q.cfg.FS.OpenFile(q.path(segmentName(s.number)), os.O_RDONLY, 0)
	if err != nil {
		return c
	}
	defer file.Close()
	q.mu.Lock()
	w := window{file: file, limit: s.end}
	q.mu.Unlock()
	for at := int64(headerSize); ; {
		b, err := w.bytes(at, frameSize)
		if err != nil {
			return c
		}
		f, err := parseFrame(b)
		if err != nil || at+frameSize+int64(f.length) > w.limit {
			return c
		}
		c.offsets, c.sums = append(c.offsets, at), append(c.sums, c.total)
		c.total += int64(f.samples)
		at += frameSize + int64(f.length)
	}
}
