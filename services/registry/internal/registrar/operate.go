package registrar

import (
	"context"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// DrainCollector begins a drain, or with validateOnly only plans it. The leader
// carries it out.
func (r *Registrar) DrainCollector(ctx context.Context, id assignment.CollectorID, d roster.Drain, validateOnly bool) (*CollectorStatus, *Plan, Position, error) {
	if err := r.drainable(id, d); err != nil {
		return nil, nil, Position{}, err
	}
	plan, err := r.Plan(Wish{Leave: map[assignment.CollectorID]bool{id: true}})
	if err != nil {
		return nil, nil, Position{}, err
	}
	if validateOnly {
		s, at, err := r.Collector(ctx, id, 0)
		return s, plan, at, err
	}
	s, at, err := r.changeCollector(ctx, id, func(now time.Time) (roster.Txn, error) { return r.view.Drain(id, d, now) })
	return s, plan, at, err
}

// drainable refuses a drain that could hand nothing off.
func (r *Registrar) drainable(id assignment.CollectorID, d roster.Drain) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if err := r.serving(); err != nil {
		return err
	}
	if _, err := r.view.Drain(id, d, time.Now()); err != nil {
		return err
	}
	open := r.openAt(time.Now())
	for c := range r.view.Collectors {
		if c.Collector.ID != id && open(c) {
			return nil
		}
	}
	return roster.Refuse(roster.FailedPrecondition, roster.ReasonNoOtherCollector,
		"collector %q: there is no other live collector to hand anything to", id)
}

// UndrainCollector lets a collector be given producers again.
func (r *Registrar) UndrainCollector(ctx context.Context, id assignment.CollectorID) (*CollectorStatus, Position, error) {
	return r.changeCollector(ctx, id, func(time.Time) (roster.Txn, error) { return r.view.Undrain(id) })
}

// ExpungeCollector ends a collector.
func (r *Registrar) ExpungeCollector(ctx context.Context, id assignment.CollectorID, force bool) (*CollectorStatus, Position, error) {
	return r.changeCollector(ctx, id, func(now time.Time) (roster.Txn, error) { return r.view.Expunge(id, force, now) })
}

func (r *Registrar) changeCollector(ctx context.Context, id assignment.CollectorID, decide func(time.Time) (roster.Txn, error)) (*CollectorStatus, Position, error) {
	_, revision, err := r.execute(ctx, decide)
	if err != nil {
		return nil, Position{}, err
	}
	s, at, err := r.Collector(ctx, id, revision)
	if err != nil {
		return nil, Position{}, err
	}
	at.Revision = s.CollectorRevision
	return s, at, nil
}

// MoveProducer hands a producer to a collector, for an operator. It returns where
// the producer's record was last written.
func (r *Registrar) MoveProducer(ctx context.Context, id assignment.ProducerID, to assignment.CollectorID) (at Position, changed bool, err error) {
	var last assignment.Revision
	at.Epoch, at.Revision, err = r.execute(ctx, func(now time.Time) (roster.Txn, error) {
		e := r.view.Producer(id)
		if e == nil {
			return nil, roster.Refuse(roster.NotFound, roster.ReasonUnknownProducer, "producer %q is not registered", id)
		}
		last = e.Revision
		if err := r.openFor(to, e, now); err != nil {
			return nil, err
		}
		from := r.view.Collector(e.Collector)
		alone := from != nil && from.Collector.Expunged()
		txn := roster.Give(e, roster.Place{Collector: to, Reason: roster.PlacementOperator}, alone, now)
		if alone {
			txn = roster.Standing(txn, e.Collector, from.CollectorRevision)
		}
		changed = len(txn) > 0
		return txn, nil
	})
	if !changed {
		at.Revision = last
	}
	return at, changed, err
}

// openFor refuses a collector that a producer cannot be given to. The caller
// holds mu.
func (r *Registrar) openFor(id assignment.CollectorID, e *roster.Entry, now time.Time) error {
	c := r.view.Collector(id)
	switch {
	case c == nil:
		return roster.Refuse(roster.NotFound, roster.ReasonUnknownCollector, "collector %q has never registered", id)
	case e.Collector == id, r.openAt(now)(c):
		return nil
	default:
		return roster.Refuse(roster.FailedPrecondition, roster.ReasonCollectorNotOpen,
			"collector %q is given nothing: it is not live, is drained or expunged, or has just been gone twice within an hour", id)
	}
}

