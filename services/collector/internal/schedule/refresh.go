package schedule

import (
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// Refresh looks at the whole applied set again, because what Opener and the
// collections make of an assignment has changed. It does not wait for
// collections.
//
// Each collection's Update is called with what it runs: now, or, if it is
// running, when that has ended; none is cancelled, and no due time moves. One that
// refuses ends, its series get their stale markers, and it is told by Unrunnable.
// What could not be run is tried again, and what now can is collected at once,
// at the bounded rate of first collections.
func (s *Schedule) Refresh() {
	s.applying.Lock()
	defer s.applying.Unlock()
	if s.stopped { // written with applying held
		return
	}
	batch := make([]member, 0, statusBatch)
	for m := range s.applied.Load().after("") {
		if batch = append(batch, m); len(batch) == statusBatch {
			s.refresh(batch)
			batch = batch[:0]
		}
	}
	s.refresh(batch)
	s.wake()
}

// refresh looks at some members again. Only applying is held.
func (s *Schedule) refresh(members []member) {
	var closed []step
	s.mu.Lock()
	for _, m := range members {
		switch e := m.entry; e.state {
		case unopened:
			closed = append(closed, step{edit: edit{id: e.id, put: m}})
		case running:
			e.refresh = true
		default:
			s.renew(e)
		}
	}
	s.mu.Unlock()
	// What is not open can be opened by nobody else meanwhile.
	for i := range closed {
		closed[i].opened, closed[i].err = s.open(closed[i].put.assigned)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range closed {
		s.commitInsert(&closed[i])
	}
}

// renew lets a collection that does not run look at its assignment again, and
// ends it if that cannot be run any more. mu is held.
func (s *Schedule) renew(e *entry) {
	e.refresh = false
	if u, ok := s.unrunnable[e.id]; ok && check(u.assigned) == nil {
		// An older one is run in its place.
		if s.clearUnrunnable(e.id); u.assigned.Endpoint != e.work.Endpoint {
			s.collected.remove(e.id)
		}
		e.pending = u.assigned
		if s.settle(e); e.work == u.assigned {
			return
		}
	}
	if err := s.update(e, e.work); err != nil {
		// When there is a reason already, it is of a newer assignment.
		if _, newer := s.unrunnable[e.id]; !newer {
			s.setUnrunnable(e.id, e.work, err)
		}
		s.discard(e)
	}
}

// discard ends the collection of an entry that stays and does not run. mu is
// held.
func (s *Schedule) discard(e *entry) {
	if e.state == waiting {
		s.leave(e)
	}
	s.due.remove(e)
	s.collected.remove(e.id)
	s.retire(&entry{
		id: e.id, collection: e.collection, state: idle, slot: noSlot,
		gone: true, stale: true, since: s.elapsed(),
	})
	e.collection, e.work, e.pending = nil, nil, nil
	e.state, e.stamp, e.first, e.joining = unopened, 0, false, false
	e.record.move()
}

// retire lets the collection of an entry that is in no queue be ended. mu is
// held.
func (s *Schedule) retire(e *entry) {
	end, ok := s.ending[e.id]
	if !ok {
		end.entry = e
	}
	end.open++
	end.successor = nil
	s.ending[e.id] = end
	s.ends.push(e)
}

// reopen opens an entry for an assignment that was planned for the collection
// that it had then. applying and mu are held.
func (s *Schedule) reopen(e *entry, a *assignment.Assignment) {
	st := step{edit: edit{id: e.id, put: member{e, a}}}
	st.opened, st.err = s.open(a)
	s.commitInsert(&st)
}
