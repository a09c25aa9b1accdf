package guard_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/guard"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"pgregory.net/rapid"
)

// model is what must be true of a guard, kept in the plainest way.
type model struct {
	*rapid.T
	guard    *guard.Guard
	now      time.Time
	epoch    assignment.Epoch
	epochs   int
	accepted map[assignment.ProducerID]bool
	held     map[assignment.ProducerID]*hold

	// failing is since when a producer fails, sick since when this collector's
	// own network does, and well since when it does not.
	failing map[assignment.ProducerID]time.Time
	sick    bool
	well    time.Time
	ticked  time.Time

	linked    bool
	confirmed []time.Time // when something went by confirmation
}

// hold is what is known of a held producer.
type hold struct {
	epoch assignment.Epoch
	fresh time.Duration // most that can have been confirmed
}

const fleet = 12

func (m *model) ids() []assignment.ProducerID {
	ids := make([]assignment.ProducerID, fleet)
	for i := range ids {
		ids[i] = assignment.ProducerID(fmt.Sprintf("p-%02d", i))
	}
	return ids
}

func (m *model) evidence(id assignment.ProducerID) guard.Evidence {
	since, ok := m.failing[id]
	if m.sick && (!ok || m.well.After(since)) {
		since, ok = m.well, true // when it fell sick
	}
	if !ok {
		return guard.Evidence{}
	}
	return guard.Evidence{Interval: time.Minute, FailingSince: since, Failures: int(m.now.Sub(since) / time.Minute)}
}

func (m *model) survey() guard.Survey {
	s := guard.Survey{Applied: len(m.accepted) + len(m.held), Run: fleet, Answering: fleet, MedianInterval: time.Minute}
	s.Failing = map[assignment.ProducerID]guard.Evidence{}
	if m.sick {
		s.Answering = 1
	}
	for id := range m.held {
		if e := m.evidence(id); e.Failures > 0 {
			s.Failing[id] = e
		}
	}
	return s
}

// advance lets time go by.
func (m *model) advance(d time.Duration, beats bool) {
	for range d / (10 * time.Second) {
		m.now = m.now.Add(10 * time.Second)
		if beats && m.linked {
			m.guard.Agree(m.now, beat)
		}
		for _, h := range m.held {
			h.fresh += 10 * time.Second // at most
		}
		s := m.survey()
		v := m.guard.Tick(&s, m.now)
		m.ticked = m.now
		m.judge(&v, nil)
	}
}

// judge checks what the guard did: every hold that ended had a reason that holds.
func (m *model) judge(v *guard.Verdict, named map[assignment.ProducerID]assignment.Cause) {
	released := map[assignment.ProducerID]bool{}
	for _, r := range v.Released {
		released[r.ProducerID] = true
	}
	for _, e := range v.Ended {
		h := m.held[e.ProducerID]
		if h == nil {
			m.Fatalf("%s was not held", e.ProducerID)
		}
		if released[e.ProducerID] == (e.Reason == guard.ReasonReturned) {
			m.Fatalf("%s ended as %s", e.ProducerID, e.Reason)
		}
		m.judgeReason(e, h, named)
		delete(m.held, e.ProducerID)
		delete(released, e.ProducerID)
	}
	for id := range released {
		if c := named[id]; c != assignment.CauseDeregistered && c != assignment.CauseHandedOff && !m.dead(id) {
			m.Fatalf("%s was released with cause %d", id, c)
		}
	}
}

func (m *model) judgeReason(e guard.Ended, h *hold, named map[assignment.ProducerID]assignment.Cause) {
	id := e.ProducerID
	switch e.Reason {
	case guard.ReasonNamed, guard.ReasonExplained:
		if c := named[id]; c != assignment.CauseDeregistered && c != assignment.CauseHandedOff && (c != assignment.CauseExpired || !m.dead(id)) {
			m.Fatalf("%s went as %s with cause %d", id, e.Reason, c)
		}
	case guard.ReasonFailing:
		if !m.dead(id) {
			m.Fatalf("%s went as dead", id)
		}
	case guard.ReasonConfirmed:
		m.judgeConfirmed(id, h)
	case guard.ReasonReturned:
		if !m.accepted[id] {
			m.Fatalf("%s has not returned", id)
		}
	case guard.ReasonOperator:
		if _, asked := named[id]; !asked {
			m.Fatalf("nobody asked for %s", id)
		}
	}
}

func (m *model) judgeConfirmed(id assignment.ProducerID, h *hold) {
	if h.fresh < 24*time.Hour {
		m.Fatalf("%s was confirmed for %v at most", id, h.fresh)
	}
	if h.epoch != m.epoch && m.now.Sub(m.evidence(id).FailingSince) < 24*time.Hour {
		m.Fatalf("%s answers, and the epoch has changed", id)
	}
	m.confirmed = append(m.confirmed, m.now)
	inMinute := 0
	for _, at := range m.confirmed {
		if m.now.Sub(at) < time.Minute {
			inMinute++
		}
	}
	if inMinute > 1 { // 1 % of this fleet is less than one
		m.Fatalf("%d went by confirmation in a minute", inMinute)
	}
}

