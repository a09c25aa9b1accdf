package schedule

import (
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// The contract's bounds of an interval.
const (
	minInterval = 100 * time.Millisecond
	maxInterval = 24 * time.Hour
)

// check tells why times cannot be run, for people. A newer registry may have
// other bounds; what is outside of these must neither stop nor flood the
// schedule.
func check(a *assignment.Assignment) error {
	switch {
	case a.Interval < minInterval || a.Interval > maxInterval:
		return fmt.Errorf("the interval %v is not within %v and %v", a.Interval, minInterval, maxInterval)
	case a.Interval%time.Millisecond != 0:
		return fmt.Errorf("the interval %v is not in whole milliseconds", a.Interval)
	case a.Timeout <= 0:
		return fmt.Errorf("the timeout %v is not positive", a.Timeout)
	case a.Timeout > a.Interval:
		return fmt.Errorf("the timeout %v is longer than the interval %v", a.Timeout, a.Interval)
	}
	return nil
}

// open makes a collection, or tells why there is none.
func (s *Schedule) open(a *assignment.Assignment) (c Collection, err error) {
	if err := check(a); err != nil {
		return nil, err
	}
	defer func() {
		if v := recover(); v != nil {
			c, err = nil, s.panicError(a.ProducerID, v)
		}
	}()
	c, err = s.opener.Open(a)
	if err != nil {
		return nil, err
	}
	if c == nil {
		return nil, errors.New("the opener returned no collection")
	}
	return c, nil
}

// update changes a collection that does not run. mu is held.
func (s *Schedule) update(e *entry, a *assignment.Assignment) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = s.panicError(a.ProducerID, v)
		}
	}()
	return e.collection.Update(a)
}

// end is the last call to a collection, which does not run.
func (s *Schedule) end(e *entry) {
	s.mu.Lock()
	at, stale := time.UnixMilli(s.clock().Milliseconds()), e.stale
	s.mu.Unlock()
	defer func() {
		if v := recover(); v != nil {
			s.panicked(e.id, v, debug.Stack())
		}
	}()
	e.collection.End(at, stale)
}

func (s *Schedule) panicError(id assignment.ProducerID, v any) error {
	s.panicked(id, v, debug.Stack())
	return errors.New(panicText(v))
}

func panicText(v any) string { return bounded(fmt.Sprintf("panic: %v", v)) }
