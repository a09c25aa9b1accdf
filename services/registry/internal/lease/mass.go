package lease

import (
	"slices"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

const (
	// DefaultMassLease is for how long a mass expiry is held before any of it
	// goes, and within how long one adds up.
	DefaultMassLease = 10 * time.Minute

	// massPercent and massCount are what is no mass yet: more than both are.
	massPercent = 15
	massCount   = 2

	// paceInterval is the time between two batches of a mass, each of which is
	// 1 % of the fleet, or one.
	paceInterval = time.Minute
)

// A hold keeps back a mass expiry: when that many seem to die at once, it is more
// likely that nobody hears them. It is loud, nobody goes for one more lease, and
// then they go slowly, so that people have time to look.
//
// It always ends. Who is due in a round without a hold is struck off in it, so
// one can wait only as long as one hold lasts without a break. There it waits
// until both it has been due and the hold has lasted for a lease; from then on a
// batch of at least one goes every minute, in an order that nobody is put into
// ahead of those who stand in it. So it goes after at most as many batches as
// there are others due, twice. What cannot be had of a hold is that it ends while
// a mass goes on dying.
type hold struct {
	since time.Duration

	// fleet is how large the fleet was then.
	fleet int

	// older counts those whom this hold has struck off and the judge has
	// forgotten.
	older int

	// order is in which the mass goes, the first at the end. Those that became
	// ripe after it was drawn stand in the next one.
	order []assignment.ProducerID

	last  time.Duration // when the last batch went
	began bool          // whether one did
}

// weigh counts the mass, and begins or ends the hold.
//
// What counts are clocks, heard or not: a collector that falls silent must not
// make a mass look smaller. Those struck off count on both sides, in the mass and
// in the fleet, so that striking off alone never changes the share: those of the
// last lease, by which a trickle adds up, and during a hold all that it has
// struck off.
//
// A hold stands while the last lease shows a mass. After that it ends when the
// rest is none with all that it has struck off, since enough have recovered; or
// when all that is ripe may go now, although what has gone was a mass: else a few
// deaths an hour, as any large fleet has them, would prolong it for ever.
func (j *Judge) weigh(fleet, ripe int, credited bool, v *Verdict) {
	near := 0
	for _, known := range j.suspects {
		if known.near {
			near++
		}
	}
	count, size := near, fleet
	for id := range j.struck {
		known := j.suspects[id]
		if known == nil {
			size++
		}
		if known == nil || !known.near {
			count++
		}
	}
	lately := near > 0 && mass(count, size)
	if j.hold != nil {
		count, size = count+j.hold.older, size+j.hold.older
	}
	switch {
	case !credited:
	case j.hold == nil && lately:
		j.hold = &hold{since: j.now, fleet: fleet}
	case j.hold != nil && !lately && (!mass(count, size) || ripe <= j.allowance(fleet)):
		j.hold = nil
	}
	v.Mass, v.Of = count, size
	if j.hold != nil {
		v.Held, v.HeldFor = true, j.now-j.hold.since
		v.Paced = j.hold.began || ripe > 0 && j.over()
	}
}

// mass tells whether that many of a fleet are more than chance.
func mass(count, size int) bool { return count > massCount && 100*count > massPercent*size }

// over tells whether the hold has lasted for its lease.
func (j *Judge) over() bool { return j.now-j.hold.since >= j.lease }

// draw takes the next batch of a mass, if it is time for one.
func (j *Judge) draw(fleet int, ripe []assignment.ProducerID) []assignment.ProducerID {
	h := j.hold
	left := make(map[assignment.ProducerID]bool, len(ripe))
	for _, id := range ripe {
		left[id] = true
	}
	var batch []assignment.ProducerID
	for size := j.allowance(fleet); len(batch) < size && len(left) > 0; {
		if len(h.order) == 0 {
			h.order = j.shuffled(left)
		}
		id := h.order[len(h.order)-1]
		h.order = h.order[:len(h.order)-1]
		if left[id] { // else it recovered, or its collector is not heard now
			delete(left, id)
			batch = append(batch, id)
		}
	}
	if len(batch) > 0 {
		h.began, h.last = true, j.now
	}
	return batch
}

// allowance is how many of a mass may go now: none before it is time for a batch,
// and then 1 % of the fleet as it would be if this hold had struck off nobody, so
// that the last ones go as fast as the first; but never of a larger fleet than it
// was, so that those who come back do not count twice.
func (j *Judge) allowance(fleet int) int {
	if !j.over() || j.hold.began && j.now-j.hold.last < paceInterval {
		return 0
	}
	struck := j.hold.older
	for id := range j.struck { // all in this hold, which has lasted for a lease
		if j.suspects[id] == nil {
			struck++
		}
	}
	return max(1, min(j.hold.fleet, fleet+struck)/100)
}

// shuffled are the ids of a set in random order, the same for the same source.
func (j *Judge) shuffled(set map[assignment.ProducerID]bool) []assignment.ProducerID {
	ids := make([]assignment.ProducerID, 0, len(set))
	for id := range set {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	j.rand.Shuffle(len(ids), func(a, b int) { ids[a], ids[b] = ids[b], ids[a] })
	return ids
}
