// Package guard decides which removals a collector obeys.
//
// Its one idea: only a registry that knew a producer can name it. A removal that
// is named is believed; a mere absence is not, for a registry that came back
// empty, half loaded or from an old backup looks just like that. What is not
// believed is held: still collected, loudly so, and let go by evidence only.
package guard

import (
	"iter"
	"slices"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A Guard knows what is held. It is not safe for concurrent use; its owner
// guards it. Every time that it is given is of one clock that does not step.
type Guard struct {
	epoch  assignment.Epoch // of the accepted set
	held   map[assignment.ProducerID]*holding
	digest assignment.Digest // of what is held

	// order has the ids of all that is held, sorted, and of some that are not
	// any more; it is nil when something was added.
	order []assignment.ProducerID

	clock  clock
	pace   pace
	health health
}

// New makes a guard for a collector that resumes a set of this epoch, and holds
// already what an earlier process held.
func New(epoch assignment.Epoch, held []Held) *Guard {
	g := &Guard{epoch: epoch, held: make(map[assignment.ProducerID]*holding, len(held))}
	for _, h := range held {
		g.hold(h)
	}
	return g
}

// Len is the number of producers held.
func (g *Guard) Len() int { return len(g.held) }

// Digest is the digest of what is held, as of a set.
func (g *Guard) Digest() assignment.Digest { return g.digest }

// All calls yield with everything held, in no order.
func (g *Guard) All(yield func(Held) bool) {
	for _, h := range g.held {
		if !yield(g.told(h)) {
			return
		}
	}
}

// After ranges over what is held behind an id, in the order of the ids.
func (g *Guard) After(id assignment.ProducerID) iter.Seq[Held] {
	return func(yield func(Held) bool) {
		order := g.sorted()
		from, found := slices.BinarySearch(order, id)
		if found {
			from++
		}
		for _, id := range order[from:] {
			if h := g.held[id]; h != nil && !yield(g.told(h)) {
				return
			}
		}
	}
}

// Holds reports whether a producer is held.
func (g *Guard) Holds(id assignment.ProducerID) bool { return g.held[id] != nil }

// Seal judges a sealed snapshot. A stream's first seal confirms nothing; each
// later one confirms, as an equal heartbeat does, what is absent still.
func (g *Guard) Seal(c *Change, beat time.Duration, witness Witness, now time.Time) Verdict {
	var v Verdict
	g.clock.confirm(now, beat)
	g.epoch = c.Epoch
	for _, a := range c.Present {
		if g.Holds(a.ProducerID) {
			g.end(&v, a.ProducerID, ReasonReturned)
		}
	}
	for _, d := range c.Gone {
		id := d.Assignment.ProducerID
		if release, believed := g.believe(id, d.Cause, witness, now); believed {
			v.Released = append(v.Released, release)
			continue
		}
		h := Held{Assignment: d.Assignment, Epoch: c.Had, Revision: c.HadRevision, Since: now, Cause: heldCause(d.Cause)}
		g.hold(h)
		v.Held = append(v.Held, h)
	}
	g.hear(&v, c.Named, ReasonNamed, witness, now)
	return v
}

// Explain takes what the registry says of producers that are held.
func (g *Guard) Explain(named []assignment.Removal, witness Witness, now time.Time) Verdict {
	var v Verdict
	g.hear(&v, named, ReasonExplained, witness, now)
	return v
}

// Release lets go of producers because an operator says so. Of those that are
// not held it does nothing.
func (g *Guard) Release(ids []assignment.ProducerID) Verdict {
	var v Verdict
	for _, id := range ids {
		if g.Holds(id) {
			g.release(&v, Release{ProducerID: id, Stale: true}, ReasonOperator)
		}
	}
	return v
}

// hear takes names of producers that are no members.
func (g *Guard) hear(v *Verdict, named []assignment.Removal, reason Reason, witness Witness, now time.Time) {
	for _, r := range named {
		h := g.held[r.ProducerID]
		if h == nil || h.Epoch == g.epoch && r.Revision <= h.Revision {
			// A name from before it was accepted last, which a store remembers
			// that was set back unseen, is not believed.
			continue
		}
		if release, believed := g.believe(r.ProducerID, r.Cause, witness, now); believed {
			g.release(v, release, reason)
			continue
		}
		if cause := heldCause(r.Cause); cause != assignment.CauseUnspecified {
			h.Cause = cause
		}
	}
}

// believe tells whether a cause lets go of a producer at once. A registry says
// EXPIRED of one that it did not hear from, which may be the registry's fault:
// that needs a second witness.
func (g *Guard) believe(id assignment.ProducerID, cause assignment.Cause, witness Witness, now time.Time) (Release, bool) {
	switch cause {
	case assignment.CauseDeregistered:
		return Release{ProducerID: id, Stale: true}, true
	case assignment.CauseHandedOff:
		return Release{ProducerID: id}, true
	case assignment.CauseExpired:
		return Release{ProducerID: id, Stale: true}, g.dead(witness(id), now)
	default:
		return Release{}, false
	}
}

// heldCause is the cause that a held producer is shown with.
func heldCause(c assignment.Cause) assignment.Cause {
	if c == assignment.CauseExpired {
		return c
	}
	return assignment.CauseUnspecified
}

func (g *Guard) hold(h Held) {
	id := h.Assignment.ProducerID
	g.held[id] = &holding{Held: h, at: g.clock.shows, saved: h.Confirmed}
	g.digest += assignment.Digest(h.Assignment.Hash())
	g.order = nil
}

func (g *Guard) release(v *Verdict, r Release, reason Reason) {
	v.Released = append(v.Released, r)
	g.end(v, r.ProducerID, reason)
}

func (g *Guard) end(v *Verdict, id assignment.ProducerID, reason Reason) {
	g.digest -= assignment.Digest(g.held[id].Assignment.Hash())
	delete(g.held, id)
	v.Ended = append(v.Ended, Ended{id, reason})
}

// sorted is order with the ids of all that is held.
func (g *Guard) sorted() []assignment.ProducerID {
	if g.order == nil || len(g.order) > 2*len(g.held) {
		g.order = make([]assignment.ProducerID, 0, len(g.held))
		for id := range g.held {
			g.order = append(g.order, id)
		}
		slices.Sort(g.order)
	}
	return g.order
}

// told is a held producer with what has been confirmed up to now.
func (g *Guard) told(h *holding) Held {
	held := h.Held
	held.Confirmed += g.clock.shows - h.at
	return held
}
