package sink

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// ErrStalled says that the store does not answer: the disk holds a write. What
// became of the batch is not known then.
var ErrStalled = errors.New("the sample store is stalled")

// lanes write batches for callers who must not be held by a disk that hangs. A
// batch is copied and handed to a goroutine, of which there is a fixed number;
// the caller waits for it, but not for long. While a batch that was given up is
// still being written, no other one is begun: every caller is refused at once.
// So at most as many batches are stuck as there are goroutines.
type lanes struct {
	write func(*sample.Batch) (Refused, error)
	wait  time.Duration

	// stalled is told the first of what is given up in a row.
	stalled func()

	trips chan *trip
	stop  chan struct{}
	stuck atomic.Int64 // batches that were given up and are still at work
	spare sync.Pool    // of *trip
}

// A trip is one batch on its way.
type trip struct {
	batch  sample.Batch
	timer  *time.Timer
	done   chan arrival // takes one
	parted atomic.Bool  // set by whoever is first: who writes, or who waits
}

type arrival struct {
	refused Refused
	err     error
}

// maxSpare is how many samples the copy of a batch may have to be used again.
const maxSpare = 10_000

// newLanes starts n goroutines; close ends them.
func newLanes(n int, wait time.Duration, write func(*sample.Batch) (Refused, error), stalled func()) *lanes {
	l := &lanes{write: write, wait: wait, stalled: stalled, trips: make(chan *trip), stop: make(chan struct{})}
	l.spare.New = func() any { return &trip{done: make(chan arrival, 1), timer: time.NewTimer(wait)} }
	for range n {
		go l.run()
	}
	return l
}

// close ends the goroutines that write nothing, and the others when they have
// done so. It is called once.
func (l *lanes) close() { close(l.stop) }

func (l *lanes) run() {
	for {
		select {
		case t := <-l.trips:
			refused, err := l.writeGuarded(&t.batch)
			if t.parted.CompareAndSwap(false, true) {
				t.done <- arrival{refused, err}
				continue
			}
			l.stuck.Add(-1)
		case <-l.stop:
			return
		}
	}
}

// writeGuarded is write, of which a panic is an error.
func (l *lanes) writeGuarded(b *sample.Batch) (refused Refused, err error) {
	defer func() {
		if v := recover(); v != nil {
			refused, err = Refused{}, fmt.Errorf("%w: panic: %v", errStore, v)
		}
	}()
	return l.write(b)
}

// send has a batch written and waits for what comes of it. The batch is the
// caller's again when it returns, whatever it returns.
func (l *lanes) send(ctx context.Context, b *sample.Batch) (Refused, error) {
	if l.stuck.Load() > 0 {
		return Refused{}, ErrStalled
	}
	t, _ := l.spare.Get().(*trip)
	t.parted.Store(false)
	t.batch.Source = b.Source
	t.batch.Samples = append(t.batch.Samples[:0], b.Samples...)
	t.timer.Reset(l.wait)
	select {
	case l.trips <- t:
	case <-t.timer.C:
		l.keep(t)
		l.stalled()
		return Refused{}, ErrStalled
	case <-ctx.Done():
		l.keep(t)
		return Refused{}, ctx.Err()
	case <-l.stop:
		l.keep(t)
		return Refused{}, ErrClosed
	}
	return l.await(ctx, t)
}

// await waits for a batch that is being written.
func (l *lanes) await(ctx context.Context, t *trip) (Refused, error) {
	var err error
	select {
	case a := <-t.done:
		l.keep(t)
		return a.refused, a.err
	case <-t.timer.C:
		err = ErrStalled
	case <-ctx.Done():
		err = fmt.Errorf("%w: %w", ErrStalled, ctx.Err())
	}
	l.stuck.Add(1) // before it is given up: whoever writes takes it back
	if !t.parted.CompareAndSwap(false, true) {
		l.stuck.Add(-1)
		a := <-t.done
		l.keep(t)
		return a.refused, a.err
	}
	l.stalled()
	return Refused{}, err
}

// keep makes a trip ready for another batch.
func (l *lanes) keep(t *trip) {
	t.timer.Stop()
	clear(t.batch.Samples) // they hold series
	if cap(t.batch.Samples) <= maxSpare {
		l.spare.Put(t)
	}
}