// dead is the rule in the plainest way: it fails for ten minutes, and this
// collector was well for ten minutes.
func (m *model) dead(id assignment.ProducerID) bool {
	since, fails := m.failing[id]
	return fails && !m.sick && m.now.Sub(since) >= 10*time.Minute && m.now.Sub(m.well) >= 10*time.Minute
}

// seal makes some set the accepted one. Nothing that was collected vanishes but
// by a verdict, and what is new is never kept back.
func (m *model) seal(next map[assignment.ProducerID]bool, epoch assignment.Epoch) {
	c := &guard.Change{Had: m.epoch, Epoch: epoch}
	named := map[assignment.ProducerID]assignment.Cause{}
	for _, id := range m.ids() {
		cause := rapid.SampledFrom([]assignment.Cause{0, 0, 0, 1, 2, 3, 9}).Draw(m.T, "cause")
		if epoch != m.epoch {
			cause = assignment.CauseUnspecified
		}
		switch {
		case next[id] && !m.accepted[id]:
			c.Present = append(c.Present, member(id))
		case !next[id] && m.accepted[id]:
			c.Gone = append(c.Gone, guard.Departure{Assignment: member(id), Cause: cause})
			named[id] = cause
		case !next[id] && cause != 0:
			c.Named = append(c.Named, assignment.Removal{ProducerID: id, Cause: cause, Revision: 1})
			named[id] = cause
		}
	}
	had := m.epoch
	m.accepted, m.epoch = next, epoch
	v := m.guard.Seal(c, beat, m.evidence, m.now)
	m.judge(&v, named)
	for _, h := range v.Held {
		if h.Epoch != had {
			m.Fatalf("%s is held of epoch %s, the set was of %s", h.Assignment.ProducerID, h.Epoch, had)
		}
		m.held[h.Assignment.ProducerID] = &hold{epoch: had}
	}
	if len(v.Held)+len(v.Released) < len(c.Gone) {
		m.Fatalf("of %d gone %d are held and %d released", len(c.Gone), len(v.Held), len(v.Released))
	}
}

func (m *model) draw() map[assignment.ProducerID]bool {
	next := map[assignment.ProducerID]bool{}
	for _, id := range m.ids() {
		if rapid.IntRange(0, 3).Draw(m.T, "member") > 0 {
			next[id] = true
		}
	}
	return next
}

func (m *model) one() assignment.ProducerID { return rapid.SampledFrom(m.ids()).Draw(m.T, "producer") }

// same checks that the guard holds what the model does.
func (m *model) same(*rapid.T) {
	if m.guard.Len() != len(m.held) {
		m.Fatalf("%d held, want %d", m.guard.Len(), len(m.held))
	}
	for h := range m.guard.After("") {
		mine := m.held[h.Assignment.ProducerID]
		if mine == nil || m.accepted[h.Assignment.ProducerID] || h.Confirmed > mine.fresh {
			m.Fatalf("holds %+v", h)
		}
	}
}

func (m *model) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"":     m.same,
		"seal": func(*rapid.T) { m.seal(m.draw(), m.epoch) },
		"epoch": func(*rapid.T) {
			m.epochs++
			m.guard.NewStream()
			m.seal(m.draw(), assignment.Epoch(fmt.Sprintf("e-%d", m.epochs)))
		},
		"minutes": func(t *rapid.T) { m.advance(time.Duration(rapid.IntRange(1, 30).Draw(t, "minutes"))*time.Minute, true) },
		"hours":   func(t *rapid.T) { m.advance(time.Duration(rapid.IntRange(1, 30).Draw(t, "hours"))*time.Hour, true) },
		"link": func(*rapid.T) {
			m.linked = !m.linked
			m.guard.NewStream()
		},
		"health": func(*rapid.T) {
			m.sick = !m.sick
			m.well = m.now
			m.advance(10*time.Second, true)
		},
		"fail": func(*rapid.T) {
			if id := m.one(); m.failing[id].IsZero() {
				m.failing[id] = m.now
			}
		},
		"answer": func(*rapid.T) { delete(m.failing, m.one()) },
		"explain": func(t *rapid.T) {
			id, cause := m.one(), rapid.SampledFrom([]assignment.Cause{0, 1, 2, 3}).Draw(t, "cause")
			v := m.guard.Explain([]assignment.Removal{{ProducerID: id, Cause: cause, Revision: 1}}, m.evidence, m.now)
			m.judge(&v, map[assignment.ProducerID]assignment.Cause{id: cause})
		},
		"operator": func(*rapid.T) {
			id := m.one()
			v := m.guard.Release([]assignment.ProducerID{id})
			m.judge(&v, map[assignment.ProducerID]assignment.Cause{id: 0})
		},
	}
}

// TestModel: whatever happens, a hold ends for one of the reasons only, nothing
// vanishes that is not held, and confirmation keeps its pace.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := time.Unix(1e9, 0)
		m := &model{
			T: t, guard: guard.New("e-0", nil), now: start, well: start, epoch: "e-0", linked: true,
			accepted: map[assignment.ProducerID]bool{}, held: map[assignment.ProducerID]*hold{}, failing: map[assignment.ProducerID]time.Time{},
		}
		m.advance(10*time.Second, true)
		m.seal(m.draw(), m.epoch)
		t.Repeat(m.actions())
	})
}
