package simulation

import (
	"maps"
	"slices"
	"time"
)

// evidence is for how long one that is held has not answered until its collector
// lets it go.
const evidence = 10 * time.Minute

// slack is what a first collection and a connection may take.
const slack = 300 * time.Millisecond

// alone tells that nobody but one has collected the producer lately: else it may
// have been handed off since its owner was told.
func (s *subject) alone(who string) bool {
	for other, at := range s.seen {
		if other != who && time.Since(at) <= 2*s.longest+slack {
			return false
		}
	}
	return true
}

// judgeGap notes when a producer that was collected has not been for longer than
// its interval. mu is held.
func (j *journal) judgeGap(s *subject, now time.Time) {
	if !s.owed || s.tainted && s.hidden && now.Sub(s.ailingSince) >= evidence {
		return
	}
	since := s.last
	carriers := s.carriers
	if s.failed { // another one may be given it that was not seen to try
		carriers = slices.Collect(maps.Keys(j.collectors))
	}
	for _, id := range carriers {
		c := j.collectors[id]
		if len(c.impaired) > 0 {
			return
		}
		if c.excused.After(since) {
			since = c.excused
		}
	}
	allowed := s.interval + slack
	if s.before > 0 {
		allowed += s.before
	}
	allowed += s.absent
	if s.hung {
		allowed += s.interval / 2 // a first collection may last into a due time, which is then missed
	}
	if gap := now.Sub(since); gap > allowed {
		j.violateLocked("%s was not collected for %v by %v; its interval is %v", s.id, gap.Round(time.Millisecond), s.carriers, s.interval)
		s.last = now // once is enough
	}
}

// judgeGaps judges all producers as of now.
func (j *journal) judgeGaps() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, s := range j.subjects {
		j.judgeGap(s, time.Now())
	}
}

// judgeQuiet judges who is collected by whom now that everything works and has
// worked for a while.
func (j *journal) judgeQuiet() {
	j.judgeGaps()
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, id := range j.order {
		s := j.subjects[id]
		by := s.keepers()
		switch {
		case s.dead:
			j.judgeDead(s)
		case s.struck: // and held, or gone
		case s.lapsed && s.tainted && !s.owed: // the store has forgotten it, and so has a collector's disk
		case s.wanted && s.certain && len(by) == 0:
			j.violateLocked("%s is registered and collected by nobody", id)
		case s.hidden && len(by) > 1: // one that nobody reaches is moved once, until the time-out
		case s.wanted && !s.tainted && len(by) > 1:
			j.violateLocked("%s is collected by %v, and no store has lost anything", id, by)
		case !s.wanted && s.certain && (!s.tainted || j.stands(s.left)) && len(by) > 0:
			j.violateLocked("%s was deregistered and is collected by %v", id, by)
		}
		if s.wanted && len(by) == 1 && !s.silent() || !s.wanted && len(by) == 0 {
			s.tainted = false
		}
		s.hung, s.absent, s.doubt, s.failed = false, 0, false, s.hidden
		if !s.tainted || !s.silent() { // else it is collected as it was before its last change
			s.before = 0
		}
	}
	for _, c := range j.collectors {
		c.wounded = false
	}
	for _, s := range j.subjects {
		s.pulls = slices.DeleteFunc(s.pulls, func(p pull) bool { return time.Since(p.at) > time.Minute })
	}
}

// keepers are the collectors without those that have left it to the last of them
// meanwhile: a handoff may have come to its end a moment ago.
func (s *subject) keepers() []string {
	by := s.collectors()
	begin := time.Now().Add(-s.longest - slack)
	first := map[string]time.Time{}
	last := ""
	for _, p := range s.pulls {
		if p.at.Before(begin) {
			continue
		}
		if first[p.by].IsZero() {
			first[p.by] = p.at
		}
		last = p.by
	}
	return slices.DeleteFunc(by, func(who string) bool { return who != last && !s.seen[who].After(first[last].Add(handing)) })
}

// handing is what the end of a handoff may take when everything works.
const handing = 2 * time.Second

// collectors are the processes that have collected the producer within the
// longest interval that it ever had: some may know it as it was.
func (s *subject) collectors() []string {
	var by []string
	for who, at := range s.seen {
		if time.Since(at) <= s.longest+slack {
			by = append(by, who)
		}
	}
	slices.Sort(by)
	return by
}
