package queue

import (
	"errors"
	"os"
	"slices"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// trouble is what is wrong with the disk. It is guarded by Queue.mu.
type trouble struct {
	// failing: batches go to memory. unsynced: the last sync failed.
	failing, unsynced bool

	// last is what was wrong last, at some time.
	last error
	at   time.Time

	// told is what the log was last told, by operation, until something works.
	told map[string]string
}

// note remembers an error of the disk, and logs it unless it is that of the time
// before.
func (q *Queue) note(op string, err error) {
	q.trouble.last, q.trouble.at = err, time.Now()
	q.cfg.Metrics.errors.WithLabelValues(op).Inc()
	if q.trouble.told[op] == err.Error() {
		return
	}
	if q.trouble.told == nil {
		q.trouble.told = make(map[string]string)
	}
	q.trouble.told[op] = err.Error()
	q.cfg.Logger.Error("the queue's disk fails", "operation", op, "error", err, "dir", q.cfg.Dir)
}

// fail lets all batches go to memory from now on, those at work included.
func (q *Queue) fail(op string, err error) {
	q.note(op, err)
	if !q.trouble.failing {
		q.cfg.Logger.Error("samples are queued in memory, and lost if the process dies", "dir", q.cfg.Dir)
	}
	q.trouble.failing = true
	q.cfg.Metrics.failing.Set(1)
	at := q.pending
	if q.inflight != nil {
		at = append(at, q.inflight)
	}
	q.pending, q.inflight, q.begun = nil, nil, time.Time{}
	q.seal()
	for _, c := range at {
		c.segment.chunks--
		c.over, c.failed = true, true
		close(c.done)
		q.finish(c.segment)
	}
	q.segments = slices.DeleteFunc(q.segments, func(s *segment) bool {
		s.gone = s.gone || s.sealed && s.end == 0
		return s.gone
	})
	wake(q.toWrite)
}

// appendMemory puts a batch into a segment in memory.
func (q *Queue) appendMemory(b *sample.Batch, now time.Time) error {
	s := q.current
	if s == nil || s.full(q.cfg.memorySegment(), now) {
		s = q.beginSegment(now)
		s.data = header{s.number, q.session, now.UnixMilli()}.append(nil)
		s.end = headerSize
		q.addMemory(int64(cap(s.data)))
	}
	before := cap(s.data)
	data := s.encoder.append(s.data, b, now.UnixMilli())
	if len(data)-len(s.data) > q.cfg.maxRecord() {
		q.renounce(s)
		return errTooLarge
	}
	s.mark(s.end, now)
	s.data, s.end, s.size = data, int64(len(data)), int64(len(data))
	s.samples += int64(len(b.Samples))
	q.addMemory(int64(cap(data) - before))
	q.cfg.Metrics.wrote(1, int64(len(b.Samples)), 0)
	for q.memoryBytes > q.cfg.MemoryBytes {
		oldest := q.oldestInMemory()
		if oldest == q.current {
			q.seal()
		}
		q.drop(oldest)
	}
	q.wakeReaders()
	return nil
}

func (q *Queue) oldestInMemory() *segment {
	for _, s := range q.segments {
		if s.inMemory() {
			return s
		}
	}
	return nil
}

// restore tries whether the disk works again: it writes out what is in memory,
// the oldest first, and if that goes well, batches go to the disk again. The
// little that came in the meantime is written by the writer thereafter.
func (q *Queue) restore() {
	if err := q.claim(); err != nil {
		q.mu.Lock()
		q.note("open", err)
		q.mu.Unlock()
		return
	}
	const enough = 1 << 20
	for tried := false; ; tried = true {
		q.mu.Lock()
		s, left := q.oldestInMemory(), q.memoryBytes
		if s != nil && s == q.current {
			q.seal()
		}
		q.mu.Unlock()
		if s == nil || tried && left < enough {
			break
		}
		if op, err := q.export(s); err != nil {
			q.mu.Lock()
			q.note(op, err)
			q.mu.Unlock()
			return
		}
	}
	if op, err := q.probe(); err != nil {
		q.mu.Lock()
		q.note(op, err)
		q.mu.Unlock()
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.seal()
	q.trouble.failing, q.trouble.told = false, nil
	q.cfg.Metrics.failing.Set(0)
	q.cfg.Logger.Info("the queue's disk works again", "dir", q.cfg.Dir)
}

// probeName is a file that is written and removed, to see what the disk says.
const probeName = "probe"

func (q *Queue) probe() (op string, err error) {
	file, err := q.cfg.FS.OpenFile(q.path(probeName), os.O_RDWR|os.O_CREATE|os.O_TRUNC, fileMode)
	if err != nil {
		return "create", err
	}
	_, err = file.WriteAt(make([]byte, 4096), 0)
	return "write", errors.Join(err, file.Close(), q.cfg.FS.Remove(q.path(probeName)))
}

// bringOut is export, while others may wait for the writer.
func (q *Queue) bringOut(s *segment) {
	op, err := q.export(s)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.begun = time.Time{}
	if err != nil {
		q.fail(op, err)
	}
}

// export writes a sealed segment that is in memory to the disk.
func (q *Queue) export(s *segment) (op string, err error) {
	q.mu.Lock()
	data := s.data
	q.mu.Unlock()
	size := int64(len(data))
	if err := q.makeRoom(size); err != nil {
		return "room", err
	}
	name := q.path(segmentName(s.number))
	file, err := q.cfg.FS.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, fileMode)
	if err != nil {
		return "create", err
	}
	if _, err = file.WriteAt(data, 0); err != nil {
		return "write", errors.Join(err, file.Close(), q.cfg.FS.Remove(name))
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	s.file, q.newNames = file, true
	q.addDisk(size)
	if s.gone { // dropped, or committed, in the meantime
		q.condemned = append(q.condemned, s)
		wake(q.toClean)
		return "", nil
	}
	s.data = nil
	q.addMemory(-int64(cap(data)))
	q.soil(s, time.Now())
	return "", nil
}
