package roster

import (
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// Every change of collector is a handoff: the one that has the producer goes on
// with it, also when it seems to be gone, until the one that was given it has
// collected it.

// Give decides what giving a producer to a collector writes; nothing if it has
// it already. Out of an unfinished handoff the one that really has the producer
// goes on with it. Back to that one the handoff is over. alone says that the
// collector before shall not go on with it.
func Give(e *Entry, to Place, alone bool, now time.Time) Txn {
	if to.Collector == e.Collector {
		return nil
	}
	next := e.Producer
	if next.HandoffFrom == "" {
		next.HandoffFrom = e.Collector
	}
	if alone && next.HandoffFrom == e.Collector || next.HandoffFrom == to.Collector {
		next.HandoffFrom = ""
	}
	next.MovedFrom = e.Collector
	next.Collector, next.AssignReason, next.AssignTime = to.Collector, to.Reason, now
	return Txn{{Key: next.Key(), Expect: e.Revision, Record: &next}}
}

// Finish decides what the end of a handoff writes: the collector that was given
// the producer has it. Nothing if it is in none.
func Finish(e *Entry) Txn {
	if e.HandoffFrom == "" {
		return nil
	}
	next := e.Producer
	next.HandoffFrom = ""
	return Txn{{Key: next.Key(), Expect: e.Revision, Record: &next}}
}

// Reclaim decides what becomes of a producer that a collector holds, absent from
// its set, while another one was given it: the holder is in its set again, and
// hands it off to the other one. Nothing if a handoff is under way already.
func Reclaim(e *Entry, holder assignment.CollectorID) Txn {
	if e.HandoffFrom != "" || e.Collector == "" || e.Collector == holder {
		return nil
	}
	next := e.Producer
	next.HandoffFrom = holder
	return Txn{{Key: next.Key(), Expect: e.Revision, Record: &next}}
}

// An Adoption is a producer that a collector has kept for a registry which lost
// its store.
type Adoption struct {
	ID        assignment.ProducerID
	Stored    []byte
	Collector assignment.CollectorID
	Life
}

// Adopt decides what an adoption writes: a producer that is known, or was
// removed in this epoch, stays as it is, and nothing is written.
func (v *View) Adopt(a Adoption, now time.Time) Txn {
	removed, was := v.Removed(a.ID)
	if v.Producer(a.ID) != nil || was && removed.Revision > v.epochRevision {
		return nil
	}
	next := Producer{
		ID:           a.ID,
		Stored:       a.Stored,
		Version:      assignment.VersionOf(a.Stored),
		Collector:    a.Collector,
		AssignTime:   now,
		AssignReason: PlacementAdopted,
		Life:         a.Life,
		CreateTime:   now,
		UpdateTime:   now,
	}
	return Txn{
		{Key: next.Key(), Record: &next},
		{Key: RemovedKey(a.ID), Expect: removed.Revision, Check: removed.Revision == 0},
	}
}
