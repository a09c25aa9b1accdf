package schedule_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// script says how the collections of each producer end; those that it does not
// name succeed.
type script struct {
	mu      sync.Mutex
	reasons map[assignment.ProducerID]schedule.Reason
}

func (s *script) set(id assignment.ProducerID, r schedule.Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reasons[id] = r
}

func (s *script) collect(_ context.Context, p *pull, _ time.Time) schedule.Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	return schedule.Result{Reason: s.reasons[p.id]}
}

func everyone(assignment.ProducerID) bool { return true }

func TestSurvey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := &script{reasons: map[assignment.ProducerID]schedule.Reason{"dead": schedule.ReasonUnreachable, "dead-2": schedule.ReasonTimeout}}, &wall{}
		s, stop := run(t, &fleet{collect: c.collect}, schedule.Config{Now: w.now})
		odd := newAssignment("odd", time.Minute)
		odd.Timeout = 0
		s.Apply(upserts(newAssignment("a", time.Minute), newAssignment("b", time.Hour), newAssignment("dead", time.Minute),
			newAssignment("dead-2", time.Hour), odd))
		applied := time.Now()
		time.Sleep(5*time.Minute + time.Second)
		w.step(24 * time.Hour)
		synctest.Wait()
		got := s.Survey(func(id assignment.ProducerID) bool { return id != "dead-2" })
		if got.Applied != 5 || got.Run != 4 || got.Answering != 2 || got.MedianInterval != time.Minute || len(got.Failing) != 1 {
			t.Errorf("%+v", got)
		}
		e := got.Failing["dead"]
		if e.Interval != time.Minute || e.Failures < 5 || e.Failures > 6 || !e.FailingSince.Equal(applied) {
			t.Errorf("evidence %+v; applied at %v", e, applied)
		}
		if s.Evidence("dead") != e || s.Evidence("a") != (schedule.Evidence{}) || s.Evidence("nobody") != (schedule.Evidence{}) || s.Evidence("odd") != (schedule.Evidence{}) {
			t.Error("Evidence tells something else")
		}
		stop()
	})
}

// TestEvidenceIsOfTheProducer: a success, another endpoint, and a failure of the
// collector's own each begin the count anew.
func TestEvidenceIsOfTheProducer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &script{reasons: map[assignment.ProducerID]schedule.Reason{}}
		s, stop := run(t, &fleet{collect: c.collect}, schedule.Config{})
		a := newAssignment("a", time.Minute)
		s.Apply(upserts(a))
		fail := func(reason schedule.Reason, want int) {
			t.Helper()
			c.set("a", reason)
			time.Sleep(3 * time.Minute)
			synctest.Wait()
			if n := s.Evidence("a").Failures; n != want {
				t.Errorf("%v: %d failures in a row, want %d", reason, n, want)
			}
		}
		fail(schedule.ReasonNone, 0) // the first collection is off the grid
		fail(schedule.ReasonTimeout, 3)
		fail(schedule.ReasonStatus, 6)
		fail(schedule.ReasonStore, 0)
		fail(schedule.ReasonTimeout, 3)
		fail(schedule.ReasonBudget, 0)
		fail(schedule.ReasonTimeout, 3)
		fail(schedule.ReasonNone, 0)
		fail(schedule.ReasonTimeout, 3)
		moved := *a
		moved.Endpoint += "/elsewhere"
		s.Apply(upserts(&moved))
		fail(schedule.ReasonTimeout, 3)
		stop()
	})
}

func TestMedianIsTheLongerOfTwo(t *testing.T) {
	for _, c := range []struct {
		intervals []time.Duration
		want      time.Duration
	}{
		{nil, 0},
		{[]time.Duration{time.Hour}, time.Hour},
		{[]time.Duration{time.Hour, time.Minute}, time.Hour},
		{[]time.Duration{time.Hour, time.Minute, time.Minute}, time.Minute},
		{[]time.Duration{time.Hour, time.Minute, time.Second, time.Minute}, time.Minute},
	} {
		s := schedule.New(schedule.Config{Opener: &fleet{}})
		var change schedule.Change
		for i, interval := range c.intervals {
			change.Upserts = append(change.Upserts, newAssignment(assignment.ProducerID(fmt.Sprint(i)), interval))
		}
		s.Apply(change)
		if got := s.Survey(everyone); got.MedianInterval != c.want || got.Applied != len(c.intervals) || got.Answering != 0 {
			t.Errorf("%v: %+v, want %v", c.intervals, got, c.want)
		}
	}
}

func BenchmarkSurvey(b *testing.B) {
	s := schedule.New(schedule.Config{Opener: &counter{}})
	var change schedule.Change
	for i := range 100_000 {
		change.Upserts = append(change.Upserts, newAssignment(assignment.ProducerID(fmt.Sprintf("producer-%06d", i)), time.Duration(1+i%7)*time.Second))
	}
	s.Apply(change)
	b.ResetTimer()
	for range b.N {
		if s.Survey(everyone).Applied != 100_000 {
			b.Fatal("some are missing")
		}
	}
}
