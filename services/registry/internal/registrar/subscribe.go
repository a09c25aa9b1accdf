package registrar

import (
	"context"
	"strconv"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/feed"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// Subscribe is the command of a collector that wants its assignments.
type Subscribe struct {
	Collector   assignment.CollectorID
	Instance    assignment.InstanceID
	Generation  assignment.Generation
	MinRevision assignment.Revision
	Accepted    *assignment.Accepted
	Observe     bool

	// Admit, if set, is asked whether a first snapshot of so many assignments may
	// be sent: before anything is written, and again when it is made. Its error is
	// that of Subscribe or of the stream.
	Admit func(assignments int) error
}

// A Stream is a subscription with its session.
type Stream struct {
	*feed.Subscription
	registrar *Registrar
	collector assignment.CollectorID
}

// Subscribe opens a subscription. The caller must Close it.
func (r *Registrar) Subscribe(ctx context.Context, cmd Subscribe) (*Stream, error) {
	if err := r.notBehind(ctx, cmd); err != nil {
		return nil, err
	}
	if cmd.Admit != nil {
		// One that is turned away writes no session: a herd of them would be two
		// commits each.
		if err := cmd.Admit(r.Feed.Missing(cmd.Collector, cmd.Accepted)); err != nil {
			return nil, err
		}
	}
	request := feed.Request{
		Collector: cmd.Collector, ID: r.openSubscription(), Accepted: cmd.Accepted, Observer: cmd.Observe, Admit: cmd.Admit,
	}
	stream, err := r.enter(ctx, cmd, request)
	if err != nil {
		r.closeSession(ctx, cmd.Collector, request.ID)
		return nil, err
	}
	return stream, nil
}

// enter writes the session, unless it is for an observer, and joins the feed.
// After an error the session may stand all the same.
func (r *Registrar) enter(ctx context.Context, cmd Subscribe, request feed.Request) (*Stream, error) {
	if cmd.Observe {
		return r.join(cmd, request)
	}
	session := roster.Session{
		Collector:      cmd.Collector,
		SubscriptionID: request.ID,
		Instance:       cmd.Instance,
		Generation:     cmd.Generation,
		Registry:       r.Instance,
		ConnectTime:    time.Now(),
	}
	_, revision, err := r.execute(ctx, func(time.Time) (roster.Txn, error) { return r.view.OpenSession(session) })
	if err != nil {
		return nil, err
	}
	if err := r.catchUp(ctx, revision); err != nil {
		return nil, err
	}
	return r.join(cmd, request)
}

// join enters the feed, at a moment when the session stands.
func (r *Registrar) join(cmd Subscribe, request feed.Request) (*Stream, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if err := r.serving(); err != nil {
		return nil, err
	}
	c := r.view.Collector(cmd.Collector)
	if c == nil {
		return nil, roster.Refuse(roster.NotFound, roster.ReasonUnknownCollector, "collector %q has never registered", cmd.Collector)
	}
	if !cmd.Observe && (c.Session == nil || c.Session.SubscriptionID != request.ID) {
		return nil, roster.Refuse(roster.Aborted, roster.ReasonSuperseded, "collector %q: another subscription has taken over", cmd.Collector)
	}
	return &Stream{
		Subscription: r.Feed.Subscribe(request),
		registrar:    r,
		collector:    cmd.Collector,
	}, nil
}

// Close ends the subscription and its session.
func (s *Stream) Close(ctx context.Context) {
	s.Subscription.Close()
	s.registrar.closeSession(ctx, s.collector, s.ID())
}

// openSubscription names a subscription, whose session is left alone until
// closeSession.
func (r *Registrar) openSubscription() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ordinal++
	id := string(r.Instance) + "-" + strconv.FormatInt(r.ordinal, 10)
	r.open[id] = struct{}{}
	return id
}

// closeSession takes a session off the store, if it still stands. When that
// fails, or the view does not show it yet, closeGhosts makes it good.
func (r *Registrar) closeSession(ctx context.Context, collector assignment.CollectorID, subscription string) {
	r.mu.Lock()
	delete(r.open, subscription)
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWait)
	defer cancel()
	_, _, err := r.execute(ctx, func(time.Time) (roster.Txn, error) {
		return r.view.CloseSession(collector, subscription), nil
	})
	if err != nil {
		r.Logger.DebugContext(ctx, "left a session behind", "collector", collector, "error", err)
	}
}

// closeGhosts closes, from time to time, sessions of this process that have no
// subscription: their collectors would count as live.
func (r *Registrar) closeGhosts(ctx context.Context) error {
	for pause(ctx, ghostInterval) {
		var ghosts []*roster.Session
		r.mu.RLock()
		for c := range r.view.Collectors {
			if s := c.Session; s != nil && s.Registry == r.Instance {
				if _, open := r.open[s.SubscriptionID]; !open {
					ghosts = append(ghosts, s)
				}
			}
		}
		r.mu.RUnlock()
		for _, s := range ghosts {
			r.closeSession(ctx, s.Collector, s.SubscriptionID)
		}
	}
	return ctx.Err()
}

