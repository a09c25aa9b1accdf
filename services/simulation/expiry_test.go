package simulation

import (
	"time"

	storev1 "github.com/rollcall-metrics/rollcall/gen/rollcall/store/v1"
	"google.golang.org/protobuf/proto"
)

// Every other producer has a short lease.
const (
	leaseTime   = 40 * time.Second
	expireAfter = time.Minute
)

func isLeased(id string) bool { return (id[len(id)-1]-'0')%2 == 0 }

// An ailment is what keeps a producer with a short lease from renewing or from
// answering, until it registers again, and what was heard of it. The journal's
// lock guards it.
type ailment struct {
	leased bool

	dead   bool // neither renews nor answers
	lapsed bool // does not renew
	hidden bool // does not answer

	ailingSince time.Time // it has not answered
	renewed     time.Time // when that was acknowledged last
	answered    time.Time // when a collection succeeded last
	refused     time.Time // when one failed last
	failed      bool      // one has failed since the last quiet time

	// unsaid tells that its last registration was not answered: until a renewal is,
	// it may be collected as it was before.
	unsaid bool

	// struck tells that it was struck off, rightly, and has not registered since;
	// struckAt when it was struck off last.
	struck   bool
	struckAt time.Time
}

// silent tells that it does not renew, so that a registry which has forgotten it
// does not learn of it again.
func (a *ailment) silent() bool { return a.dead || a.lapsed }

// strikes is what a journal knows of the time in which nobody can be struck off.
type strikes struct {
	calm     time.Time // when the last quiet time began
	lost     time.Time // when a store lost something last
	secluded time.Time // when a collector was cut off from the producers last
	ill      []span    // in which no registry was well
}

type span struct{ from, to time.Time }

// maxDead is how many producers are dead at a time: one more would be a mass.
const maxDead = 2

func (j *journal) die(id string) {
	j.judgeGaps()
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for _, s := range j.subjects {
		if s.dead {
			n++
		}
	}
	if s := j.subjects[id]; n < maxDead && s.wanted && s.certain && !s.dead {
		s.dead, s.ailingSince, s.failed = true, time.Now(), true
		s.owed, s.carriers = false, nil
	}
}

func (j *journal) lapse(id string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.subjects[id]
	if s.wanted && s.certain && !s.unsaid && !s.hidden { // else it would be dead
		s.lapsed = true
	}
}

func (j *journal) hide(id string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.subjects[id]
	if !s.hidden && !s.lapsed {
		s.hidden, s.ailingSince = true, time.Now()
	}
	s.failed = s.failed || s.hidden
}

// recover ends what ails a producer.
func (j *journal) recover(s *subject) {
	j.mu.Lock()
	defer j.mu.Unlock()
	s.dead, s.lapsed, s.hidden = false, false, false
}

// seclude notes that a collector is cut off from the producers for a while.
func (j *journal) seclude() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.secluded = time.Now()
}

// noteHealth notes whether any registry is well.
func (t *town) noteHealth() {
	well := false
	for _, r := range t.registries {
		well = well || r.host != nil && r.gate.isOpen()
	}
	j := t.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	now := time.Now()
	if n := len(j.ill); n > 0 && j.ill[n-1].to.IsZero() {
		if well {
			j.ill[n-1].to = now
		}
	} else if !well {
		j.ill = append(j.ill, span{from: now})
	}
}

// unnoticed is how long a registry may stand still and count the time all the
// same: between two ticks of its clock.
const unnoticed = 15 * time.Second

// illFor is for how long of a time no registry was well. mu is held.
func (j *journal) illFor(from, to time.Time) (sum time.Duration) {
	for _, s := range j.ill {
		begin, end := s.from, s.to
		if begin.Before(from) {
			begin = from
		}
		if end.IsZero() || end.After(to) {
			end = to
		}
		if ill := end.Sub(begin); ill > unnoticed {
			sum += ill
		}
	}
	return sum
}

// lookForStrikes judges who was struck off since the last look. That somebody was
// is the one thing that the store is asked: its collector goes on with one that
// has not failed for ten minutes.
func (t *town) lookForStrikes() {
	j := t.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, id := range j.order {
		s := j.subjects[id]
		var gone storev1.RemovedRecord
		const expired = 3
		if err := proto.Unmarshal(t.store.Get("/rollcall/v1/removed/"+id), &gone); err != nil || gone.GetCause() != expired {
			continue
		}
		at := gone.GetRemoveTime().AsTime()
		if at.Equal(s.struckAt) || !s.wanted || len(t.store.Get("/rollcall/v1/producers/"+id)) > 0 {
			continue
		}
		s.struck, s.struckAt = true, at
		s.owed, s.carriers = false, nil
		if at.After(j.lost) && !s.tainted {
			t.faults["(struck off)"]++
			j.judgeStrike(s, at)
		}
	}
}

// behind is for how long a registry may answer a renewal by a view that does not
// know yet that the producer is suspected.
const behind = 20 * time.Second

// judgeStrike judges one who was struck off: neither renewed nor answered, for the
// whole time, under one leader that was well. mu is held.
func (j *journal) judgeStrike(s *subject, at time.Time) {
	if !s.leased {
		j.violateLocked("%s was struck off within its lease", s.id)
		return
	}
	silent := s.renewed.Add(-behind)
	if !j.secluded.After(at.Add(-expireAfter - time.Minute)) { // else its collector may be the one that cannot reach it
		if s.answered.After(silent) {
			silent = s.answered
		}
	}
	var lead storev1.LeaderRecord
	if err := proto.Unmarshal(j.town.store.Get("/rollcall/v1/leader"), &lead); err == nil {
		if elected := lead.GetElectTime().AsTime(); elected.After(silent) && !elected.After(at) {
			silent = elected
		}
	}
	if stood := at.Sub(silent) - j.illFor(silent, at); stood < expireAfter {
		j.violateLocked("%s was struck off %v after it renewed, %v after it answered, %v of a leader's time", s.id,
			at.Sub(s.renewed).Round(time.Millisecond), at.Sub(s.answered).Round(time.Millisecond), stood.Round(time.Millisecond))
	}
}

// judgeDead judges, at the end of a quiet time, one that was dead all along: it is
// on the roll no more. mu is held.
func (j *journal) judgeDead(s *subject) {
	if !s.wanted || !s.certain || s.tainted || s.doubt || s.ailingSince.After(j.calm) {
		return
	}
	if len(j.town.store.Get("/rollcall/v1/producers/"+s.id)) > 0 {
		j.violateLocked("%s has been dead for %v, and is on the roll", s.id, time.Since(s.ailingSince).Round(time.Millisecond))
	}
}
