package queue

import (
	"errors"
	"os"
	"time"
)

var (
	// errStalled is what a write is taken to have failed with that has not
	// returned.
	errStalled = errors.New("the disk has stalled")

	errNoRoom = errors.New("the oldest segments could not be removed in time")
)

// write is the goroutine that writes segments, and the only one that a write
// that never returns holds up.
func (q *Queue) write() {
	defer close(q.written)
	retry := time.NewTimer(retryInterval)
	defer retry.Stop()
	// What takes too long is given up by another goroutine.
	watch := time.AfterFunc(q.cfg.StallAfter, q.giveUp)
	defer watch.Stop()
	last := false
	for {
		q.mu.Lock()
		failing, closed, exported := q.trouble.failing, q.closed, q.oldestInMemory()
		var c *chunk
		if !failing && exported == nil {
			c = q.nextChunk()
		}
		if c != nil || !failing && exported != nil {
			q.begun = time.Now()
			watch.Reset(q.cfg.StallAfter) // later than begun, as giveUp expects
		}
		q.mu.Unlock()
		switch {
		case c != nil:
			q.put(c)
			continue
		case !failing && exported != nil:
			q.bringOut(exported)
			continue
		case closed && (!failing || last):
			return
		case closed:
			last = true
			q.restore()
			continue
		}
		watch.Stop()
		if failing {
			retry.Reset(retryInterval)
		} else {
			retry.Stop()
		}
		select {
		case <-q.toWrite:
			continue // a closed queue, or one that works
		case <-retry.C:
			q.restore()
		}
	}
}

// nextChunk takes what is to be written next.
func (q *Queue) nextChunk() *chunk {
	if len(q.pending) == 0 {
		return nil
	}
	c := q.pending[0]
	q.pending = q.pending[:copy(q.pending, q.pending[1:])]
	q.inflight = c
	c.segment.writing = true
	return c
}

// giveUp fails what the writer has been at for too long.
func (q *Queue) giveUp() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.begun.IsZero() && time.Since(q.begun) >= q.cfg.StallAfter {
		q.fail("write", errStalled)
	}
}

// put writes a chunk, which may be given up before it is done.
func (q *Queue) put(c *chunk) {
	op, err := q.store(c)

	q.mu.Lock()
	q.begun = time.Time{}
	switch {
	case c.over: // given up
	case err != nil:
		q.fail(op, err)
	default:
		q.confirm(c)
	}
	s := c.segment
	s.writing = c.failed // until it is cut
	file := q.release(s)
	q.mu.Unlock()
	closeFile(file)
	if c.failed {
		q.cut(s)
	}
}

// store writes a chunk behind what is confirmed of its segment.
func (q *Queue) store(c *chunk) (op string, err error) {
	if err := q.makeRoom(int64(len(c.buf))); err != nil {
		return "room", err
	}
	s := c.segment
	q.mu.Lock()
	file, end := s.file, s.end
	q.mu.Unlock()
	if file == nil {
		file, err = q.cfg.FS.OpenFile(q.path(segmentName(s.number)), os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
		if err != nil {
			return "create", err
		}
		q.mu.Lock()
		s.file, q.newNames = file, true
		q.mu.Unlock()
	}
	_, err = file.WriteAt(c.buf, end)
	return "write", err
}

// confirm lets readers and writers know that a chunk is on the disk.
func (q *Queue) confirm(c *chunk) {
	s := c.segment
	s.mark(begin(s.end), c.begun)
	s.end += int64(len(c.buf))
	s.samples += c.samples
	s.chunks--
	q.inflight = nil
	q.addDisk(int64(len(c.buf)))
	q.soil(s, c.begun)
	if cap(c.buf) <= 1<<20 && len(q.spare) < 2 {
		q.spare = append(q.spare, c.buf)
	}
	q.cfg.Metrics.wrote(c.batches, c.samples, len(c.buf))
	c.over = true
	close(c.done)
	q.wakeReaders()
	q.finish(s)
	if q.overCap() {
		wake(q.toClean)
	}
}

// cut takes away what a failed write may have left behind the confirmed end of
// a segment, as far as the disk lets it: who reads it after a restart gets
// samples twice.
func (q *Queue) cut(s *segment) {
	q.mu.Lock()
	file, end := s.file, s.end
	q.mu.Unlock()
	var err error
	if file != nil && end == 0 {
		err = q.cfg.FS.Remove(q.path(segmentName(s.number)))
	} else if file != nil {
		err = file.Truncate(end)
	}
	q.mu.Lock()
	if err != nil {
		q.note("truncate", err)
	}
	s.writing = false
	file = q.release(s)
	q.mu.Unlock()
	closeFile(file)
}

// makeRoom waits until so many bytes more are within the cap, or nothing can be
// dropped to make it so.
func (q *Queue) makeRoom(n int64) error {
	var late *time.Timer
	for {
		q.mu.Lock()
		fits := q.diskBytes+n <= q.cfg.MaxBytes || len(q.condemned) == 0 && q.oldestOnDisk() == nil
		q.wanted = n
		q.mu.Unlock()
		if fits {
			if late != nil {
				late.Stop()
			}
			return nil
		}
		if late == nil {
			late = time.NewTimer(q.cfg.StallAfter)
		}
		wake(q.toClean)
		select {
		case <-q.room:
		case <-late.C:
			return errNoRoom
		}
	}
}

// release is a file that is to be closed, or nil: nobody will write or sync it
// any more.
func (q *Queue) release(s *segment) File {
	if !s.sealed || s.writing || s.syncing || !s.dirty.IsZero() {
		return nil
	}
	file := s.file
	s.file = nil
	return file
}

func closeFile(file File) {
	if file != nil {
		_ = file.Close() // synced, or given up
	}
}

func (q *Queue) addDisk(n int64) {
	q.diskBytes += n
	q.cfg.Metrics.diskBytes.Set(float64(q.diskBytes))
}

func (q *Queue) addMemory(n int64) {
	q.memoryBytes += n
	q.cfg.Metrics.memoryBytes.Set(float64(q.memoryBytes))
}
