// Package registrar keeps the roster: it carries out commands against the store
// and follows the store's events with its view and the feed.
//
// Its invariant: the view and the feed change by the store's events only, in
// revision order, both at once; a command that was answered OK is durable.
package registrar

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/feed"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"golang.org/x/sync/errgroup"
)

// Config is what a Registrar needs.
type Config struct {
	Store Store
	Feed  *feed.Feed

	// Instance names this registry process.
	Instance assignment.InstanceID

	// SameStored tells whether two encoded assignments mean the same. It is
	// asked only when their bytes differ.
	SameStored func(a, b []byte) bool

	// CheckStored says what is wrong with the encoded assignment of a producer.
	// One that cannot be read would have every collector that is sent it refuse
	// its whole set, so the registry does not serve with it. Nil: nothing is.
	CheckStored func(id assignment.ProducerID, stored []byte) error

	// MarksOf tells the marks of an encoded assignment; none of one that it cannot
	// read. Nil: nothing is known of conflicts.
	MarksOf func(stored []byte) Marks

	// MaxCollectors bounds how many collectors may be known, by this process's
	// view; 0: DefaultMaxCollectors.
	MaxCollectors int

	// Grace is how long a collector may be without a subscription before its
	// producers are given to others; 0: DefaultGrace.
	Grace time.Duration

	Logger  *slog.Logger
	Metrics *Metrics
}

// DefaultGrace is how long a collector may be away.
const DefaultGrace = 60 * time.Second

// The times of the registrar.
const (
	sessionTTL    = 15 * time.Second
	freshInterval = 5 * time.Second
	ownViewWait   = 1 * time.Second
	catchUpWait   = 5 * time.Second
	commitWait    = 10 * time.Second
	retryDelay    = 500 * time.Millisecond
	ackInterval   = 5 * time.Second
	hurryInterval = 1 * time.Second
	ghostInterval = 10 * time.Second
	pruneInterval = 10 * time.Minute
	settleTime    = 1 * time.Second
	removedTTL    = 24 * time.Hour
	closeWait     = 2 * time.Second

	conflictInterval = 30 * time.Second

	// claimInterval is how long an epoch that this process saw begin is safe
	// from the claims of collectors. A rewound store is found by the first
	// claim; one who lies would end everybody's streams again and again.
	claimInterval = 10 * time.Minute
)

// awayStoreLost is the reason of a GoAway, numbered as in the protocol.
const awayStoreLost = 2

// DefaultMaxCollectors is how many collectors may be known.
const DefaultMaxCollectors = 4096

// A Registrar is safe for concurrent use. Its methods refuse with
// roster.Unavailable while it is not serving.
type Registrar struct {
	Config

	kick chan struct{} // holds one token when orphans may be placed

	mu       sync.RWMutex // guards all below
	view     *roster.View
	names    *namesakes // of the view
	rivals   rivals
	loaded   bool // the view is complete and followed
	leased   bool
	fresh    time.Time     // when the view was last known to show all that the store has
	stale    bool          // that was longer ago than a session lives
	began    time.Time     // when this process saw another epoch begin; zero: never
	moved    chan struct{} // closed and replaced whenever the view moves
	waiting  map[*waiter]struct{}
	inFlight map[assignment.CollectorID]int
	arrivals arrivals
	acks     map[assignment.CollectorID]*ackState
	ordinal  int64               // of the last subscription
	open     map[string]struct{} // subscriptions of this process, by name

	// away is since when, as this process has seen it, a collector has had no
	// subscription.
	away map[assignment.CollectorID]time.Time

	// back is since when a collector has been live, absences within its grace
	// included.
	back map[assignment.CollectorID]time.Time

	planning sync.Mutex // held for a plan of the whole fleet; before mu

	weights *weights // guards itself
}

// New makes a Registrar. It serves once Run has loaded the view.
func New(c Config) *Registrar {
	if c.MaxCollectors == 0 {
		c.MaxCollectors = DefaultMaxCollectors
	}
	if c.Grace == 0 {
		c.Grace = DefaultGrace
	}
	return &Registrar{
		Config:   c,
		kick:     make(chan struct{}, 1),
		view:     roster.NewView(),
		names:    newNamesakes(c.MarksOf),
		rivals:   rivals{},
		moved:    make(chan struct{}),
		waiting:  map[*waiter]struct{}{},
		inFlight: map[assignment.CollectorID]int{},
		arrivals: newArrivals(),
		acks:     map[assignment.CollectorID]*ackState{},
		open:     map[string]struct{}{},
		away:     map[assignment.CollectorID]time.Time{},
		back:     map[assignment.CollectorID]time.Time{},
		weights:  newWeights(),
	}
}

// Run follows the store until ctx ends. It survives every fault of the store by
// trying again, and fails only on a record that it cannot read: a registry that
// does not know the whole roll must not call it.
func (r *Registrar) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return r.follow(ctx) })
	group.Go(func() error { return r.lease(ctx) })
	group.Go(func() error { return r.keepFresh(ctx) })
	group.Go(func() error { return r.placeOrphans(ctx) })
	group.Go(func() error { return r.saveAcks(ctx) })
	group.Go(func() error { return r.closeGhosts(ctx) })
	group.Go(func() error { return r.pruneRemoved(ctx) })
	group.Go(func() error { return r.tellConflicts(ctx) })
	err := group.Wait()
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// Serving reports whether commands are carried out.
func (r *Registrar) Serving() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.serving() == nil
}

// AwaitServing waits until commands are carried out.
func (r *Registrar) AwaitServing(ctx context.Context) error {
	for {
		r.mu.RLock()
		err, moved := r.serving(), r.moved
		r.mu.RUnlock()
		if err == nil {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// serving refuses while the registrar is not. The caller holds mu.
func (r *Registrar) serving() error {
	if !r.loaded || !r.leased || r.stale {
		return roster.Refuse(roster.Unavailable, roster.ReasonNotServing, "the registry has no complete view of its store yet")
	}
	return nil
}

// pause waits before another try, and returns false when ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// lease keeps the lease of this process's sessions.
func (r *Registrar) lease(ctx context.Context) error {
	for {
		err := r.Store.HoldLease(ctx, sessionTTL, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.leased = true
			r.advanced()
		})
		r.mu.Lock()
		r.leased = false
		r.mu.Unlock()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.Logger.WarnContext(ctx, "lost the lease of the sessions", "error", err)
		r.release()
		if !pause(ctx, retryDelay) {
			return ctx.Err()
		}
	}
}
