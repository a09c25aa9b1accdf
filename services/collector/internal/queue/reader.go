package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"syscall"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// ErrReader is wrapped when a reader cannot be had: its name is malformed, or
// in use.
var ErrReader = errors.New("no such reader")

func validName(name string) bool {
	return regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`).MatchString(name)
}

// A Reader is a [deliver.Log]: all that is written, for one sink. Next and
// Close are for one goroutine; all else is safe for concurrent use.
type Reader struct {
	q      *Queue
	holder *holder
	woken  chan struct{}
	cursor *cursor
	closed bool // guarded by Queue.mu
}

var _ deliver.Log = (*Reader)(nil)

// Reader begins where the last reader of this name, also one of an earlier
// process, has committed; one with a new name at the end. A name has 1 to 64
// letters, digits, dots, dashes and underscores, and one reader at a time. The
// caller must close it.
func (q *Queue) Reader(name string) (*Reader, error) {
	if !validName(name) {
		return nil, fmt.Errorf("reader %q: %w: malformed name", name, ErrReader)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil, fmt.Errorf("reader %q: %w", name, ErrClosed)
	}
	h := q.holders[name]
	if h == nil {
		h = q.hold(name)
		defer q.waitKept(h)
	} else if h.reader != nil {
		return nil, fmt.Errorf("reader %q: %w: it has one", name, ErrReader)
	}
	h.moved = false
	h.reader = &Reader{q: q, holder: h, woken: make(chan struct{}, 1)}
	q.cfg.Metrics.track(name)
	return h.reader, nil
}

// hold makes a holder that begins at the end.
func (q *Queue) hold(name string) *holder {
	h := &holder{name: name, dropped: make(map[string]int64), dirty: true, kept: make(chan struct{})}
	h.committed = sample.Position{Segment: q.number}
	if s := q.current; s != nil {
		h.committed = sample.Position{Segment: s.number, Offset: s.end}
		h.read, h.done = s.samples, s.samples
	}
	h.next = h.committed
	q.holders[name] = h
	wake(q.toKeep)
	return h
}

// waitKept lets go of Queue.mu until the position of a new holder is in its
// file: a process that is killed before would begin at another end.
func (q *Queue) waitKept(h *holder) {
	if q.lock == nil {
		return
	}
	kept := h.kept
	q.mu.Unlock()
	late := time.NewTimer(q.cfg.StallAfter)
	select {
	case <-kept:
	case <-late.C:
	}
	late.Stop()
	q.mu.Lock()
}

// Forget removes the positions of all sinks but those named, which are of no
// use any more and would hold back all that is written. Those that are being
// read stay.
func (q *Queue) Forget(keep []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	kept := make(map[string]bool, len(keep))
	for _, name := range keep {
		kept[name] = true
	}
	for name, h := range q.holders {
		if kept[name] || h.reader != nil {
			continue
		}
		delete(q.holders, name)
		q.forgotten = append(q.forgotten, h)
		q.cfg.Metrics.dropped.DeletePartialMatch(map[string]string{"sink": name})
	}
	q.settled, q.wantedNames = true, kept
	wake(q.toKeep)
	wake(q.toClean)
}

// Close ends the reader, while no Next is at work. What is not committed will
// be read again by the next one of this name.
func (r *Reader) Close() {
	r.cursor.close()
	r.cursor = nil
	r.q.mu.Lock()
	defer r.q.mu.Unlock()
	if !r.closed {
		r.closed = true
		r.q.takeBack(r.holder)
	}
}

// Commit is that of [deliver.Log].
func (r *Reader) Commit(p sample.Position) {
	q := r.q
	q.mu.Lock()
	defer q.mu.Unlock()
	h := r.holder
	if r.closed {
		return
	}
	before := h.committed
	h.commit(p)
	if h.committed == before {
		return
	}
	if h.committed.Segment != before.Segment {
		wake(q.toClean)
	} else if s := q.segments; len(s) > 0 && s[0].sealed && s[0].number == before.Segment {
		wake(q.toClean)
	}
	wake(q.toKeep)
}

// Lag is that of [deliver.Log].
func (r *Reader) Lag() sample.Lag {
	q := r.q
	q.mu.Lock()
	defer q.mu.Unlock()
	h := r.holder
	lag := sample.Lag{Dropped: maps.Clone(h.dropped)}
	for _, s := range q.segments[q.find(h.committed.Segment):] {
		from := int64(headerSize)
		if s.number == h.committed.Segment {
			from = begin(h.committed.Offset)
		}
		if s.end <= from {
			continue
		}
		if lag.Bytes == 0 {
			lag.Oldest = s.timeAt(from)
		}
		lag.Bytes += s.end - from
	}
	return lag
}

// Next is that of [deliver.Log].
func (r *Reader) Next(ctx context.Context, record *sample.Record) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		c := r.cursor
		if c == nil || c.offset >= c.window.limit {
			if !r.refresh() {
				select {
				case <-ctx.Done():
				case <-r.woken:
					rest(ctx, gather)
				}
				continue
			}
			c = r.cursor
		}
		if r.read(c, record) {
			return nil
		}
	}
}

// gather is how long a reader that has been woken lets more come: to be woken,
// and to read from a file, for each batch costs more than the batch.
const gather = 10 * time.Millisecond

// rest lets time pass, unless ctx ends.
func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// refresh finds out where there is more to read, and tells whether there is.
func (r *Reader) refresh() bool {
	q, h := r.q, r.holder
	q.mu.Lock()
	defer q.mu.Unlock()
	if c := r.cursor; c != nil && !h.moved && !c.segment.gone {
		c.source()
		if c.offset < c.window.limit && (!c.broken || c.segment.sealed) {
			return true
		}
		if !c.segment.sealed {
			return false
		}
		h.next, h.read = sample.Position{Segment: c.segment.number + 1}, 0
	}
	r.cursor.close()
	r.cursor, h.moved = nil, false
	for _, s := range q.segments[q.find(h.next.Segment):] {
		if s.number != h.next.Segment {
			h.next, h.read = sample.Position{Segment: s.number}, 0
		}
		if begin(h.next.Offset) < s.end {
			r.cursor = newCursor(s, h.next.Offset, h.read)
			r.cursor.source()
			return true
		}
		if !s.sealed {
			return false
		}
	}
	return false
}

// read tells whether it has filled a record.
func (r *Reader) read(c *cursor, record *sample.Record) bool {
	if err := c.open(r.q); err != nil {
		if exhausted(err) {
			r.pause(err)
		} else {
			r.abandon(c, err)
		}
		return false
	}
	if c.offset >= c.window.limit {
		return false
	}
	f, payload, err := c.record()
	if err != nil {
		r.abandon(c, err)
		return false
	}
	p, err := c.decoder.decode(payload, int(f.samples), record)
	if err != nil {
		r.abandon(c, err)
		return false
	}
	record.Bytes = frameSize + len(payload)
	return r.take(c, p, record)
}

// exhausted tells of an error that it is the process's and not the disk's: it
// is no reason to give up a segment.
func exhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}

func (r *Reader) pause(err error) {
	r.q.mu.Lock()
	r.q.note("read", err)
	r.q.mu.Unlock()
	time.Sleep(readPause)
}

// take counts a record as read, unless it has been dropped in the meantime.
func (r *Reader) take(c *cursor, p preface, record *sample.Record) bool {
	q, h, s := r.q, r.holder, c.segment
	q.mu.Lock()
	defer q.mu.Unlock()
	if h.moved || s.gone {
		c.offset = c.window.limit // to refresh
		return false
	}
	if s.old {
		s.mark(c.offset, p.time())
	}
	c.offset += int64(record.Bytes)
	c.read += int64(len(record.Points))
	record.End = sample.Position{Segment: s.number, Offset: c.offset}
	h.give(record.End, int64(len(record.Points)), c.read)
	if s.inMemory() || c.window.data == nil {
		c.source()
	}
	return true
}

// abandon gives up the rest of a segment that cannot be read, and counts it.
func (r *Reader) abandon(c *cursor, err error) {
	q, h, s := r.q, r.holder, c.segment
	torn := s.old && (errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errEmpty)) && q.lastOfItsProcess(s)
	q.mu.Lock()
	defer q.mu.Unlock()
	if h.moved || s.gone {
		c.offset = c.window.limit
		return
	}
	if s == q.current {
		q.seal()
	}
	if !s.sealed { // what is at work will be lost, too
		c.broken, c.window.limit = true, c.offset
		return
	}
	if !q.known(s) {
		q.mu.Unlock()
		counted := q.count(s)
		q.mu.Lock()
		q.learn(s, counted)
	}
	if h.moved || s.gone {
		return
	}
	lost := s.samples - max(h.read, 0) - h.corrupt[s.number]
	bytes := s.end - c.offset
	h.skip(s)
	wake(q.toKeep)
	wake(q.toClean)
	c.offset = c.window.limit
	if _, again := h.corrupt[s.number]; again && lost <= 0 {
		return // told when an earlier reader was here
	}
	if torn && lost <= 0 {
		q.cfg.Metrics.torn.Inc()
		q.cfg.Logger.Info("a segment of a killed process ends in a torn record", "segment", s.number, "bytes", bytes, "sink", h.name)
		return
	}
	if h.corrupt == nil {
		h.corrupt = make(map[uint64]int64)
	}
	h.corrupt[s.number] += lost
	q.cfg.Metrics.corrupt.Inc()
	q.cfg.Metrics.corruptBytes.Add(float64(bytes))
	q.dropFor(h, deliver.ReasonCorrupt, lost)
	q.note("read", err)
	q.cfg.Logger.Error("a segment of the queue cannot be read on", "segment", s.number, "offset", s.end-bytes, "bytes", bytes,
		"samples", lost, "sink", h.name, "error", err)
}
