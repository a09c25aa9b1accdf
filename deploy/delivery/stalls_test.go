package delivery_test

import (
	"sync"
	"testing"
	"time"
)

// A stalls knows when this process did not get round to what was due, as on a busy
// machine: an agent that was late then is not to blame.
type stalls struct {
	mu  sync.Mutex
	all []stall // guarded by mu; one after the other
}

type stall struct{ from, to time.Time }

// noted are those of this process.
var noted stalls

// Bounds of a stall. Nobody looks for more than the longest.
const (
	leastStall   = 100 * time.Millisecond
	longestStall = time.Minute
)

// watch notes stalls for as long as the process lives.
func (s *stalls) watch() {
	last := time.Now()
	for range time.Tick(leastStall / 10) {
		now := time.Now()
		s.note(last, now)
		last = now
	}
}

// note notes the time between two looks, if that was too long.
func (s *stalls) note(from, to time.Time) {
	if to.Sub(from) < leastStall {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, stall{from, to})
}

// within is how much of a time was one.
func (s *stalls) within(from, to time.Time) (sum time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.all {
		begin, end := one.from, one.to
		if begin.Before(from) {
			begin = from
		}
		if end.After(to) {
			end = to
		}
		sum += max(end.Sub(begin), 0)
	}
	return sum
}

func TestStallsAreExcusedAndNothingElse(t *testing.T) {
	var s stalls
	at := func(ms int) time.Time { return time.UnixMilli(1_000_000 + int64(ms)) }
	s.note(at(0), at(50))
	s.note(at(1000), at(1500))
	s.note(at(3000), at(5000))
	for _, c := range []struct{ from, to, want int }{
		{0, 900, 0}, {0, 1500, 500}, {1200, 1300, 100}, {1400, 3100, 200}, {0, 9000, 2500}, {5000, 9000, 0}, {1600, 2900, 0},
	} {
		if got := s.within(at(c.from), at(c.to)); got != time.Duration(c.want)*time.Millisecond {
			t.Errorf("between %d and %d ms: %v, want %d ms", c.from, c.to, got, c.want)
		}
	}
}
