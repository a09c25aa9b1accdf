package schedule

import (
	"slices"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

const (
	// probeWindow is how long behind an instant of the grid a probe may begin to
	// be kept under that instant, as the collection that the other collector
	// made there.
	probeWindow = 5 * time.Second

	// probeAhead is how long before an instant of the grid a first probe waits for
	// it. The handoff ends some tenths of a second after the probe; one that was
	// kept under the instant before would have both collectors store two instants.
	probeAhead = time.Second

	// probeRetry is the longest time from a probe that failed to the next one.
	probeRetry = 5 * time.Second
)

// cast gives an entry its part in a handoff. mu is held.
func (s *Schedule) cast(e *entry, role assignment.Role) {
	target := role == assignment.RoleHandoffTarget
	switch {
	case !target:
		s.joined(e)
		s.collected.remove(e.id)
	case !e.target && e.record.answered && !e.record.failed:
		s.tell(e)
	}
	e.target = target
}

// joined ends the probing of an entry: from here on it stores what everybody
// stores. mu is held.
func (s *Schedule) joined(e *entry) {
	if !e.joining {
		return
	}
	e.joining = false
	if grid := GridOf(e.id, e.work.Interval); e.slot != noSlot && !grid.Has(s.due.tick(e)) {
		s.due.set(e, grid.Next(s.clock().Milliseconds())) // it was due for a retry
	}
}

// tell notes that a target has been collected here. mu is held.
func (s *Schedule) tell(e *entry) {
	if s.collected.add(e.id) {
		s.targetCollected()
	}
}

// retry makes an entry due again soon if it is still joining. mu is held.
func (s *Schedule) retry(e *entry) {
	if !e.joining || e.gone {
		return
	}
	if soon := (s.clock() + probeRetry).Milliseconds(); soon < s.due.tick(e) {
		s.due.set(e, soon)
	}
}

// probeStamp is the time stamp of a probe that begins now, 0 when what it yields
// is not to be kept. mu is held.
func (s *Schedule) probeStamp(e *entry) int64 {
	now := s.clock().Milliseconds()
	at := GridOf(e.id, e.work.Interval).Last(now)
	if now-at > probeWindow.Milliseconds() {
		return 0
	}
	return max(0, at)
}

// Collected returns targets of handoffs that have been collected here since they
// became that, in the order in which it happened: up to limit of those behind a
// position, which is 0 at the beginning. last is the position to go on from.
func (s *Schedule) Collected(after uint64, limit int) (ids []assignment.ProducerID, last uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.collected.behind(after, limit)
}

// A line is ids in the order in which they came, numbered from 1. One that left
// and comes back is at the end.
type line struct {
	last   uint64
	number map[assignment.ProducerID]uint64

	// order is sorted by number. A place whose id has another number, or none,
	// is empty; at least about half of them are not.
	order []place
}

type place struct {
	number uint64
	id     assignment.ProducerID
}

// add puts an id at the end, and reports whether it was not there.
func (l *line) add(id assignment.ProducerID) bool {
	if _, ok := l.number[id]; ok {
		return false
	}
	if l.number == nil {
		l.number = map[assignment.ProducerID]uint64{}
	}
	l.last++
	l.number[id] = l.last
	l.order = append(l.order, place{l.last, id})
	return true
}

func (l *line) remove(id assignment.ProducerID) {
	if _, ok := l.number[id]; !ok {
		return
	}
	delete(l.number, id)
	if len(l.order) > 2*len(l.number)+64 {
		l.order = slices.DeleteFunc(l.order, l.empty)
	}
	if len(l.number) == 0 {
		l.number, l.order = nil, nil
	}
}

func (l *line) empty(p place) bool { return l.number[p.id] != p.number }

// behind returns up to limit ids behind a number, and the last one's number.
func (l *line) behind(after uint64, limit int) (ids []assignment.ProducerID, last uint64) {
	last = after
	from, _ := slices.BinarySearchFunc(l.order, after+1, func(p place, n uint64) int {
		if p.number < n {
			return -1
		}
		return int(min(1, p.number-n))
	})
	for _, p := range l.order[from:] {
		if len(ids) == limit {
			break
		}
		if !l.empty(p) {
			ids, last = append(ids, p.id), p.number
		}
	}
	return ids, last
}
