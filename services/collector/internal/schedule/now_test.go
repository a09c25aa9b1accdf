package schedule_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

func TestCollectNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{collect: take(2 * time.Second)}
		s := schedule.New(schedule.Config{Opener: f, Concurrency: 2})
		s.Apply(upserts(newAssignment("a", time.Hour), newAssignment("b", time.Hour), newAssignment("c", time.Hour)))
		if _, err := s.CollectNow(t.Context(), "a"); !errors.Is(err, schedule.ErrStopped) {
			t.Errorf("before Run: %v", err)
		}
		stop := start(t, f, s)
		for _, id := range []assignment.ProducerID{"a", "c"} { // one runs, one waits
			if _, err := s.CollectNow(t.Context(), id); !errors.Is(err, schedule.ErrBusy) {
				t.Errorf("%s in its first collection: %v", id, err)
			}
		}
		if _, err := s.CollectNow(t.Context(), "x"); !errors.Is(err, schedule.ErrUnknown) {
			t.Errorf("unknown: %v", err)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()

		time.Sleep(300 * time.Microsecond)
		began := time.Now()
		next := find(t, s, "a").Next
		result, err := s.CollectNow(t.Context(), "a")
		if err != nil || result.Reason != schedule.ReasonNone || result.Samples != 1 || !result.Start.Equal(began) || result.Duration != 2*time.Second {
			t.Errorf("%+v, %v", result, err)
		}
		call := f.only(t, "a").log()[1]
		if !call.began.Equal(began) || !call.at.Equal(began.Truncate(time.Millisecond)) {
			t.Errorf("collected at %v under %v, want %v", call.began, call.at, began)
		}
		if status := find(t, s, "a"); status.Last != result || status.Successes != 2 || !status.Next.Equal(next) {
			t.Errorf("the status is %+v", status)
		}

		stop()
		if _, err := s.CollectNow(t.Context(), "a"); !errors.Is(err, schedule.ErrStopped) {
			t.Errorf("after Run: %v", err)
		}
	})
}

func TestCollectNowNeedsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{collect: take(2 * time.Second)}
		s, stop := run(t, f, schedule.Config{Concurrency: 2})
		s.Apply(upserts(newAssignment("a", time.Hour), newAssignment("b", time.Hour), newAssignment("c", time.Hour)))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() { _, _ = s.CollectNow(t.Context(), "b") }()
		synctest.Wait()
		if _, err := s.CollectNow(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a context that ends early: %v", err)
		}
		if _, err := s.CollectNow(t.Context(), "a"); !errors.Is(err, schedule.ErrBusy) {
			t.Errorf("while it runs: %v", err)
		}
		if _, err := s.CollectNow(t.Context(), "c"); !errors.Is(err, schedule.ErrBusy) {
			t.Errorf("without room: %v", err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if status := find(t, s, "a"); status.Successes != 2 || status.Failures != 0 {
			t.Errorf("an impatient caller counts: %+v", status)
		}
		if _, err := s.CollectNow(t.Context(), "c"); err != nil {
			t.Errorf("with room again: %v", err)
		}
		stop()
	})
}

func TestCollectNowTellsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{collect: take(2 * time.Hour)}
		s, stop := run(t, f, schedule.Config{})
		a := newAssignment("a", time.Hour)
		a.Timeout = time.Second
		s.Apply(upserts(a))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		result, err := s.CollectNow(t.Context(), "a")
		if err != nil || result.Reason != schedule.ReasonTimeout || result.Duration != time.Second {
			t.Errorf("%+v, %v", result, err)
		}
		// A removal ends it; the caller is told what came of it.
		go func() {
			time.Sleep(100 * time.Millisecond)
			s.Apply(removal("a", true))
		}()
		if result, err := s.CollectNow(t.Context(), "a"); err != nil || result.Reason != schedule.ReasonUnreachable {
			t.Errorf("%+v, %v", result, err)
		}
		synctest.Wait()
		stop()
	})
}
