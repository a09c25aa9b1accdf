package guard

import (
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A Held producer is absent from the accepted set and still collected, because
// its removal is not believed.
type Held struct {
	// Assignment is what was accepted last.
	Assignment *assignment.Assignment

	// Epoch and Revision are those of the last set which had it: the registry of
	// that epoch knew it. What was named as removed by then, it has had again
	// since.
	Epoch    assignment.Epoch
	Revision assignment.Revision

	// Since is when it was first absent.
	Since time.Time

	// Confirmed is for how long in all the registry has confirmed the absence.
	Confirmed time.Duration

	// Cause is what the registry says of it: CauseExpired, which waits for a
	// second witness, or CauseUnspecified. It is not kept across a restart; a
	// registry that is asked again says it again.
	Cause assignment.Cause
}

// holding is what the guard keeps of a held producer.
type holding struct {
	Held

	// at is what the confirmation clock showed at Held.Confirmed, and saved how
	// much was confirmed when its owner was last given it to keep.
	at, saved time.Duration
}

// A Departure is a former member of the accepted set.
type Departure struct {
	Assignment *assignment.Assignment

	// Cause is CauseUnspecified when the registry did not name it.
	Cause assignment.Cause
}

// A Change is what a sealed snapshot made of the accepted set.
type Change struct {
	// Had is the epoch of the set before, HadRevision its revision, and Epoch that
	// of the set after.
	Had         assignment.Epoch
	HadRevision assignment.Revision
	Epoch       assignment.Epoch

	// Present are the members that it brought, Gone those that it took away.
	Present []*assignment.Assignment
	Gone    []Departure

	// Named are producers that it names as removed although they were no
	// members.
	Named []assignment.Removal
}

// A Release lets go of a producer.
type Release struct {
	ProducerID assignment.ProducerID

	// Stale tells that the producer is gone for good: nobody collects it from
	// now on, so its series end.
	Stale bool
}

// A Reason is why a hold ended; a closed set.
type Reason string

// The reasons.
const (
	// ReasonNamed: a snapshot named the removal after all.
	ReasonNamed Reason = "named"

	// ReasonExplained: the answer to an acknowledgement named it.
	ReasonExplained Reason = "explained"

	// ReasonFailing: its own collections say that it is dead.
	ReasonFailing Reason = "failing"

	// ReasonConfirmed: the registry has confirmed the absence for long enough.
	ReasonConfirmed Reason = "confirmed"

	// ReasonOperator: an operator said so.
	ReasonOperator Reason = "operator"

	// ReasonReturned: it is in the accepted set again, and goes on being
	// collected.
	ReasonReturned Reason = "returned"
)

// Reasons are all of them.
func Reasons() []Reason {
	return []Reason{ReasonNamed, ReasonExplained, ReasonFailing, ReasonConfirmed, ReasonOperator, ReasonReturned}
}

// An Ended hold is one that is over.
type Ended struct {
	ProducerID assignment.ProducerID
	Reason     Reason
}

// A Verdict is what is to be done about absences.
type Verdict struct {
	// Released are to be collected no more: former members whose removal is
	// believed, and those whose hold ended other than by their return.
	Released []Release

	// Held are newly held back.
	Held []Held

	// Ended are held no more.
	Ended []Ended
}

// EndedIDs are the producers that are held no more.
func (v *Verdict) EndedIDs() []assignment.ProducerID {
	ids := make([]assignment.ProducerID, len(v.Ended))
	for i, e := range v.Ended {
		ids[i] = e.ProducerID
	}
	return ids
}
