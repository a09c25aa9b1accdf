package schedule

import (
	"context"
	"errors"
	"fmt"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// Why CollectNow refuses.
var (
	// ErrUnknown: the producer is not in the applied set.
	ErrUnknown = errors.New("not an applied producer")

	// ErrBusy: a collection of the producer is running or waits to start, or
	// there is no room for one more.
	ErrBusy = errors.New("busy collecting")

	// ErrUnrunnable: nothing can be run for the producer. While an older
	// assignment is run, that one is collected.
	ErrUnrunnable = errors.New("cannot be run by this collector")

	// ErrStopped: Run was not called yet, or has returned.
	ErrStopped = errors.New("the schedule is not running")
)

// CollectNow collects a producer at once, beside its grid, under the present
// time, and returns the result, which counts like any other. When ctx ends it
// returns without the result; the collection goes on. The error wraps ErrUnknown,
// ErrBusy, ErrUnrunnable or ErrStopped, or is that of ctx.
func (s *Schedule) CollectNow(ctx context.Context, id assignment.ProducerID) (Result, error) {
	done := make(chan Result, 1)
	if err := s.startNow(id, done); err != nil {
		return Result{}, fmt.Errorf("collect %s now: %w", id, err)
	}
	select {
	case result := <-done:
		return result, nil
	case <-ctx.Done():
		return Result{}, fmt.Errorf("collect %s now: %w", id, ctx.Err())
	}
}

func (s *Schedule) startNow(id assignment.ProducerID, done chan<- Result) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, found := s.applied.Load().find(id)
	switch e := m.entry; {
	case s.launch == nil:
		return ErrStopped
	case !found:
		return ErrUnknown
	case e.state == unopened:
		return ErrUnrunnable
	case e.state != idle || s.busy >= s.concurrency:
		return ErrBusy
	case e.pending != nil:
		s.settle(e)
	}
	s.launch(m.entry, s.clock().Milliseconds(), done)
	return nil
}
