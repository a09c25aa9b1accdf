package schedule_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
)

// A wall is a clock that can be set.
type wall struct{ off atomic.Int64 }

func (w *wall) now() time.Time { return time.Unix(0, time.Now().UnixNano()+w.off.Load()) }

func (w *wall) step(by time.Duration) { w.off.Add(int64(by)) }

func TestClockStepDerivesTheNextInstant(t *testing.T) {
	const interval = 10 * time.Minute
	for _, step := range []time.Duration{
		-24 * time.Hour, -interval, -time.Minute, -1001 * time.Millisecond,
		1001 * time.Millisecond, time.Minute, interval, 24 * time.Hour,
	} {
		synctest.Test(t, func(t *testing.T) {
			f, w := &fleet{}, &wall{}
			s, stop := run(t, f, schedule.Config{Now: w.now})
			s.Apply(upserts(newAssignment("a", interval)))
			time.Sleep(time.Hour + 7*time.Second)
			synctest.Wait()
			p := f.only(t, "a")
			before := len(p.log())
			w.step(step)
			stepped := time.Now()
			want := schedule.GridOf("a", interval).Next(w.now().UnixMilli())
			sooner := p.log()[before-1].began.Add(interval) // due by the clock before
			time.Sleep(interval + 2*time.Second)
			synctest.Wait()
			calls := p.log()[before:]
			if len(calls) == 0 {
				t.Fatalf("step %v: nothing collected within an interval", step)
			}
			if calls[0].at.UnixMilli() != want && sooner.Sub(calls[0].began).Abs() < 2*time.Millisecond {
				calls = calls[1:]
			} else if calls[0].began.After(sooner.Add(2 * time.Millisecond)) {
				t.Errorf("step %v: not collected for %v", step, calls[0].began.Sub(sooner.Add(-interval)))
			}
			if len(calls) == 0 {
				t.Fatalf("step %v: nothing collected on the grid", step)
			}
			if calls[0].at.UnixMilli() != want || calls[0].began.Sub(stepped) != time.UnixMilli(want).Sub(w.now().Add(-time.Since(stepped))) {
				t.Errorf("step %v: collected under %v, %v after the step, want under %v", step, calls[0].at, calls[0].began.Sub(stepped), time.UnixMilli(want))
			}
			if status := find(t, s, "a"); status.Missed != 0 {
				t.Errorf("step %v: %d missed", step, status.Missed)
			}
			stop()
		})
	}
}

func TestSmallClockStepChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, w := &fleet{}, &wall{}
		s, stop := run(t, f, schedule.Config{Now: w.now})
		s.Apply(upserts(newAssignment("a", time.Minute)))
		began := time.Now()
		time.Sleep(30 * time.Minute)
		w.step(999 * time.Millisecond)
		time.Sleep(30 * time.Minute)
		w.step(-1998 * time.Millisecond)
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		checkGrid(t, f.only(t, "a"), time.Minute, began)
		stop()
	})
}

// What waits for room when the clock steps waits for a due time that is none any
// more.
func TestClockStepDropsTheDueTimeThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wall{}
		f := &fleet{collect: func(ctx context.Context, p *pull, _ time.Time) schedule.Result {
			if p.id == "slow" {
				return pass(ctx, 50*time.Minute)
			}
			return schedule.Result{}
		}}
		s, stop := run(t, f, schedule.Config{Now: w.now, Concurrency: 1})
		s.Apply(upserts(newAssignment("a", time.Hour)))
		synctest.Wait()
		tick := find(t, s, "a").Next
		time.Sleep(time.Until(tick.Add(-time.Minute)))
		s.Apply(upserts(newAssignment("slow", 24*time.Hour)))
		time.Sleep(2 * time.Minute)
		w.step(-12 * time.Hour)
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		if status := find(t, s, "a"); status.Missed != 1 || status.Next.Sub(w.now()) > time.Hour {
			t.Errorf("now %v: %+v", w.now(), status)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		calls := f.only(t, "a").log()
		for _, c := range calls[1:] {
			if c.at.After(tick.Add(-6 * time.Hour)) {
				t.Errorf("collected under %v", c.at)
			}
		}
		if len(calls) < 3 {
			t.Errorf("%d collections", len(calls))
		}
		stop()
	})
}

// A process that stood still for an hour neither makes up for the due times nor
// forgets them: all but the last are missed.
func TestStandstillIsCountedAndNotMadeUpFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var standstill atomic.Int64
		f := &fleet{}
		metrics := schedule.NewMetrics()
		s, stop := run(t, f, schedule.Config{Metrics: metrics, Now: func() time.Time {
			time.Sleep(time.Duration(standstill.Swap(0))) // in Run's goroutine
			return time.Now()
		}})
		s.Apply(upserts(newAssignment("a", 700*time.Millisecond)))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		before := f.only(t, "a").log()
		standstill.Store(int64(time.Hour))
		time.Sleep(time.Hour + 10*time.Second)
		synctest.Wait()

		calls := f.only(t, "a").log()
		gaps := 0
		for i, c := range calls[len(before):] {
			at := calls[len(before)+i-1].at
			switch gap := c.at.Sub(at); {
			case gap > time.Second:
				gaps++
				missed := int64(gap/(700*time.Millisecond)) - 1
				if status := find(t, s, "a"); status.Missed != missed || gap < time.Hour-time.Second {
					t.Errorf("%d missed in %v, want %d", status.Missed, gap, missed)
				}
				if got := metric(t, metrics, "missed_ticks_total", "budget"); int64(got) != missed {
					t.Errorf("the metric counts %v", got)
				}
				if late := c.began.Sub(c.at); late < 0 || late >= 700*time.Millisecond {
					t.Errorf("collected %v late", late)
				}
			case gap != 700*time.Millisecond:
				t.Errorf("collected under %v after %v", c.at, at)
			}
		}
		if gaps != 1 {
			t.Errorf("%d gaps, want 1", gaps)
		}
		stop()
	})
}
