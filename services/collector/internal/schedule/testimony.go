package schedule

import (
	"iter"
	"slices"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A Testimony is how one applied producer answers, for others to judge by.
type Testimony struct {
	ProducerID assignment.ProducerID

	// FailingSince is when the first of the failures in a row came to its end,
	// Failures counts them, and Reason is that of the last one. They are those of
	// Evidence: of the present endpoint, and zero when the last collection
	// succeeded or failed for a reason of this collector's own.
	FailingSince time.Time
	Failures     int
	Reason       Reason

	// Rate is how many samples a second it yields, by its last success; zero
	// before the first one.
	Rate float64

	// Collected says that a collection has succeeded since it was applied, or got its
	// present endpoint, and Identified that its last answer named it.
	Collected, Identified bool
}

// A Question asks for testimonies.
type Question struct {
	// Of is whom it is about; those who are not applied are left out of the
	// answer. Empty: everyone.
	Of []assignment.ProducerID

	// After is an id: only those behind it are in the answer.
	After assignment.ProducerID

	// Limit is how many are in the answer at most.
	Limit int

	// Failing wants only those that have failures in a row.
	Failing bool
}

// Testify answers a question, in the order of the ids. The answer is of one
// applied set.
func (s *Schedule) Testify(q Question) []Testimony {
	members := s.applied.Load().after(q.After)
	if len(q.Of) > 0 {
		members = s.applied.Load().those(q.Of, q.After)
	}
	var answer []Testimony
	batch := make([]*entry, 0, surveyBatch)
	for m := range members {
		if batch = append(batch, m.entry); len(batch) < surveyBatch {
			continue
		}
		if answer = s.testify(answer, batch, &q); len(answer) == q.Limit {
			return answer
		}
		batch = batch[:0]
	}
	return s.testify(answer, batch, &q)
}

// those ranges over the members with some ids behind one, in the order of the
// ids, each once.
func (r *roll) those(ids []assignment.ProducerID, after assignment.ProducerID) iter.Seq[member] {
	sorted := slices.Compact(slices.Sorted(slices.Values(ids)))
	return func(yield func(member) bool) {
		for _, id := range sorted {
			if m, ok := r.find(id); ok && id > after && !yield(m) {
				return
			}
		}
	}
}

// testify appends the testimonies on some entries, up to the limit.
func (s *Schedule) testify(answer []Testimony, entries []*entry, q *Question) []Testimony {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range entries {
		if len(answer) == q.Limit {
			break
		}
		if !q.Failing || e.record.troubles().inRow > 0 {
			answer = append(answer, s.testimony(e))
		}
	}
	return answer
}

// testimony is that on one entry. mu is held.
func (s *Schedule) testimony(e *entry) Testimony {
	r := &e.record
	t := Testimony{
		ProducerID: e.id,
		Collected:  r.answered,
		Identified: r.identity == IdentityOwn,
	}
	if r.samples > 0 && e.state != unopened {
		t.Rate = float64(r.samples) / e.work.Interval.Seconds()
	}
	if tr := r.troubles(); tr.inRow > 0 {
		t.FailingSince = time.Unix(0, int64(s.wall+tr.failingFrom))
		t.Failures, t.Reason = int(tr.inRow), tr.reason
	}
	return t
}
