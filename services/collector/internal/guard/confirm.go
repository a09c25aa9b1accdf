package guard

import (
	"slices"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

const (
	// confirmFor is for how long an absence must be confirmed until it is
	// believed. Ten minutes of one registry are one witness repeating itself; a
	// day is time for people to look at what is held.
	confirmFor = 24 * time.Hour

	// freshBeats is how many heartbeat intervals one confirmation counts for at
	// most.
	freshBeats = 3

	// paceInterval is the time between two batches that go by confirmation.
	paceInterval = time.Minute
)

// clock is the time for which registries have confirmed the set, in all, so that
// one addition counts for everything that is held.
type clock struct {
	shows time.Duration

	// last is when this stream last told the set; zero before it did. What was
	// while no stream told it is not known, and does not count.
	last time.Time
}

func (c *clock) confirm(now time.Time, beat time.Duration) {
	if !c.last.IsZero() {
		c.shows += min(max(now.Sub(c.last), 0), freshBeats*beat)
	}
	c.last = now
}

// NewStream begins a stream: the time since the last one confirms nothing.
func (g *Guard) NewStream() { g.clock.last = time.Time{} }

// Agree takes a heartbeat that tells the accepted set, of a stream with this
// heartbeat interval.
func (g *Guard) Agree(now time.Time, beat time.Duration) { g.clock.confirm(now, beat) }

// Progress returns what is held and was confirmed further since it was last
// returned, for its owner to keep. What needs no more confirmation is not
// returned again.
func (g *Guard) Progress() []Held {
	var held []Held
	for _, h := range g.held {
		told := g.told(h)
		if h.saved < confirmFor && told.Confirmed > h.saved {
			h.saved = told.Confirmed
			held = append(held, told)
		}
	}
	return held
}

// pace bounds what goes by confirmation: one producer or 1 % of the applied set
// a minute, whichever is more. So a registry that lies for a day is found out
// by what goes missing, while nearly everyone is still collected.
type pace struct {
	last time.Time

	// spare is what a batch may let go beyond whole producers, in hundredths of
	// one.
	spare int
}

// batch is how many may go now.
func (p *pace) batch(applied int, now time.Time) int {
	if !p.last.IsZero() && now.Sub(p.last) < paceInterval {
		return 0
	}
	return (p.spare + max(applied, 100)) / 100
}

// let notes that so many have gone.
func (p *pace) let(gone, applied int, now time.Time) {
	p.last = now
	p.spare = (p.spare + max(applied, 100) - 100*gone) % 100
}

// Tick lets go of what may go by evidence: the dead, and those whose absence was
// confirmed for long enough, some at a time.
func (g *Guard) Tick(s *Survey, now time.Time) Verdict {
	var v Verdict
	g.health.tick(s, now)
	for _, id := range g.deadHeld(s, now) {
		g.release(&v, Release{ProducerID: id, Stale: true}, ReasonFailing)
	}
	batch := g.pace.batch(s.Applied, now)
	if batch == 0 {
		return v
	}
	going := g.confirmedHeld(s, now, batch)
	for _, id := range going {
		g.release(&v, Release{ProducerID: id, Stale: true}, ReasonConfirmed)
	}
	if len(going) > 0 {
		g.pace.let(len(going), s.Applied, now)
	}
	return v
}

// deadHeld are the held producers whose own collections say that they are dead.
func (g *Guard) deadHeld(s *Survey, now time.Time) []assignment.ProducerID {
	var dead []assignment.ProducerID
	for id, e := range s.Failing {
		if g.Holds(id) && g.dead(e, now) {
			dead = append(dead, id)
		}
	}
	slices.Sort(dead)
	return dead
}

// confirmedHeld are up to limit held producers that may go by confirmation.
func (g *Guard) confirmedHeld(s *Survey, now time.Time, limit int) []assignment.ProducerID {
	var confirmed []assignment.ProducerID
	for h := range g.After("") {
		if len(confirmed) == limit {
			break
		}
		if g.confirmed(&h, s.Failing[h.Assignment.ProducerID], now) {
			confirmed = append(confirmed, h.Assignment.ProducerID)
		}
	}
	return confirmed
}

// confirmed tells whether a held producer's absence has been confirmed for long
// enough. After a change of epoch the registry never knew it, so what it
// confirms is that it does not know it; then one that has answered in all that
// time stays.
func (g *Guard) confirmed(h *Held, e Evidence, now time.Time) bool {
	if h.Confirmed < confirmFor {
		return false
	}
	return h.Epoch == g.epoch || e.Failures >= minFailures && now.Sub(e.FailingSince) >= confirmFor
}
