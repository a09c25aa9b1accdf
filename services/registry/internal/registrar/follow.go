package registrar

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// follow loads the roster and keeps to the store's events from there on; anew after
// each loss of them.
func (r *Registrar) follow(ctx context.Context) error {
	for {
		revision, err := r.load(ctx)
		if err == nil {
			err = r.Store.Watch(ctx, revision, func(b roster.Batch) error {
				if err := r.check(b); err != nil {
					return err
				}
				r.apply(b)
				return nil
			})
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, ErrUnreadable):
			return err
		}
		r.Metrics.Reloads.Inc()
		r.Logger.WarnContext(ctx, "lost the store's events, loading anew", "error", err)
		if !pause(ctx, retryDelay) {
			return ctx.Err()
		}
	}
}

// check refuses a batch with a producer that no collector could read.
func (r *Registrar) check(b roster.Batch) error {
	for _, e := range b.Events {
		if err := r.checkRecord(e.Record); err != nil {
			return err
		}
	}
	return nil
}

func (r *Registrar) checkRecord(record roster.Record) error {
	p, ok := record.(*roster.Producer)
	if !ok || r.CheckStored == nil {
		return nil
	}
	if err := r.CheckStored(p.ID, p.Stored); err != nil {
		return fmt.Errorf("%w: producer %q: %w", ErrUnreadable, p.ID, err)
	}
	return nil
}

// load reads the roster beside the old view, swaps them, and tells the feed
// the difference.
func (r *Registrar) load(ctx context.Context) (assignment.Revision, error) {
	start := time.Now()
	view := roster.NewView()
	revision, err := r.Store.Load(ctx, func(f roster.Found) error {
		if err := r.checkRecord(f.Record); err != nil {
			return err
		}
		view.Put(f.Record, f.Revision)
		return nil
	})
	if err != nil {
		return 0, err
	}
	view.Loaded(revision)
	if view.Epoch() == "" || r.rewound(view) {
		if err := r.writeEpoch(ctx, view.EpochRevision(), view.Epoch()); err != nil {
			return 0, err
		}
		return r.load(ctx)
	}
	r.install(view, namesakesOf(view, r.MarksOf))
	r.Logger.InfoContext(ctx, "loaded the roster", "epoch", view.Epoch(), "revision", revision,
		"producers", view.Producers(), "duration", time.Since(start))
	return revision, nil
}

// rewound tells whether the store is older now than this process has seen it.
func (r *Registrar) rewound(view *roster.View) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if !r.loaded {
		return false
	}
	return r.view.Epoch() == view.Epoch() && r.view.Revision() > view.Revision() ||
		younger(r.view.Epoch(), view.Epoch(), time.Now())
}

// install swaps in a view that was loaded, with its namesakes.
func (r *Registrar) install(view *roster.View, names *namesakes) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.view
	r.view, r.names = view, names
	r.arrivals.reload(view)
	if r.loaded && old.Epoch() != view.Epoch() {
		r.began = time.Now()
	}
	switch {
	case !r.loaded || old.Epoch() != view.Epoch() || old.Revision() > view.Revision():
		r.Feed.Load(view.Epoch(), view.Revision(), members(view),
			roster.Refuse(roster.Unavailable, roster.ReasonEpochChanged, "the registry's store has another history now"))
	default:
		r.Feed.Apply(view.Revision(), feedChanges(roster.Diff(old, view)))
		for c := range view.Collectors {
			r.keepSession(c.Collector.ID)
		}
	}
	r.loaded, r.fresh = true, time.Now()
	for c := range view.Collectors {
		r.noteAway(c.Collector.ID)
	}
	r.Metrics.observeCollectors(view)
	r.advanced()
}

// apply takes a batch of events into the view and the feed.
func (r *Registrar) apply(b roster.Batch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	after := r.follows(b)
	effects := r.view.Apply(b)
	after()
	if effects.Epoch {
		r.began = time.Now()
		r.Feed.Load(r.view.Epoch(), r.view.Revision(), members(r.view),
			roster.Refuse(roster.Unavailable, roster.ReasonEpochChanged, "the registry's store has a new epoch"))
	} else {
		r.Feed.Apply(b.Revision, feedChanges(effects.Changes))
	}
	for _, id := range effects.Sessions {
		r.keepSession(id)
		r.noteAway(id)
	}
	if effects.Collectors {
		r.Metrics.observeCollectors(r.view)
	}
	r.advanced()
}

// keepSession ends the streams of a collector but the one whose session stands.
func (r *Registrar) keepSession(id assignment.CollectorID) {
	c := r.view.Collector(id)
	if c == nil || c.Session == nil {
		r.Feed.Keep(id, "", roster.Refuse(roster.Unavailable, roster.ReasonNotServing, "the subscription's session was lost"))
		return
	}
	r.Feed.Keep(id, c.Session.SubscriptionID, roster.Refuse(roster.Aborted, roster.ReasonSuperseded,
		"collector %q: another subscription has taken over, generation %d of instance %q", id, c.Session.Generation, c.Session.Instance))
}
