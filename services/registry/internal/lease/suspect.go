package lease

import (
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A Suspect is a producer that was found failing at its collector, as it stands
// in one round.
type Suspect struct {
	ID assignment.ProducerID

	// Revision is that of its record among the suspects. Every renewal of a
	// suspect is written there, so another revision starts its clock anew.
	Revision assignment.Revision

	// Renewed tells that it has renewed since it became a suspect, and that its
	// last renewal is not older than its lease. Such a producer is alive, and it
	// is its collector that does not reach it.
	Renewed bool

	// Lease is for how long a renewal counts. ExpireAfter is for how long without
	// one it stays on the roll; one that has none (a permanent producer) is never
	// struck off.
	Lease, ExpireAfter time.Duration

	// Heard tells that its collector could be asked in this round, and Failing
	// what the collector said: that it fails still. A collector that could not be
	// asked is no witness, whatever Failing says.
	Heard, Failing bool
}

// expires is for how long without a renewal it is never struck off: what was
// agreed for it, and in any case for as long as its last renewal counts.
func (s *Suspect) expires() time.Duration { return max(s.Lease, s.ExpireAfter) }

// A Mode is what an operator lets the judge do.
type Mode int

// The modes.
const (
	// Auto: judge by the rules.
	Auto Mode = iota

	// Hold: strike nobody off. It is the caller who bounds for how long.
	Hold

	// Hasten: a mass expiry is what it looks like; strike off all that is due,
	// without the hold and its rate. The two witnesses are needed as ever.
	Hasten
)

// A Round is what a judge is told at one tick.
type Round struct {
	// Credited is what the leader's Clock shows.
	Credited time.Duration

	// Fleet is the number of producers on the roll, suspects included.
	Fleet int

	// Suspects are all of them, each once.
	Suspects []Suspect

	Control Mode
}

// A Verdict is what is to be done about suspects.
type Verdict struct {
	// Strike are to be struck off, by a compare-and-set on the revision that was
	// judged. One whose compare-and-set fails for a renewal has won; one that
	// could not be written is told again.
	Strike []assignment.ProducerID

	// Recovered do not fail any more: their records among the suspects are to be
	// deleted.
	Recovered []assignment.ProducerID

	// Unreachable renew, and yet their collector has not reached them for a whole
	// lease: each is to be moved to another collector, and [Judge.Moved] told of
	// those that were.
	Unreachable []assignment.ProducerID

	// Due is how many could be struck off in this round if there were no hold:
	// with both witnesses against them now.
	Due int

	// Mass is how many were struck off within the last lease, or have a clock
	// that runs out within the next one, and Of the size of the fleet with those
	// that were struck off. During a hold both include all whom it has struck off.
	Mass, Of int

	// Held tells that a mass expiry is being held back, HeldFor for how long in
	// credited time, and Paced that its lease is over and 1 % of the fleet a
	// minute may go. Whoever sees Held should be loud about it.
	Held    bool
	HeldFor time.Duration
	Paced   bool
}
