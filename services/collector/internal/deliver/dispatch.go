package deliver

import (
	"context"
	"math"
	"time"
)

// idle is how long the dispatcher waits when there is nothing to wait for. It is
// woken when that changes.
const idle = time.Hour

// dispatch sends what may be sent now, and answers how long there is nothing
// more to do, if nothing happens, and whether a request is at work then. It tells
// both as of one moment: a request that ends after it can make room for another.
func (s *Sink) dispatch(ctx context.Context) (wait time.Duration, working bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		now := time.Now()
		j, wait := s.pick(now)
		if j == nil {
			return wait, s.inFlight > 0
		}
		j.round = s.pace.round
		s.inFlight++
		s.sends.Go(func() { s.work(ctx, j) })
	}
}

// pick chooses the job to be sent now, or answers how long there is none. mu is
// held.
func (s *Sink) pick(now time.Time) (*job, time.Duration) {
	if wait := s.pace.notBefore.Sub(now); wait > 0 {
		return nil, wait
	}
	if s.pace.down && s.stopping {
		return nil, idle
	}
	if s.pace.down {
		return s.pickProbe(now)
	}
	var oldest *job
	wait := idle
	if s.inFlight < s.pace.concurrency {
		for _, j := range s.parked {
			switch {
			case j.due.After(now):
				wait = min(wait, j.due.Sub(now))
			case oldest == nil || j.seq < oldest.seq:
				oldest = j
			}
		}
	}
	if oldest != nil {
		s.unpark(oldest)
		return oldest, 0
	}
	if s.inFlight+len(s.parked) >= s.pace.concurrency {
		return nil, wait
	}
	j, other := s.take(now)
	return j, min(wait, other)
}

// freshAfter is how often all that waits has been tried when something else is
// tried while the receiver is down.
const freshAfter = 3

// pickProbe chooses what is tried while the receiver is down: that which has
// been tried least, and after a few tries of all something new, so that one
// request that the receiver chokes on is not all that it is asked. mu is held.
func (s *Sink) pickProbe(now time.Time) (*job, time.Duration) {
	if s.pace.probing {
		return nil, idle
	}
	if wait := s.pace.probeAt.Sub(now); wait > 0 {
		return nil, wait
	}
	var least *job
	for _, j := range s.parked {
		if least == nil || j.tries < least.tries || j.tries == least.tries && j.seq < least.seq {
			least = j
		}
	}
	wait := idle
	if least == nil || least.tries >= freshAfter && len(s.parked) < s.config.MaxConcurrency {
		var fresh *job
		if fresh, wait = s.take(now); fresh != nil {
			s.pace.probing, fresh.probe = true, true
			return fresh, wait
		}
	}
	if least != nil {
		s.unpark(least)
		s.pace.probing, least.probe = true, true
	}
	return least, wait
}

// take makes a job of what waits in the share that is ready and has the oldest
// entry, or answers how long none is. Before a stop that is only what was written
// before something that has been sent: nothing need be sent twice then. mu is
// held.
func (s *Sink) take(now time.Time) (*job, time.Duration) {
	var (
		n       = s.pace.concurrency
		wait    = idle
		best    laneSet
		bestSeq uint64
		full    bool
		end     = uint64(math.MaxUint64)
	)
	if s.stopping {
		end = s.window.taken
	}
	for share := range n {
		set := shareOf(share, n)
		samples, i := s.window.waiting(set)
		if i < 0 || s.window.lanes[i].first.seq > end {
			continue
		}
		first := s.window.lanes[i].first
		due := first.read.Add(s.config.BatchDeadline)
		isFull := samples >= s.pace.limit || first.table != s.window.table
		if !isFull && !s.starved && !s.stopping && due.After(now) {
			wait = min(wait, due.Sub(now))
			continue
		}
		if best == 0 || first.seq < bestSeq {
			best, bestSeq, full = set, first.seq, isFull
		}
	}
	if best == 0 {
		return nil, wait
	}
	if !full && s.window.samples < s.pace.limit {
		s.pace.spare(now)
	}
	j := s.job()
	s.window.take(j, best, s.pace.limit, end)
	return j, 0
}
