package schedule

import (
	"slices"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A Change makes one applied set into the next: upserts, then removals. Of
// several for one id the last one counts; a removal of an id that is not in the
// set does nothing.
type Change struct {
	Upserts  []*assignment.Assignment
	Removals []Removal
}

// A Removal takes a producer out of the applied set.
type Removal struct {
	ProducerID assignment.ProducerID

	// Stale says that the producer is gone for good, so that its series get
	// their stale markers; false after a handoff.
	Stale bool
}

// A step is one edit with what it means for the entry.
type step struct {
	edit
	change change
	stale  bool       // of a removal
	opened Collection // of an insertion
	err    error      // why the assignment cannot be run
	idle   bool       // there is nothing to do
}

type change uint8

const (
	insert  change = iota // the entry gets its first collection, or none with err
	replace               // the same work in another assignment
	alter                 // other work for the collection, or none with err
	remove
)

// Apply makes a change of the set as a whole: a reader sees the set before it or
// after it. It may be called before Run, and does not wait for collections.
//
// New producers are collected at once. An assignment that asks for the same work
// as the one before touches nothing. Other work cancels a running collection,
// and is on its own grid from then on. A producer that comes in the role
// HANDOFF_TARGET is probed, until it has answered once or has another role. What
// cannot be run is kept and told by
// Unrunnable: when Apply returns, or, if the collection was running, when that
// has ended.
func (s *Schedule) Apply(c Change) {
	s.applying.Lock()
	defer s.applying.Unlock()
	if s.stopped { // written with applying held
		return
	}
	steps := s.plan(c)
	if len(steps) == 0 {
		return
	}
	edits := make([]edit, len(steps))
	for i := range steps {
		edits[i] = steps[i].edit
	}
	next := s.applied.Load().edited(edits)

	s.commit(steps, next)
	for i := range steps {
		if steps[i].change == alter {
			s.settleIdle(steps[i].put.entry)
		}
	}
	s.wake()
}

// plan finds out what a change means, and opens what is new. Only applying is
// held: collections go on meanwhile.
func (s *Schedule) plan(c Change) []step {
	steps := stepsOf(c)
	applied := s.applied.Load()
	inParts(len(steps), func(i int) {
		st := &steps[i]
		old, found := applied.find(st.id)
		st.idle = !s.planStep(st, old, found)
	})
	return slices.DeleteFunc(steps, func(st step) bool { return st.idle })
}

// planStep completes a step, and reports whether there is anything to do.
func (s *Schedule) planStep(st *step, old member, found bool) bool {
	a := st.put.assigned
	switch {
	case st.remove:
		st.put = old
		return found
	case !found:
		st.put.entry = &entry{id: a.ProducerID, slot: noSlot}
		st.opened, st.err = s.open(a)
		return true
	}
	st.put.entry = old.entry
	switch {
	case a == old.assigned:
		return false
	case sameWork(a, old.assigned):
		st.change = replace
	case s.isOpen(old.entry): // it may be discarded until commit
		st.change, st.err = alter, check(a)
	default: // nobody opens it meanwhile: that needs applying
		st.opened, st.err = s.open(a)
	}
	return true
}

func (s *Schedule) isOpen(e *entry) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return e.state != unopened
}

// sameWork tells whether a collection need not be touched for another assignment.
// Whether its producer has a lease makes no difference to it.
func sameWork(a, b *assignment.Assignment) bool {
	if a.Permanent != b.Permanent {
		like := *b
		like.Permanent = a.Permanent
		b = &like
	}
	return a.SameWork(b)
}

// commit makes the planned steps at once.
func (s *Schedule) commit(steps []step, next *roll) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range steps {
		st := &steps[i]
		switch st.change {
		case insert:
			s.commitInsert(st)
		case replace:
			s.commitReplace(st)
		case alter:
			s.commitAlter(st)
		case remove:
			s.commitRemove(st)
		}
	}
	s.applied.Store(next)
	s.metrics.applied.Set(float64(next.count))
}

func (s *Schedule) commitInsert(st *step) {
	e, a := st.put.entry, st.put.assigned
	s.clearUnrunnable(e.id)
	if st.err != nil {
		s.setUnrunnable(e.id, a, st.err)
		return
	}
	e.collection, e.work, e.first = st.opened, a, true
	e.joining = a.Role == assignment.RoleHandoffTarget
	s.cast(e, a.Role)
	next := GridOf(e.id, a.Interval).Next(s.clock().Milliseconds())
	s.due.push(e, next)
	if end, ok := s.ending[e.id]; ok {
		e.state = blocked
		end.successor = e
		s.ending[e.id] = end
		return
	}
	if e.joining && next-s.clock().Milliseconds() <= probeAhead.Milliseconds() {
		e.state, e.first = idle, false
		return
	}
	s.await(&s.firsts, e, 0, s.elapsed())
}

// commitReplace puts the new assignment wherever the old one stood, so that the
// old one can be freed.
func (s *Schedule) commitReplace(st *step) {
	e, a := st.put.entry, st.put.assigned
	s.cast(e, a.Role)
	if u, ok := s.unrunnable[e.id]; ok {
		s.unrunnable[e.id] = unrunnable{a, u.reason}
		return
	}
	if e.pending != nil {
		e.pending = a
	} else {
		e.work = a
	}
}

func (s *Schedule) commitAlter(st *step) {
	e, a := st.put.entry, st.put.assigned
	if e.state == unopened {
		s.reopen(e, a)
		return
	}
	s.cast(e, a.Role)
	s.clearUnrunnable(e.id)
	switch {
	case st.err != nil:
		s.setUnrunnable(e.id, a, st.err)
	case sameWork(a, e.work): // back to what the collection runs
		e.work, e.pending = a, nil
	default:
		e.pending = a
		if a.Endpoint != e.work.Endpoint {
			s.collected.remove(e.id) // somewhere else
		}
		if e.cancel != nil {
			e.cancel()
		}
	}
}

func (s *Schedule) commitRemove(st *step) {
	e := st.put.entry
	s.clearUnrunnable(e.id)
	s.collected.remove(e.id)
	e.gone, e.stale, e.pending = true, st.stale, nil
	if e.state == unopened {
		return
	}
	s.due.remove(e)
	end, ok := s.ending[e.id]
	if ok { // so e is blocked: what was just said is about the one that collected, too
		end.entry.stale = st.stale
		end.successor = nil
	} else {
		end.entry = e
	}
	end.open++
	s.ending[e.id] = end
	switch e.state {
	case running: // it is ended by the goroutine that has it
		if st.stale || e.joining {
			e.cancel()
		}
		// Handed off, it is let finish: the new collector may have come too late
		// for the instant that it stands for.
		return
	case waiting:
		s.leave(e)
	default:
	}
	e.since = s.elapsed()
	s.ends.push(e)
}

// settleIdle changes the work of a collection that does not run. One that runs
// is changed when it has ended.
func (s *Schedule) settleIdle(e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.pending != nil && e.state != running {
		s.settle(e)
	}
}

func (s *Schedule) setUnrunnable(id assignment.ProducerID, a *assignment.Assignment, err error) {
	s.unrunnable[id] = unrunnable{a, bounded(err.Error())}
	s.metrics.unrunnable.Set(float64(len(s.unrunnable)))
}

func (s *Schedule) clearUnrunnable(id assignment.ProducerID) {
	delete(s.unrunnable, id)
	s.metrics.unrunnable.Set(float64(len(s.unrunnable)))
}