// PreviewRebalance plans what would even out the load.
func (r *Registrar) PreviewRebalance() (*Plan, error) {
	return r.Plan(Wish{Rebalance: true, MaxMoves: maxRebalance})
}

// maxRebalance is how many moves an operator may begin at once.
const maxRebalance = 10_000

// Rebalance begins such a plan, and tells how many of its moves were begun.
func (r *Registrar) Rebalance(ctx context.Context, most int) (*Plan, int, error) {
	plan, err := r.Plan(Wish{Rebalance: true, MaxMoves: most})
	if err != nil {
		return nil, 0, err
	}
	begun, err := r.Write(ctx, plan.Txns(time.Now(), ForBalance, nil))
	return plan, begun, err
}

// ConfirmExpiry sets how producers that are due are struck off, for a time.
func (r *Registrar) ConfirmExpiry(ctx context.Context, mode roster.ExpiryMode, span time.Duration) (until time.Time, err error) {
	_, _, err = r.execute(ctx, func(now time.Time) (roster.Txn, error) {
		until = now.Add(span)
		return r.view.SetExpiry(mode, until), nil
	})
	return until, err
}

// An AdoptOutcome is what became of a producer to be adopted, numbered as in the
// protocol.
type AdoptOutcome int32

// The outcomes.
const (
	AdoptCreated      AdoptOutcome = 1
	AdoptKnown        AdoptOutcome = 2
	AdoptConflict     AdoptOutcome = 3
	AdoptDeregistered AdoptOutcome = 4
	AdoptRefused      AdoptOutcome = 5
)

// Adopted is what became of one.
type Adopted struct {
	Outcome AdoptOutcome
	Message string
}

// AdoptProducers puts producers on the roll that a collector has kept. All are
// of one collector, no two of one id.
func (r *Registrar) AdoptProducers(ctx context.Context, collector assignment.CollectorID, all []roster.Adoption, validateOnly bool) ([]Adopted, error) {
	results := make([]Adopted, len(all))
	todo := make([]int, len(all))
	for i := range todo {
		todo[i] = i
	}
	for range maxAttempts {
		txns, writing, err := r.decideAdoptions(collector, all, todo, results)
		if err != nil || validateOnly || len(txns) == 0 {
			return results, err
		}
		outcomes, err := r.commit(ctx, txns)
		if err != nil {
			return nil, err
		}
		todo = nil
		var newest assignment.Revision
		for n, o := range outcomes {
			if o.Committed {
				newest = max(newest, o.Revision)
			} else {
				todo = append(todo, writing[n])
			}
		}
		if err := r.settle(ctx, newest, len(todo) > 0); err != nil || len(todo) == 0 {
			return results, err
		}
	}
	return nil, roster.Refuse(roster.Aborted, roster.ReasonContended, "others keep writing these producers; try again")
}

func (r *Registrar) decideAdoptions(collector assignment.CollectorID, all []roster.Adoption, todo []int, results []Adopted) (txns []roster.Txn, writing []int, err error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if err := r.serving(); err != nil {
		return nil, nil, err
	}
	c := r.view.Collector(collector)
	switch {
	case c == nil:
		return nil, nil, roster.Refuse(roster.NotFound, roster.ReasonUnknownCollector, "collector %q has never registered", collector)
	case c.Collector.Expunged():
		return nil, nil, roster.Refuse(roster.FailedPrecondition, roster.ReasonExpunged, "collector %q was expunged", collector)
	}
	now := time.Now()
	for _, i := range todo {
		if txn := r.view.Adopt(all[i], now); len(txn) > 0 {
			txns, writing = append(txns, txn), append(writing, i)
			results[i] = Adopted{Outcome: AdoptCreated}
		} else {
			results[i] = r.adoptable(&all[i])
		}
	}
	return txns, writing, nil
}

// adoptable says why one is not adopted. The caller holds mu.
func (r *Registrar) adoptable(a *roster.Adoption) Adopted {
	e := r.view.Producer(a.ID)
	switch {
	case e == nil:
		return Adopted{AdoptDeregistered, "it was taken off the roll in this epoch"}
	case e.RoleOf(a.Collector) == assignment.RoleUnspecified:
		return Adopted{AdoptConflict, "collector " + string(e.Collector) + " has it"}
	case e.Version != assignment.VersionOf(a.Stored) && !r.SameStored(e.Stored, a.Stored):
		return Adopted{AdoptConflict, "the registry knows it with another content"}
	default:
		return Adopted{Outcome: AdoptKnown}
	}
}
