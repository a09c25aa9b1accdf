package schedule

import (
	"slices"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// surveyBatch is how many entries Survey looks at without letting collections
// go on.
const surveyBatch = 1024

// Evidence is what the collections of one producer say of it. The zero value
// says nothing.
type Evidence struct {
	// Interval is that of the collections.
	Interval time.Duration

	// FailingSince is when the first of the failures in a row came to its end,
	// on the clock of the process: a step of the wall clock does not move it.
	// Failures counts them. Both are of the present endpoint, and zero when the
	// last collection succeeded or failed for a reason of this collector's own.
	FailingSince time.Time
	Failures     int
}

// A Survey is what the collections say of all applied producers.
type Survey struct {
	// Applied is the number of applied producers, Run of those that have a
	// collection, and Answering of those whose last one succeeded.
	Applied, Run, Answering int

	// MedianInterval is that of the applied producers, the longer one of two in
	// the middle; zero when there are none.
	MedianInterval time.Duration

	// Failing is the evidence on those that were asked about and do not answer.
	Failing map[assignment.ProducerID]Evidence
}

// Evidence returns what the collections of a producer say.
func (s *Schedule) Evidence(id assignment.ProducerID) Evidence {
	m, ok := s.applied.Load().find(id)
	if !ok {
		return Evidence{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.evidence(m.entry)
}

// Survey looks at all applied producers, and more closely at those that are
// asked about. It calls about without locks.
func (s *Schedule) Survey(about func(assignment.ProducerID) bool) Survey {
	survey := Survey{Failing: map[assignment.ProducerID]Evidence{}}
	intervals := map[time.Duration]int{}
	batch := make([]member, 0, surveyBatch)
	var silent []*entry
	look := func() {
		silent = s.surveyBatch(&survey, batch, silent[:0])
		for _, e := range silent {
			if about(e.id) {
				survey.Failing[e.id] = s.evidenceOf(e)
			}
		}
		batch = batch[:0]
	}
	for m := range s.applied.Load().after("") {
		survey.Applied++
		intervals[m.assigned.Interval]++
		if batch = append(batch, m); len(batch) == surveyBatch {
			look()
		}
	}
	look()
	survey.MedianInterval = median(intervals, survey.Applied)
	return survey
}

// surveyBatch counts members, and appends those to silent whose collections
// fail.
func (s *Schedule) surveyBatch(survey *Survey, members []member, silent []*entry) []*entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range members {
		e := m.entry
		if e.state == unopened {
			continue
		}
		survey.Run++
		if e.record.success != 0 && !e.record.failed {
			survey.Answering++
		}
		if e.record.troubles().inRow > 0 {
			silent = append(silent, e)
		}
	}
	return silent
}

func (s *Schedule) evidenceOf(e *entry) Evidence {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.evidence(e)
}

// evidence is that of an entry. mu is held.
func (s *Schedule) evidence(e *entry) Evidence {
	t := e.record.troubles()
	if e.state == unopened || t.inRow == 0 {
		return Evidence{}
	}
	return Evidence{
		Interval:     e.work.Interval,
		FailingSince: s.base.Add(t.failingFrom),
		Failures:     int(t.inRow),
	}
}

// median is the middle one of so many values, told by how often each occurs.
func median(counts map[time.Duration]int, n int) time.Duration {
	values := make([]time.Duration, 0, len(counts))
	for v := range counts {
		values = append(values, v)
	}
	slices.Sort(values)
	below := 0
	for _, v := range values {
		if below += counts[v]; below > n/2 {
			return v
		}
	}
	return 0
}
