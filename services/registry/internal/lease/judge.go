package lease

import (
	"maps"
	"math/rand/v2"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// moveInterval is the shortest time between two moves of one producer that its
// collector does not reach. One that nobody reaches would go round for ever.
const moveInterval = time.Hour

// A Judge decides who is struck off. It takes two witnesses: the registry, which
// has heard no renewal for the producer's whole expire_after of credited time,
// and the collector, which says at the moment of judgement that it fails. A new
// judge knows nobody, so every clock starts at zero under a new leader.
type Judge struct {
	lease  time.Duration // the one of mass expiry
	rand   *rand.Rand
	now    time.Duration
	rounds uint64

	suspects map[assignment.ProducerID]*suspicion

	// moved is when a producer was last told to be unreachable, and struck when
	// one was last told to be struck off; neither is kept for longer than it
	// matters.
	moved  map[assignment.ProducerID]time.Duration
	struck map[assignment.ProducerID]time.Duration

	hold *hold // nil while there is none
}

// suspicion is what a judge remembers of a suspect.
type suspicion struct {
	revision assignment.Revision
	since    time.Duration // when this revision was first seen

	// failingSince is when its collector was first heard to say that it fails,
	// over all revisions, or when it was last told to be unreachable; negative
	// before.
	failingSince time.Duration

	near  bool   // its clock runs out within the next lease, or has
	round uint64 // in which it was last seen
}

// NewJudge makes a judge. massLease is for how long a mass expiry is held, and
// within how long one adds up; 0 stands for DefaultMassLease. Random gives the
// order in which a mass goes.
func NewJudge(massLease time.Duration, random *rand.Rand) *Judge {
	return &Judge{
		lease: or(massLease, DefaultMassLease), rand: random,
		suspects: make(map[assignment.ProducerID]*suspicion),
		moved:    make(map[assignment.ProducerID]time.Duration),
		struck:   make(map[assignment.ProducerID]time.Duration),
	}
}

// Tick judges the suspects as they stand. In a round to which no time was
// credited nobody is struck off or moved, and a hold neither begins nor ends:
// the registry is ill, or has just been.
func (j *Judge) Tick(r *Round) Verdict {
	credited := r.Credited > j.now
	j.now = r.Credited
	j.rounds++
	j.age()

	var v Verdict
	var due, ripe []assignment.ProducerID // ripe: due, and during a hold, too
	for i := range r.Suspects {
		s := &r.Suspects[i]
		known := j.see(s, &v)
		if known == nil || !s.Heard {
			continue
		}
		stood := j.now - known.since
		switch {
		case s.ExpireAfter > 0 && stood >= s.expires():
			due = append(due, s.ID)
			if stood-j.lease >= s.expires() {
				ripe = append(ripe, s.ID)
			}
		case credited && j.unreachable(s, known):
			v.Unreachable = append(v.Unreachable, s.ID)
		}
	}
	maps.DeleteFunc(j.suspects, func(_ assignment.ProducerID, known *suspicion) bool { return known.round != j.rounds })

	v.Due = len(due)
	j.weigh(r.Fleet, len(ripe), credited, &v)
	if credited {
		v.Strike = j.strike(r, due, ripe)
	}
	return v
}

// Moved tells which of the unreachable were given to another collector. They are
// not told again for an hour; the others are in the next round.
func (j *Judge) Moved(ids []assignment.ProducerID) {
	for _, id := range ids {
		if known := j.suspects[id]; known != nil {
			known.failingSince = j.now
		}
		j.moved[id] = j.now
	}
}

// see takes notice of a suspect. It returns nil if there is nothing to be judged:
// it has recovered, by which it is forgotten as if it were not there, or it was
// seen in this round already.
func (j *Judge) see(s *Suspect, v *Verdict) *suspicion {
	known := j.suspects[s.ID]
	if known != nil && known.round == j.rounds {
		return nil
	}
	if s.Heard && !s.Failing {
		v.Recovered = append(v.Recovered, s.ID)
		delete(j.struck, s.ID)
		return nil
	}
	if known == nil {
		known = &suspicion{revision: s.Revision, since: j.now, failingSince: -1}
		j.suspects[s.ID] = known
	}
	if known.revision != s.Revision {
		known.revision, known.since = s.Revision, j.now
		delete(j.struck, s.ID) // it renewed just before, or has come back
	}
	if s.Heard && known.failingSince < 0 {
		known.failingSince = j.now
	}
	known.round = j.rounds
	known.near = s.ExpireAfter > 0 && j.now-known.since >= s.expires()-j.lease
	return known
}

// unreachable tells whether a suspect renews and has not been reached by its
// collector for a whole lease.
func (j *Judge) unreachable(s *Suspect, known *suspicion) bool {
	_, lately := j.moved[s.ID]
	return s.Renewed && !lately && s.Lease > 0 && j.now-known.failingSince >= s.Lease
}

// strike is who is struck off in this round, and remembers them.
func (j *Judge) strike(r *Round, due, ripe []assignment.ProducerID) []assignment.ProducerID {
	var out []assignment.ProducerID
	switch {
	case r.Control == Hasten, r.Control == Auto && j.hold == nil:
		out = due
	case r.Control == Auto:
		out = j.draw(r.Fleet, ripe)
	}
	for _, id := range out {
		j.struck[id] = j.now
	}
	return out
}

// age forgets what does not matter any more.
func (j *Judge) age() {
	maps.DeleteFunc(j.moved, func(_ assignment.ProducerID, at time.Duration) bool { return j.now-at >= moveInterval })
	maps.DeleteFunc(j.struck, func(_ assignment.ProducerID, at time.Duration) bool {
		old := j.now-at >= j.lease
		if old && j.hold != nil && at >= j.hold.since {
			j.hold.older++
		}
		return old
	})
}
