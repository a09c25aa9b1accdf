package schedule

import (
	"slices"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// maxUnrunnable is how many Unrunnable lists.
const maxUnrunnable = 1000

// statusBatch is how many statuses are read at a time by List: a reader must
// not hold up the collections.
const statusBatch = 64

// A Status is an applied producer and how its collections go.
type Status struct {
	// Assignment is the one applied last, also when it cannot be run.
	Assignment *assignment.Assignment

	// UnrunnableReason says, for people, why Assignment cannot be run here. An
	// older one may be running all the same. Empty when it can.
	UnrunnableReason string

	// Next is the next instant of the grid, zero when nothing is run.
	Next time.Time

	// Last is the last collection's result, zero before the first one.
	Last Result

	// LastSuccess and LastFailure are when a collection last came to that end,
	// zero for never.
	LastSuccess, LastFailure time.Time

	// Success and Failure are what the last collection that succeeded came to,
	// and the last one that failed; zero before there was one. Each is told also
	// after the other, and after a change of the endpoint.
	Success, Failure Result

	// Successes and Failures count since the producer was applied. So do the due
	// times without a collection: Missed is all of them, MissedOverlap those at
	// which the collection before was running, and MissedBudget those for which
	// this collector had no room.
	Successes, Failures                 int64
	Missed, MissedOverlap, MissedBudget int64

	// FailingSince is when the first of the failures since the last success
	// came to its end. It is zero when the last collection succeeded, and when
	// none of the present endpoint has failed.
	FailingSince time.Time
}

// An Unrunnable is an applied producer whose assignment cannot be run here.
type Unrunnable struct {
	ProducerID assignment.ProducerID

	// Reason is for people.
	Reason string
}

// Len is the number of producers in the applied set.
func (s *Schedule) Len() int { return s.applied.Load().count }

// Find returns the status of an applied producer.
func (s *Schedule) Find(id assignment.ProducerID) (Status, bool) {
	m, ok := s.applied.Load().find(id)
	if !ok {
		return Status{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status(m), true
}

// List returns the status of up to limit producers behind an id, in the order of
// the ids, of those that keep wants; nil keeps all. The answer is of one applied
// set. keep is called without locks.
func (s *Schedule) List(after assignment.ProducerID, limit int, keep func(*Status) bool) []Status {
	var list []Status
	var batch [statusBatch]member
	n := 0
	flush := func() {
		for _, status := range s.statuses(batch[:n]) {
			if len(list) < limit && (keep == nil || keep(&status)) {
				list = append(list, status)
			}
		}
		n = 0
	}
	for m := range s.applied.Load().after(after) {
		if len(list) >= limit {
			return list
		}
		batch[n] = m
		if n++; n == min(statusBatch, limit-len(list)) {
			flush()
		}
	}
	flush()
	return list
}

// Unrunnable returns how many assignments of the applied set cannot be run
// here, and the first 1,000 of them in the order of the ids.
func (s *Schedule) Unrunnable() (count int, first []Unrunnable) {
	s.mu.Lock()
	all := make([]Unrunnable, 0, len(s.unrunnable))
	for id, u := range s.unrunnable {
		all = append(all, Unrunnable{id, u.reason})
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b Unrunnable) int { return compareIDs(a.ProducerID, b.ProducerID) })
	return len(all), slices.Clone(all[:min(len(all), maxUnrunnable)])
}

func (s *Schedule) statuses(members []member) []Status {
	list := make([]Status, len(members))
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, m := range members {
		list[i] = s.status(m)
	}
	return list
}

// status is that of a member of a roll that may be an old one. mu is held.
func (s *Schedule) status(m member) Status {
	e, r, t := m.entry, &m.entry.record, m.entry.record.troubles()
	status := Status{
		Assignment:    m.assigned,
		Success:       r.succeeded(),
		Failure:       t.last(),
		LastSuccess:   unixTime(r.success),
		LastFailure:   unixTime(t.failure),
		Successes:     r.successes,
		Failures:      t.failures,
		Missed:        t.overlap + t.budget,
		MissedOverlap: t.overlap,
		MissedBudget:  t.budget,
		FailingSince:  unixTime(t.failingSince),
	}
	if status.Last = status.Success; r.failed {
		status.Last = status.Failure
	}
	if u, ok := s.unrunnable[e.id]; ok && u.assigned == m.assigned {
		status.UnrunnableReason = u.reason
	}
	if e.slot != noSlot {
		status.Next = time.UnixMilli(s.due.tick(e))
	}
	return status
}
