package simulation

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A journal judges a town: from its own log of what was asked for and
// acknowledged, and from what the producers saw. It never asks a registry who is
// to be collected.
type journal struct {
	town *town

	mu         sync.Mutex // guards all below
	violations []string
	subjects   map[string]*subject
	order      []string
	collectors map[string]*watched

	// spoiled are epochs in which a store has lost something.
	spoiled map[string]bool

	strikes
}

// A subject is one producer, as its owner knows it.
type subject struct {
	id       string
	interval time.Duration
	before   time.Duration // the interval before the last change
	longest  time.Duration // that it ever had
	varied   bool          // it ever had another
	mute     string        // how it fails to answer; empty: it answers
	hung     bool          // it has let a collection run to its timeout since the last quiet time

	// wantedNot is when its owner took it off last, and absent how long it was off:
	// a collector that hears of both late leaves it for as long.
	wantedNot time.Time
	absent    time.Duration

	// wanted tells what its owner asked for last; certain, that this was
	// acknowledged, by a registry that knew what it said.
	wanted  bool
	certain bool
	owner   string // as the last acknowledgement told

	// instance counts its processes; a new one has taken the place of the last.
	// acked are those whose registration was acknowledged, the last one as written
	// at a revision.
	instance int
	acked    []int
	written  int64

	// tainted tells that a store has lost or forgotten something since this
	// producer was last seen to be collected by exactly one or by nobody.
	tainted bool

	ailment

	// doubt tells that a call about it was broken off: it may be carried out late,
	// after what was asked for since.
	doubt bool

	// left is the epoch in which a registry has taken it off the roll; empty when
	// none has, or a store has lost something since. In a later epoch that names
	// nothing any more; nor does it for sure in one in which a store was set back.
	left string

	// owed tells that it was collected since it was wanted: from then on it is,
	// in each interval, whatever the registries say.
	owed     bool
	carriers []string  // that have collected it lately
	last     time.Time // when it was collected last
	seen     map[string]time.Time
	pulls    []pull // of the last minutes
}

// A pull is one collection.
type pull struct {
	by string
	at time.Time
}

// watched is one collector.
type watched struct {
	twin     bool
	impaired map[impairment]bool // what keeps it from collecting, now
	excused  time.Time           // until then it is not expected to have collected
	wounded  bool                // its disk failed since the last quiet time
	epoch    string              // of its accepted set
	accepted map[string]int64    // highest revision seen in each epoch
}

type impairment string

const (
	crashed  impairment = "crashed"
	secluded impairment = "cut off from the producers"
	frozen   impairment = "frozen"
)

func newJournal(t *town) *journal {
	j := &journal{town: t, subjects: map[string]*subject{}, collectors: map[string]*watched{}, spoiled: map[string]bool{}}
	for i := range townProducers {
		id := fmt.Sprintf("p-%02d", i+1)
		j.order = append(j.order, id)
		j.subjects[id] = &subject{id: id, seen: map[string]time.Time{}, ailment: ailment{leased: isLeased(id)}}
	}
	for i := range townCollectors {
		for _, twin := range []string{"", "-twin"} {
			j.collectors[fmt.Sprintf("c-%d%s", i+1, twin)] = &watched{impaired: map[impairment]bool{}, accepted: map[string]int64{}, twin: twin != ""}
		}
	}
	return j
}

func (j *journal) violate(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.violateLocked(format, args...)
}

// violateLocked notes a violation; mu is held. The first ones tell the story.
func (j *journal) violateLocked(format string, args ...any) {
	if len(j.violations) < 10 {
		at := time.Since(j.town.begun).Round(time.Millisecond)
		j.violations = append(j.violations, fmt.Sprintf("%v, at %q: ", at, j.town.step)+fmt.Sprintf(format, args...))
	}
}

