package registrar

import (
	"context"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/feed"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// keepFresh makes sure that the view follows the store. A watch may be silent and
// not broken, as that of a member whose disk stands still; what is answered from
// the view, a renewal for one, must not be older than a session lives.
func (r *Registrar) keepFresh(ctx context.Context) error {
	wait := freshInterval
	for pause(ctx, wait) {
		err := r.lookAtStore(ctx)
		lost, stale := r.note(err == nil)
		if lost {
			r.Logger.WarnContext(ctx, "the view does not follow the store any more", "error", err)
			r.release()
		}
		wait = freshInterval
		if stale {
			wait = retryDelay
		}
	}
	return ctx.Err()
}

// lookAtStore asks the store for its revision, and waits until the view shows it.
func (r *Registrar) lookAtStore(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, freshInterval)
	defer cancel()
	revision, err := r.Store.Sync(bounded)
	if err != nil {
		return err
	}
	return r.await(bounded, revision)
}

// note notes whether the view has just been found to show all that the store has.
// It tells whether it is too old now, and has just come to be.
func (r *Registrar) note(shows bool) (lost, stale bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if shows {
		r.fresh = time.Now()
	}
	was := r.stale
	r.stale = r.loaded && time.Since(r.fresh) > sessionTTL
	if was && !r.stale {
		r.advanced()
	}
	return r.stale && !was, r.stale
}

// release sends the subscribers of a registry that has lost its store elsewhere.
func (r *Registrar) release() {
	r.Feed.Release(assignment.GoAway{
		Reason: awayStoreLost, Message: "the registry has lost its store", RetryAfterMax: feed.Spread(r.Feed.Subscribers()),
	}, roster.Refuse(roster.Unavailable, roster.ReasonNotServing, "the registry has lost its store"))
}
