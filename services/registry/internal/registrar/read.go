package registrar

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/google/btree"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// Position is where in the store's history an answer stands.
type Position struct {
	Epoch    assignment.Epoch
	Revision assignment.Revision
}

// Producer finds a producer, in a view of at least a revision.
func (r *Registrar) Producer(ctx context.Context, id assignment.ProducerID, least assignment.Revision) (*roster.Entry, Position, error) {
	var e *roster.Entry
	at, err := r.read(ctx, least, func() { e = r.view.Producer(id) })
	if err == nil && e == nil {
		err = roster.Refuse(roster.NotFound, roster.ReasonUnknownProducer, "producer %q is not registered", id)
	}
	return e, at, err
}

// Producers returns all producers, ordered by id, as of one revision.
func (r *Registrar) Producers(ctx context.Context, least assignment.Revision) (*btree.BTreeG[*roster.Entry], Position, error) {
	if err := r.catchUp(ctx, least); err != nil {
		return nil, Position{}, err
	}
	r.mu.Lock() // not RLock: cloning a tree marks its nodes as shared
	defer r.mu.Unlock()
	if !r.loaded {
		return nil, Position{}, r.serving()
	}
	return r.view.Snapshot(), Position{r.view.Epoch(), r.view.Revision()}, nil
}

// A CollectorStatus is a collector and how it is doing.
type CollectorStatus struct {
	roster.CollectorEntry

	// LastAck is the newest acknowledgement known here, nil for none.
	LastAck *roster.Ack
}

// Collector finds a collector, in a view of at least a revision.
func (r *Registrar) Collector(ctx context.Context, id assignment.CollectorID, least assignment.Revision) (*CollectorStatus, Position, error) {
	var s *CollectorStatus
	at, err := r.read(ctx, least, func() {
		if c := r.view.Collector(id); c != nil {
			s = &CollectorStatus{*c, r.lastAck(c)}
		}
	})
	if err == nil && s == nil {
		err = roster.Refuse(roster.NotFound, roster.ReasonUnknownCollector, "collector %q has never registered", id)
	}
	return s, at, err
}

// Collectors returns all collectors, ordered by id.
func (r *Registrar) Collectors(ctx context.Context, least assignment.Revision) ([]*CollectorStatus, Position, error) {
	var all []*CollectorStatus
	at, err := r.read(ctx, least, func() {
		for c := range r.view.Collectors {
			all = append(all, &CollectorStatus{*c, r.lastAck(c)})
		}
	})
	slices.SortFunc(all, func(a, b *CollectorStatus) int {
		return strings.Compare(string(a.Collector.ID), string(b.Collector.ID))
	})
	return all, at, err
}

// RegisterCollector makes a collector known. want tells all but its instances
// and the time.
func (r *Registrar) RegisterCollector(ctx context.Context, want roster.Collector, instance assignment.InstanceID) (*CollectorStatus, Position, error) {
	epoch, revision, err := r.execute(ctx, func(now time.Time) (roster.Txn, error) {
		if err := r.roomFor(want.ID); err != nil {
			return nil, err
		}
		txn, _, err := r.view.RegisterCollector(want, instance, now)
		return txn, err
	})
	if err != nil {
		return nil, Position{}, err
	}
	s, at, err := r.Collector(ctx, want.ID, revision)
	if err != nil {
		return nil, Position{}, err
	}
	if s.Collector.Newest().ID != instance {
		return nil, Position{}, roster.Refuse(roster.Aborted, roster.ReasonInstanceReplaced,
			"collector %q: a newer instance than %q has registered", want.ID, instance)
	}
	at.Epoch = epoch
	at.Revision = s.CollectorRevision
	return s, at, nil
}

// roomFor refuses a new collector when as many are known as may be: they are
// remembered for good. The caller holds mu.
func (r *Registrar) roomFor(id assignment.CollectorID) error {
	known := r.view.KnownCollectors()
	if known < r.MaxCollectors || r.view.Collector(id) != nil {
		return nil
	}
	r.Metrics.TooMany.Inc()
	return roster.Refuse(roster.Exhausted, roster.ReasonTooManyCollectors,
		"collector %q is new and %d are known, at most %d may be", id, known, r.MaxCollectors)
}

// read looks at the view once it has reached a revision. Reading goes on while
// the store is away.
func (r *Registrar) read(ctx context.Context, least assignment.Revision, look func()) (Position, error) {
	if err := r.catchUp(ctx, least); err != nil {
		return Position{}, err
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if !r.loaded {
		return Position{}, r.serving()
	}
	look()
	return Position{r.view.Epoch(), r.view.Revision()}, nil
}
