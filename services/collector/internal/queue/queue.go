package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// A Queue is a log of batches with many writers and one position for each sink.
// It is safe for concurrent use. Use Open.
type Queue struct {
	cfg     Config
	session int64

	// Each wakes a goroutine: the writer, the syncer, the keeper of positions and
	// the cleaner; room tells the writer that there is more.
	toWrite, toSync, toKeep, toClean, room chan struct{}

	// stop ends all but the writer, written tells that that one has ended.
	stop    chan struct{}
	written chan struct{}
	others  sync.WaitGroup

	mu sync.Mutex // guards all below, and what segments and holders say

	lock     io.Closer // nil while the directory is not ours
	closed   bool
	segments []*segment // by number
	current  *segment   // takes batches; nil when the next one begins another
	number   uint64     // of the next segment

	pending  []*chunk
	inflight *chunk
	begun    time.Time // when the writer began what others wait for; or zero
	spare    [][]byte  // for the next chunks

	// condemned are to be removed, forgotten are the names of holders that are.
	condemned []*segment
	forgotten []*holder
	holders   map[string]*holder
	settled   bool // Forget was called, with wantedNames
	newNames  bool // since the directory was synced
	wanted    int64

	wantedNames map[string]bool

	diskBytes, memoryBytes int64
	trouble                trouble
}

// A chunk is bytes of one segment that are written together.
type chunk struct {
	segment *segment
	buf     []byte
	begun   time.Time
	samples int64
	batches int

	// done is closed when over; then failed tells whether the disk has it.
	done   chan struct{}
	over   bool
	failed bool
}

// Open opens a queue. It reads no segment. It fails when another process uses
// the directory (ErrLocked), and when the configuration is nonsense; of a disk
// that does not work the log and Status tell. The caller must close it.
func Open(cfg Config) (*Queue, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	q := &Queue{
		cfg:     cfg,
		session: time.Now().UnixNano(),
		toWrite: make(chan struct{}, 1),
		toSync:  make(chan struct{}, 1),
		toKeep:  make(chan struct{}, 1),
		toClean: make(chan struct{}, 1),
		room:    make(chan struct{}, 1),
		stop:    make(chan struct{}),
		written: make(chan struct{}),
		number:  1,
		holders: make(map[string]*holder),
	}
	if err := q.claim(); err != nil {
		if errors.Is(err, ErrLocked) {
			return nil, fmt.Errorf("queue %s: %w", cfg.Dir, err)
		}
		q.mu.Lock()
		q.fail("open", err)
		q.mu.Unlock()
	}
	cfg.Metrics.observe(q)
	go q.write()
	for _, work := range []func(){q.sync, q.keep, q.clean} {
		q.others.Go(work)
	}
	wake(q.toClean)
	return q, nil
}

// wake lets a goroutine go round once more, at least.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Write appends a batch. It returns nil when the batch is in the file of a
// segment, or, while the disk fails, in memory; it is synced at most
// Config.SyncInterval later. When ctx ends before, the batch is in the log or
// it is not. No other errors than that of ctx and ErrClosed.
//
// A batch that is more than one record can hold (4 Mi samples, 64 MiB, or a
// quarter of the queue) becomes several. A sample that is so by itself is
// dropped, and counted for each sink.
func (q *Queue) Write(ctx context.Context, b *sample.Batch) error {
	if err := q.writeParts(ctx, b); err != nil {
		return fmt.Errorf("write batch: %w", err)
	}
	return nil
}

// writeParts writes a batch as one record if that can be, else in halves.
func (q *Queue) writeParts(ctx context.Context, b *sample.Batch) error {
	err := errTooLarge
	if len(b.Samples) <= maxSamples {
		err = q.writeRecord(ctx, b)
	}
	switch n := len(b.Samples); {
	case !errors.Is(err, errTooLarge):
		return err
	case n == 1:
		q.refuse(b)
		return nil
	default:
		err := q.writeParts(ctx, &sample.Batch{Source: b.Source, Samples: b.Samples[:n/2]})
		if err != nil {
			return err
		}
		return q.writeParts(ctx, &sample.Batch{Source: b.Source, Samples: b.Samples[n/2:]})
	}
}