// pulled is told by a producer that a process has pulled it, and answers how it
// fails to answer.
func (j *journal) pulled(who, id string) (mute string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.subjects[id]
	if s == nil {
		j.violateLocked("%s pulls %q, which never was", who, id)
		return ""
	}
	now := time.Now()
	s.seen[who] = now
	s.pulls = append(s.pulls, pull{who, now})
	j.judgeGap(s, now)
	// Who is told as its owner begins the debt; whoever collects it then pays.
	if s.wanted && s.certain && !s.doubt && !s.dead && (s.owner == who && s.alone(who) || s.owed) {
		s.owed, s.last = true, now
		if !slices.Contains(s.carriers, who) {
			s.carriers = append(s.carriers, who)
		}
		// Who has left it to another one owes nothing any more.
		s.carriers = slices.DeleteFunc(s.carriers, func(c string) bool { return now.Sub(s.seen[c]) > 2*s.longest+slack })
	}
	mute = s.mute
	if s.dead || s.hidden {
		mute = "reset"
	}
	if mute == "" {
		s.answered = now
	} else {
		s.refused = now
	}
	return mute
}

// impair notes that a collector cannot collect from now on. What it has done by
// then is judged first.
func (j *journal) impair(id string, why impairment) {
	j.judgeGaps()
	j.mu.Lock()
	defer j.mu.Unlock()
	c := j.collectors[id]
	c.impaired[why] = true
	if why == crashed {
		for epoch := range c.accepted {
			c.accepted[epoch] = 0 // the next process knows what is on disk, which is a minute old at most
		}
	}
	if why == crashed && c.wounded {
		// What was not on its disk, it has forgotten.
		for _, s := range j.subjects {
			if slices.Contains(s.carriers, id) {
				s.owed, s.carriers = false, nil
			}
		}
	}
}

// mend notes that an impairment has ended.
func (j *journal) mend(id string, why impairment) {
	j.mu.Lock()
	defer j.mu.Unlock()
	c := j.collectors[id]
	delete(c.impaired, why)
	c.excuse(time.Second)
}

func (c *watched) excuse(d time.Duration) {
	if until := time.Now().Add(d); until.After(c.excused) {
		c.excused = until
	}
}

// excuse lets a collector be late.
func (j *journal) excuse(id string, d time.Duration) {
	j.judgeGaps()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.collectors[id].excuse(d)
}

// bury notes that a twin has ended: what only it had is lost with it.
func (j *journal) bury(id string) {
	j.judgeGaps()
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, s := range j.subjects {
		if slices.Contains(s.carriers, id) {
			s.owed, s.carriers = false, nil
		}
	}
}

// wound notes that a collector's disk fails.
func (j *journal) wound(id string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.collectors[id].wounded = true
}

// taint notes that a store has lost something: who was replaced, too, and which
// interval was asked for last, until the owner renews.
func (j *journal) taint() {
	j.judgeGaps()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lost = time.Now()
	for _, c := range j.collectors {
		for epoch := range c.accepted {
			j.spoiled[epoch] = true
		}
	}
	for _, s := range j.subjects {
		s.tainted, s.acked, s.left = true, nil, ""
		if s.varied { // two stores may tell two intervals, in turns
			s.before = 2 * s.longest
		}
	}
}

// doubts notes that a call about a producer was broken off, if that is its error.
func (j *journal) doubts(s *subject, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	s.doubts(status.Code(err))
}

func (s *subject) doubts(code codes.Code) {
	if code == codes.DeadlineExceeded {
		s.doubt, s.owed, s.carriers, s.left = true, false, nil, ""
	}
}

// leaving notes that a producer's owner asks for its removal from now on.
func (j *journal) leaving(s *subject) {
	j.judgeGaps()
	j.mu.Lock()
	defer j.mu.Unlock()
	s.wanted, s.certain, s.wantedNot = false, false, time.Now()
	s.owed, s.carriers = false, nil
}

// position notes the accepted revision of a collector, which never goes back
// within an epoch.
func (j *journal) position(id, epoch string, revision int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	c := j.collectors[id]
	if highest := c.accepted[epoch]; revision < highest {
		j.violateLocked("%s went back from revision %d to %d of epoch %s", id, highest, revision, epoch)
	}
	c.epoch, c.accepted[epoch] = epoch, max(c.accepted[epoch], revision)
}

// stands tells whether an epoch is that of all collectors. mu is held.
func (j *journal) stands(epoch string) bool {
	for _, c := range j.collectors {
		if c.epoch != epoch && !c.twin {
			return false
		}
	}
	return true
}
