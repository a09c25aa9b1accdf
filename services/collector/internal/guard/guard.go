// Package guard decides which removals a collector obeys.
//
// Its one idea: only a registry that knew a producer can name it. A removal that
// is named is believed; a mere absence is not, for a registry that came back
// empty, half loaded or from an old backup looks just like that. What is not
// believed is held: still collected, and loudly so.
package guard

import (
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A Release lets go of a producer.
type Release struct {
	ProducerID assignment.ProducerID

	// Stale tells that the producer is gone for good: nobody collects it from
	// now on, so its series end.
	Stale bool
}

// A Departure is a former member of the accepted set.
type Departure struct {
	Assignment *assignment.Assignment

	// Cause is CauseUnspecified when the registry did not name it.
	Cause assignment.Cause
}

// A Verdict is what is to be done about the absences of one seal.
type Verdict struct {
	// Released are to be collected no more.
	Released []Release

	// Held are newly held back.
	Held []Held

	// Returned were held and are not absent any more, or were released.
	Returned []assignment.ProducerID
}

// A Guard knows what is held. It is not safe for concurrent use; its owner
// guards it.
type Guard struct {
	held map[assignment.ProducerID]Held
}

// New makes a guard that holds already what an earlier process held.
func New(held []Held) *Guard {
	g := &Guard{held: make(map[assignment.ProducerID]Held, len(held))}
	for _, h := range held {
		g.held[h.Assignment.ProducerID] = h
	}
	return g
}

// Len is the number of producers held.
func (g *Guard) Len() int { return len(g.held) }

// All calls yield with everything held, in no order.
func (g *Guard) All(yield func(Held) bool) {
	for _, h := range g.held {
		if !yield(h) {
			return
		}
	}
}

// Holds reports whether a producer is held.
func (g *Guard) Holds(id assignment.ProducerID) bool {
	_, held := g.held[id]
	return held
}

// Seal judges a sealed snapshot: the members that it took away, the producers
// that it names as removed although they were no members, and the members that
// it brought.
func (g *Guard) Seal(epoch assignment.Epoch, gone []Departure, named []assignment.Removal, present []*assignment.Assignment, now time.Time) Verdict {
	var v Verdict
	for _, a := range present {
		if g.Holds(a.ProducerID) {
			delete(g.held, a.ProducerID)
			v.Returned = append(v.Returned, a.ProducerID)
		}
	}
	for _, d := range gone {
		if release, believed := believe(d.Assignment.ProducerID, d.Cause); believed {
			v.Released = append(v.Released, release)
			continue
		}
		h := Held{Assignment: d.Assignment, Epoch: epoch, Since: now}
		g.held[d.Assignment.ProducerID] = h
		v.Held = append(v.Held, h)
	}
	g.explain(named, &v)
	return v
}

// Explain takes what the registry says of producers that are held.
func (g *Guard) Explain(named []assignment.Removal) Verdict {
	var v Verdict
	g.explain(named, &v)
	return v
}

func (g *Guard) explain(named []assignment.Removal, v *Verdict) {
	for _, r := range named {
		if !g.Holds(r.ProducerID) {
			continue
		}
		if release, believed := believe(r.ProducerID, r.Cause); believed {
			delete(g.held, r.ProducerID)
			v.Released = append(v.Released, release)
			v.Returned = append(v.Returned, r.ProducerID)
		}
	}
}

// believe tells whether a cause lets go of a producer at once. An expiry needs a
// second witness, which this guard does not have.
func believe(id assignment.ProducerID, cause assignment.Cause) (Release, bool) {
	switch cause {
	case assignment.CauseDeregistered:
		return Release{ProducerID: id, Stale: true}, true
	case assignment.CauseHandedOff:
		return Release{ProducerID: id}, true
	default:
		return Release{}, false
	}
}