// writeRecord writes one record.
func (q *Queue) writeRecord(ctx context.Context, b *sample.Batch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for len(b.Samples) > 0 {
		c, err := q.append(b)
		if c == nil {
			return err
		}
		select {
		case <-c.done:
			if !c.failed {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// refuse counts the sample of a batch that is larger than a record can be.
func (q *Queue) refuse(b *sample.Batch) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, h := range q.holders {
		q.dropFor(h, deliver.ReasonTooLarge, 1)
	}
	q.cfg.Logger.Warn("a sample is too large for the queue", "source", b.Source, "most_bytes", q.cfg.maxRecord())
}

// append encodes a batch into the chunk that is written next; or into memory,
// then the result is nil.
func (q *Queue) append(b *sample.Batch) (*chunk, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return nil, ErrClosed
	case q.settled && len(q.holders) == 0:
		return nil, nil // for nobody
	}
	now := time.Now()
	if q.trouble.failing {
		return nil, q.appendMemory(b, now)
	}
	s := q.current
	if s == nil || s.full(q.cfg.SegmentBytes, now) {
		s = q.beginSegment(now)
	}
	c := q.chunk(s, now)
	from := len(c.buf)
	if c.buf = s.encoder.append(c.buf, b, now.UnixMilli()); len(c.buf)-from > q.cfg.maxRecord() {
		c.buf = c.buf[:from]
		q.renounce(s)
		return nil, errTooLarge
	}
	s.size += int64(len(c.buf) - from)
	c.samples += int64(len(b.Samples))
	c.batches++
	wake(q.toWrite)
	return c, nil
}

// chunk is the last one, if it takes more of a segment, or a new one.
func (q *Queue) chunk(s *segment, now time.Time) *chunk {
	if n := len(q.pending); n > 0 && q.pending[n-1].segment == s {
		return q.pending[n-1]
	}
	c := &chunk{segment: s, begun: now, done: make(chan struct{})}
	if n := len(q.spare); n > 0 {
		c.buf, q.spare = q.spare[n-1][:0], q.spare[:n-1]
	}
	if s.size == 0 {
		c.buf = header{s.number, q.session, now.UnixMilli()}.append(c.buf)
		s.size = headerSize
	}
	s.chunks++
	q.pending = append(q.pending, c)
	return c
}

// beginSegment ends the current segment and begins another.
func (q *Queue) beginSegment(now time.Time) *segment {
	q.seal()
	e := newEncoder()
	s := &segment{number: q.number, encoder: e, table: e.table, begun: now}
	q.number++
	q.segments = append(q.segments, s)
	q.current = s
	q.cfg.Metrics.segments.Set(float64(len(q.segments)))
	return s
}

// seal lets the current segment take no more batches.
func (q *Queue) seal() {
	s := q.current
	if s == nil {
		return
	}
	q.current, s.encoder = nil, nil
	q.finish(s)
}

// renounce takes from a segment a record that it does not get: its encoder would
// count on definitions that nobody will see.
func (q *Queue) renounce(s *segment) {
	if s.size > headerSize {
		q.seal()
		return
	}
	e := newEncoder()
	s.encoder, s.table = e, e.table // which no reader has, before there is a record
}

// finish seals a segment for which nothing is at work any more.
func (q *Queue) finish(s *segment) {
	if s.encoder != nil || s.chunks > 0 || s.sealed {
		return
	}
	s.sealed, s.table = true, nil
	q.wakeReaders()
	wake(q.toClean)
	wake(q.toSync)
}

func (q *Queue) wakeReaders() {
	for _, h := range q.holders {
		if h.reader != nil {
			wake(h.reader.woken)
		}
	}
}

// find is the place in segments of the first one with at least that number.
func (q *Queue) find(number uint64) int {
	i, _ := slices.BinarySearchFunc(q.segments, number, func(s *segment, n uint64) int {
		switch {
		case s.number < n:
			return -1
		case s.number > n:
			return 1
		}
		return 0
	})
	return i
}

// Close writes out what can be written, and lets go of the directory. It takes
// a few times Config.StallAfter at most. The error tells of what did not get
// to the disk.
func (q *Queue) Close() error {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return nil
	}
	q.closed = true
	q.seal()
	q.mu.Unlock()
	wake(q.toWrite)

	late := time.NewTimer(5 * q.cfg.StallAfter)
	defer late.Stop()
	var errs []error
	select {
	case <-q.written:
	case <-late.C:
		errs = append(errs, errStalled)
		late.Reset(q.cfg.StallAfter)
	}
	close(q.stop)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		q.others.Wait()
	}()
	select {
	case <-ended:
	case <-late.C:
		errs = append(errs, errStalled)
	}
	return errors.Join(append(errs, q.letGo())...)
}

// letGo is the end of Close.
func (q *Queue) letGo() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	var errs []error
	if q.memoryBytes > 0 {
		errs = append(errs, fmt.Errorf("queue %s: %d bytes are lost, which were in memory only", q.cfg.Dir, q.memoryBytes))
	}
	for _, h := range q.holders {
		closeFile(h.file)
		h.file = nil
	}
	if q.lock != nil {
		errs = append(errs, q.lock.Close())
	}
	return errors.Join(errs...)
}
