package registrar

import (
	"context"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// A waiter waits for the view to show a revision. Each is woken once, when it
// does: a thousand collectors that subscribe at once wait for a thousand
// revisions, and would all be woken by every one of them.
type waiter struct {
	revision assignment.Revision
	reached  chan struct{} // closed by advanced
}

// advanced wakes whoever waits for what the view shows now. The caller holds mu.
func (r *Registrar) advanced() {
	close(r.moved)
	r.moved = make(chan struct{})
	for w := range r.waiting {
		if r.view.Revision() >= w.revision {
			close(w.reached)
			delete(r.waiting, w)
		}
	}
	r.Metrics.observe(r.view)
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// await waits until the view has reached a revision.
func (r *Registrar) await(ctx context.Context, revision assignment.Revision) error {
	r.mu.Lock()
	if r.view.Revision() >= revision {
		r.mu.Unlock()
		return nil
	}
	w := &waiter{revision: revision, reached: make(chan struct{})}
	r.waiting[w] = struct{}{}
	r.mu.Unlock()
	select {
	case <-w.reached:
		return nil
	case <-ctx.Done():
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.waiting, w)
		return context.Cause(ctx)
	}
}

// catchUp waits until the view shows at least a revision, for a bounded time.
func (r *Registrar) catchUp(ctx context.Context, revision assignment.Revision) error {
	r.mu.RLock()
	at := r.view.Revision()
	r.mu.RUnlock()
	if at >= revision {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, catchUpWait)
	defer cancel()
	if _, err := r.Store.Sync(bounded); err != nil {
		return roster.Refuse(roster.Unavailable, roster.ReasonBehind, "the store does not answer; try another replica")
	}
	if err := r.await(bounded, revision); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return roster.Refuse(roster.Unavailable, roster.ReasonBehind, "behind revision %d; try another replica", revision)
	}
	return nil
}
