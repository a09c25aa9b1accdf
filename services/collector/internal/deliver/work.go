package deliver

import (
	"context"
	"fmt"
	"time"
)

// work sends what is left of a job, until all is settled or it has to wait.
func (s *Sink) work(ctx context.Context, j *job) {
	j.build()
	for {
		began := time.Now()
		o := s.try(ctx, j.parts[0])
		if s.apply(ctx, j, &o, time.Since(began)) {
			return
		}
	}
}

// try sends a request once. A transport that panics has rejected it.
func (s *Sink) try(ctx context.Context, r *Request) (o Outcome) {
	ctx, cancel := context.WithTimeout(ctx, s.config.SendTimeout)
	defer cancel()
	defer func() {
		if v := recover(); v != nil {
			s.panicked(v)
			o = Outcome{Result: Rejected, Reason: ReasonRejected, Code: codePanic, Err: fmt.Errorf("panic: %v", v)}
		}
	}()
	return s.config.Transport.Send(ctx, r)
}

// apply does what the outcome of a try asks for. It answers false when the job
// is to be sent on at once.
func (s *Sink) apply(ctx context.Context, j *job, o *Outcome, took time.Duration) (ended bool) {
	s.counts.tried(o, took)
	now := time.Now()
	s.mu.Lock()
	n, ended := s.judge(ctx, now, j, o)
	s.mu.Unlock()
	s.counts.judged(&n)
	s.voice.tell(now, &n, o)
	return ended
}

// judge is the part of apply that changes the sink. mu is held.
func (s *Sink) judge(ctx context.Context, now time.Time, j *job, o *Outcome) (n news, ended bool) {
	size := len(j.parts[0].Items)
	if j.probe {
		s.pace.probing = false
	}
	switch o.Result {
	case Delivered:
		s.pace.took(now, size, s.window.samples > s.pace.concurrency*s.pace.limit)
		n.lost = min(max(o.Refused, 0), size)
		n.taken = size - n.lost
		s.takes++
		s.settle(j)
	case Retry:
		if ctx.Err() != nil {
			return n, s.leave() // it did not fail, it was broken off
		}
		s.pace.failed(now, j, o)
		n.failed, j.probe = true, false
		if s.chokes(j, o) && !j.cutRecords() {
			n.lost, n.reason, j.choked = size, ReasonRejected, 0
			s.settle(j)
		}
		s.history.add(now, &n, o.Err)
		if len(j.parts) == 0 {
			return n, s.goOn(ctx, j)
		}
		return n, s.park(j)
	case TooLarge:
		s.pace.tooLarge(size)
		if !j.cutRecords() && !j.cutSamples() {
			o.Reason = ReasonTooLarge
			n.lost = size
			s.settle(j)
		}
	default:
		j.spoiled = j.spoiled || o.Code == codePanic
		if !s.pace.rejected(size) || !j.cutRecords() && !(o.Divisible && j.cutSamples()) {
			n.lost = size
			s.settle(j)
		}
	}
	if n.lost > 0 {
		n.reason = known(o.Reason)
	}
	j.probe = false
	s.history.add(now, &n, o.Err)
	return n, s.goOn(ctx, j)
}

// settle takes the first part off a job, and commits what has ended with it. mu
// is held.
func (s *Sink) settle(j *job) {
	for _, e := range j.settled() {
		s.window.settle(e)
	}
	s.commit()
}

// goOn ends a job of which nothing is left. mu is held.
func (s *Sink) goOn(ctx context.Context, j *job) (ended bool) {
	switch {
	case len(j.parts) > 0 && ctx.Err() != nil:
		return s.leave()
	case len(j.parts) > 0 && s.pace.down:
		return s.park(j)
	case len(j.parts) > 0:
		return false
	}
	s.window.release(j)
	if !j.spoiled && len(s.spare) < s.config.MaxConcurrency {
		j.reset()
		s.spare = append(s.spare, j)
	}
	return s.leave()
}

// park keeps a job until it may be sent again. mu is held.
func (s *Sink) park(j *job) bool {
	s.parked = append(s.parked, j)
	return s.leave()
}

// leave says that a job is not sent any more. mu is held.
func (s *Sink) leave() bool {
	s.inFlight--
	s.nudge(s.wake)
	return true
}

// panicked tells of a panic in a transport or in relabeling.
func (s *Sink) panicked(v any) {
	s.counts.panics.Inc()
	s.voice.panicked(v)
}

// countRead counts what of a record is not to be sent.
func (s *Sink) countRead(t tally) {
	if t.leftOut > 0 {
		s.counts.leftOut.Add(float64(t.leftOut))
	}
	if t.broken == 0 {
		return
	}
	now := time.Now()
	n := news{lost: t.broken, reason: ReasonInvalid}
	s.mu.Lock()
	s.history.add(now, &n, errBroken)
	s.mu.Unlock()
	s.voice.tell(now, &n, &Outcome{Code: codePanic, Err: errBroken})
}
