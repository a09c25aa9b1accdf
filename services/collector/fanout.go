package collector

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/queue"
)

// A fanout takes what is collected to the embedded store and to the queue. Each
// counts and tells what it could not take itself: one that fails takes nothing
// from the other. It is safe for concurrent use.
type fanout struct {
	store Sink // nil for none
	queue atomic.Pointer[queue.Queue]
}

// Write stores a batch. It fails when nobody has taken it: the collection is
// then one that failed.
func (f *fanout) Write(ctx context.Context, b *Batch) error {
	q := f.queue.Load()
	switch {
	case q == nil && f.store == nil:
		return errors.New("there is neither a store nor a sink")
	case q == nil:
		return f.store.Write(ctx, b)
	case f.store == nil:
		return q.Write(ctx, b)
	}
	// The queue first: it is the faster one, and the store may use up ctx.
	queued := q.Write(ctx, b)
	stored := f.store.Write(ctx, b)
	if queued != nil && stored != nil {
		return errors.Join(queued, stored)
	}
	return nil
}
