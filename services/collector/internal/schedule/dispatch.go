package schedule

import (
	"context"
	"errors"
	"runtime/debug"
	"time"
)

// advance does what is due, starts what can be started, and tells how long
// there is nothing to do.
func (s *Schedule) advance() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.followWall()
	elapsed := s.elapsed()
	clock := s.wall + elapsed
	for len(s.due) > 0 && s.due[0].tick <= clock.Milliseconds() {
		s.tick(s.due[0].entry, clock.Milliseconds(), elapsed)
	}
	s.startWaiting(elapsed)
	sleep := stepCheck
	if len(s.due) > 0 {
		sleep = min(sleep, time.Duration(s.due[0].tick)*time.Millisecond-clock)
	}
	if s.busy < s.concurrency && s.firsts.head != nil {
		sleep = min(sleep, s.rate.next()-elapsed)
	}
	return sleep
}

// tick handles the due times of an entry that have passed. There is more than
// one only if the process stood still. mu is held.
func (s *Schedule) tick(e *entry, nowMs int64, elapsed time.Duration) {
	if e.pending != nil && e.state != running {
		s.settle(e)
		if s.due.tick(e) > nowMs {
			return
		}
	}
	interval, tick := e.work.Interval.Milliseconds(), s.due.tick(e)
	over := (nowMs - tick) / interval
	tick += over * interval
	s.due.set(e, GridOf(e.id, e.work.Interval).Next(tick)) // tick is beside the grid after a clock step
	switch e.state {
	case running, blocked:
		s.miss(e, ReasonOverlap, over+1)
	case waiting:
		// It keeps its place, or under overload the short intervals would
		// never be served. Its own first collection is not a due time missed.
		if e.stamp != 0 {
			over++
		}
		s.miss(e, ReasonBudget, over)
		e.stamp = tick
	default:
		s.miss(e, ReasonBudget, over)
		s.awaitTick(e, tick, elapsed)
	}
}

// awaitTick lets an idle entry wait for its collection at a due time. mu is held.
func (s *Schedule) awaitTick(e *entry, tick int64, elapsed time.Duration) {
	switch {
	case tick == e.stamp:
		// A probe was kept under it, on demand or before a clock step. It is
		// collected all the same, or it would be left for nearly two intervals.
		s.await(&s.ready, e, tick+1, elapsed)
	case e.joining && !GridOf(e.id, e.work.Interval).Has(tick):
		e.first = true // a retry, at the bounded rate
		s.await(&s.firsts, e, 0, elapsed)
	default:
		s.await(&s.ready, e, tick, elapsed)
	}
}

func (s *Schedule) miss(e *entry, reason Reason, n int64) {
	if n > 0 {
		e.record.miss(reason, n)
		s.metrics.missed.WithLabelValues(reason.String()).Add(float64(n))
	}
}

// await puts an entry at the end of ready or firsts. mu is held.
func (s *Schedule) await(q *queue, e *entry, stamp int64, elapsed time.Duration) {
	e.state, e.stamp, e.since = waiting, stamp, elapsed
	q.push(e)
}

// leave takes an entry that waits out of its queue. mu is held.
func (s *Schedule) leave(e *entry) {
	if e.first {
		s.firsts.remove(e)
	} else {
		s.ready.remove(e)
	}
	e.state = idle
}

// unstamp makes an entry forget the due time that it waits for, because its
// grid is another one now. mu is held.
func (s *Schedule) unstamp(e *entry) {
	if e.state != waiting || e.stamp == 0 {
		return
	}
	s.miss(e, ReasonBudget, 1)
	e.stamp = 0
	if !e.first {
		s.leave(e)
	}
}

// startWaiting starts what has waited longest of what may start, again and again
// while there is room. mu is held.
func (s *Schedule) startWaiting(elapsed time.Duration) {
	for s.launch != nil && s.busy < s.concurrency {
		switch q := s.longest(elapsed); {
		case q == nil:
			return
		case q == &s.ends:
			s.startEnd(q.head)
		case q.head.pending != nil:
			s.settle(q.head) // which may take it out of the queue
		default:
			s.startWaited(q.head, elapsed)
		}
	}
}

// longest is the queue whose head came first of those that may start, nil for
// none. mu is held.
func (s *Schedule) longest(elapsed time.Duration) *queue {
	var q *queue
	for _, candidate := range []*queue{&s.ends, &s.ready, &s.firsts} {
		if candidate.head == nil || candidate == &s.firsts && s.rate.next() > elapsed {
			continue
		}
		if q == nil || candidate.head.since < q.head.since {
			q = candidate
		}
	}
	return q
}

func (s *Schedule) startEnd(e *entry) {
	s.ends.remove(e)
	s.busy++
	s.running.Go(func() { s.endGone(e) })
}