// notBehind makes sure that the view shows all that the subscriber has seen
// already, and that the epoch is what the store says now.
func (r *Registrar) notBehind(ctx context.Context, cmd Subscribe) error {
	r.mu.RLock()
	err, epoch := r.serving(), r.view.Epoch()
	r.mu.RUnlock()
	if err != nil {
		return err
	}
	want, accepted := cmd.MinRevision, cmd.Accepted
	if accepted != nil && accepted.Epoch != epoch {
		// Perhaps the subscriber knows a newer epoch than this view.
		if epoch, err = r.currentEpoch(ctx); err != nil {
			return err
		}
	}
	if accepted != nil && younger(accepted.Epoch, epoch, time.Now()) {
		if r.believes(cmd) {
			r.checkSetBack(ctx, cmd.Collector, epoch, accepted.Epoch)
		}
		return roster.Refuse(roster.Unavailable, roster.ReasonBehind, "the store is of an epoch before the subscriber's; try another replica")
	}
	if accepted == nil || accepted.Epoch != epoch {
		return r.catchUp(ctx, want)
	}
	err = r.catchUp(ctx, max(want, accepted.Revision))
	if err != nil && r.believes(cmd) {
		r.checkRewound(ctx, cmd.Collector, epoch, accepted.Revision)
	}
	return err
}

// currentEpoch is that of the store, once the view shows it.
func (r *Registrar) currentEpoch(ctx context.Context) (assignment.Epoch, error) {
	bounded, cancel := context.WithTimeout(ctx, catchUpWait)
	defer cancel()
	now, err := r.Store.Sync(bounded)
	if err != nil {
		return "", roster.Refuse(roster.Unavailable, roster.ReasonBehind, "the store does not answer; try another replica")
	}
	if err := r.catchUp(ctx, now); err != nil {
		return "", err
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.view.Epoch(), nil
}

// believes tells whether the subscriber is the collector that it says it is:
// what an observer or a stranger makes up must not begin an epoch.
func (r *Registrar) believes(cmd Subscribe) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, err := r.view.OpenSession(roster.Session{Collector: cmd.Collector, Instance: cmd.Instance, Generation: cmd.Generation})
	return err == nil && !cmd.Observe
}

// checkRewound begins a new epoch when somebody has seen a revision of this
// one that the store has not reached: the store was rewound, and its revisions
// mean something else now.
func (r *Registrar) checkRewound(ctx context.Context, who assignment.CollectorID, epoch assignment.Epoch, seen assignment.Revision) {
	if !r.hears(ctx, who, epoch) {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, catchUpWait)
	defer cancel()
	if now, err := r.Store.Sync(bounded); err == nil && seen > now {
		r.believe(bounded, who, epoch, epoch, "revision", now, "seen", seen)
	}
}

// checkSetBack begins a new epoch when somebody has seen one that began after
// this: the store was rewound to before it.
func (r *Registrar) checkSetBack(ctx context.Context, who assignment.CollectorID, epoch, seen assignment.Epoch) {
	if r.hears(ctx, who, epoch) {
		bounded, cancel := context.WithTimeout(ctx, catchUpWait)
		defer cancel()
		r.believe(bounded, who, epoch, seen, "seen", seen)
	}
}

// hears tells whether a claim that the store was rewound is listened to.
//
// That somebody claims it is no proof, for collectors can lie. So an epoch that
// this process saw begin stands for claimInterval, whatever is claimed: the
// streams of all are ended no more often than that. Every replica sees each
// epoch begin, so the bound is that of all together.
func (r *Registrar) hears(ctx context.Context, who assignment.CollectorID, epoch assignment.Epoch) bool {
	r.mu.RLock()
	began := r.began
	r.mu.RUnlock()
	if began.IsZero() || time.Since(began) >= claimInterval {
		return true
	}
	r.Metrics.Claims.WithLabelValues("disregarded").Inc()
	r.Logger.DebugContext(ctx, "a collector claims that the store was rewound, soon after an epoch began", "collector", who, "epoch", epoch)
	return false
}

// believe begins a new epoch, after the last that was seen, in the place of the
// one in which the store was rewound. proof is for the log.
func (r *Registrar) believe(ctx context.Context, who assignment.CollectorID, epoch, last assignment.Epoch, proof ...any) {
	r.mu.RLock()
	stands, at := r.view.Epoch(), r.view.EpochRevision()
	r.mu.RUnlock()
	if stands != epoch {
		return
	}
	r.Metrics.Claims.WithLabelValues("believed").Inc()
	r.Logger.ErrorContext(ctx, "the store was rewound, if a collector is right", append([]any{"collector", who, "epoch", epoch}, proof...)...)
	if err := r.writeEpoch(ctx, at, last); err != nil {
		r.Logger.ErrorContext(ctx, "could not begin a new epoch", "error", err)
	}
}