// startWaited starts the collection of an entry that waits. mu is held.
func (s *Schedule) startWaited(e *entry, elapsed time.Duration) {
	delay := elapsed - e.since
	if e.stamp != 0 {
		delay = s.wall + elapsed - time.Duration(e.stamp)*time.Millisecond
	} else {
		e.stamp = (s.wall + elapsed).Milliseconds()
	}
	s.metrics.startDelay.Observe(delay.Seconds())
	s.leave(e)
	if e.first {
		e.first = false
		s.rate.take(elapsed)
	}
	s.launch(e, e.stamp, nil)
}

// start lets a goroutine collect under a time stamp, or probe; it sends the
// result to done, which has room, unless that is nil. mu is held.
func (s *Schedule) start(ctx context.Context, e *entry, stamp int64, done chan<- Result) {
	ctx, cancel := context.WithTimeout(ctx, e.work.Timeout)
	e.state, e.cancel = running, cancel
	e.stamp = 0
	collect, at := e.collection.Collect, time.UnixMilli(stamp)
	if e.joining {
		e.stamp = s.probeStamp(e)
		collect, at = e.collection.Probe, unixTime(e.stamp*int64(time.Millisecond))
	}
	s.busy++
	s.metrics.running.Inc()
	s.run(func() {
		result, outcome := s.collect(ctx, e, func() Result { return collect(ctx, at) })
		s.metrics.collections.WithLabelValues(outcome).Inc()
		gone := s.finish(e, &result, outcome == outcomeCancelled)
		if done != nil {
			done <- result
		}
		if gone {
			s.endGone(e)
		}
	})
}

// collect runs one collection. A panic of it is a failure: what a producer sends
// must not end the process.
func (s *Schedule) collect(ctx context.Context, e *entry, collect func() Result) (result Result, outcome string) {
	begin := time.Now()
	defer func() {
		v := recover()
		if v != nil {
			result = Result{Reason: ReasonMalformed, Message: panicText(v)}
			s.panicked(e.id, v, debug.Stack())
		}
		took := time.Since(begin)
		s.metrics.duration.Observe(took.Seconds())
		if result.Start.IsZero() {
			result.Start, result.Duration = begin, took
		}
		result.Message = bounded(result.Message)
		switch {
		case v != nil:
			outcome = outcomePanic
		case result.Reason == ReasonNone:
			outcome = outcomeSuccess
		case errors.Is(ctx.Err(), context.Canceled):
			outcome = outcomeCancelled
		default:
			outcome = result.Reason.String()
		}
	}()
	return collect(), ""
}

// finish takes a running entry back and reports whether it was removed
// meanwhile; its room is given back unless it was. A cancelled collection says
// nothing of the producer and is not recorded.
func (s *Schedule) finish(e *entry, result *Result, cancelled bool) (gone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.cancel()
	e.cancel = nil
	e.state = idle
	s.metrics.running.Dec()
	if !cancelled {
		e.record.add(result, int64(s.clock()), s.elapsed())
	}
	succeeded := !cancelled && result.Reason == ReasonNone
	if !succeeded {
		e.stamp = 0
	}
	if e.gone {
		return true
	}
	s.busy--
	if e.pending != nil {
		s.settle(e)
	}
	if e.refresh {
		s.renew(e)
	}
	if succeeded && e.record.answered { // else it was somewhere else
		s.joined(e)
		if e.target {
			s.tell(e)
		}
	}
	s.retry(e)
	s.wake()
	return false
}

// settle gives a collection that does not run its changed assignment. mu is
// held.
func (s *Schedule) settle(e *entry) {
	a := e.pending
	e.pending = nil
	if err := s.update(e, a); err != nil {
		// When there is a reason already, it is of a newer assignment.
		if _, newer := s.unrunnable[e.id]; !newer {
			s.setUnrunnable(e.id, a, err)
		}
		return
	}
	if a.Endpoint != e.work.Endpoint {
		e.record.move()
	}
	regrid := a.Interval != e.work.Interval
	e.work, e.refresh = a, false
	if regrid {
		s.unstamp(e)
		s.due.set(e, GridOf(e.id, a.Interval).Next(s.clock().Milliseconds()))
	}
	s.retry(e)
}

// endGone ends a removed collection, gives its room back, and lets the producer's
// next collection begin.
func (s *Schedule) endGone(e *entry) {
	s.end(e)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy--
	end := s.ending[e.id]
	if end.open--; end.open > 0 {
		s.ending[e.id] = end
	} else {
		delete(s.ending, e.id)
		if end.successor != nil {
			s.await(&s.firsts, end.successor, 0, s.elapsed())
		}
	}
	s.wake()
}
