package schedule_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A tally is what became of the due times of one producer.
type tally struct{ collected, overlap, budget, open int64 }

// tallyOf finds out what became of each due time by looking at the collections
// alone.
func tallyOf(calls []call, grid schedule.Grid, began, now time.Time) tally {
	var tl tally
	for t := grid.Next(began.UnixMilli()); t <= now.UnixMilli(); t = grid.Next(t) {
		tick := time.UnixMilli(t)
		i, found := slices.BinarySearchFunc(calls, tick, func(c call, at time.Time) int { return c.at.Compare(at) })
		switch {
		case found:
			tl.collected++
		case i == len(calls) && (i == 0 || calls[i-1].began.Before(tick) && !runsAt(calls[i-1], tick)) && grid.Next(t) > now.UnixMilli():
			tl.open++ // it waits
		case i > 0 && runsAt(calls[i-1], tick):
			tl.overlap++
		default:
			tl.budget++
		}
	}
	return tl
}

func runsAt(c call, at time.Time) bool {
	return c.began.Before(at) && (c.ended.IsZero() || c.ended.After(at))
}

func TestOverlapIsCountedExactlyAndNothingDrifts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Every third collection lasts 2.5 intervals, as one does that does not
		// obey its context.
		n := 0
		f := &fleet{collect: func(context.Context, *pull, time.Time) schedule.Result {
			if n++; n%3 == 0 {
				time.Sleep(25 * time.Second)
			}
			return schedule.Result{}
		}}
		metrics := schedule.NewMetrics()
		s, stop := run(t, f, schedule.Config{Metrics: metrics})
		s.Apply(upserts(newAssignment("a", 10*time.Second)))
		began := time.Now()
		time.Sleep(time.Hour)
		synctest.Wait()
		calls := f.only(t, "a").log()
		for _, c := range calls[1:] {
			if !onGrid("a", 10*time.Second, c.at.UnixMilli()) || !c.began.Equal(c.at) {
				t.Fatalf("collected at %v under %v", c.began, c.at)
			}
		}
		want := tallyOf(calls, schedule.GridOf("a", 10*time.Second), began, time.Now())
		if want.overlap < 100 || want.budget != 0 || want.collected+want.overlap != 360 {
			t.Fatalf("the test is not as it was meant: %+v", want)
		}
		if got := find(t, s, "a"); got.Missed != want.overlap || got.MissedOverlap != want.overlap || got.MissedBudget != 0 {
			t.Errorf("%d missed, %d for overlap, %d for budget, want %+v", got.Missed, got.MissedOverlap, got.MissedBudget, want)
		}
		if got := metric(t, metrics, "missed_ticks_total", "overlap"); int64(got) != want.overlap {
			t.Errorf("the metric counts %v", got)
		}
		if got := metric(t, metrics, "missed_ticks_total", "budget"); got != 0 {
			t.Errorf("%v missed for budget, want 0", got)
		}
		stop()
	})
}

// With room for one collection of 300 ms, a third of what ten producers are due
// for in each second can be collected.
func TestBudgetIsCountedExactlyAndServesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{collect: take(300*time.Millisecond + 1)} // never ends at a due time
		metrics := schedule.NewMetrics()
		s, stop := run(t, f, schedule.Config{Concurrency: 1, Metrics: metrics})
		var change schedule.Change
		for i := range 10 {
			change.Upserts = append(change.Upserts, newAssignment(assignment.ProducerID(fmt.Sprintf("p%d", i)), time.Second))
		}
		s.Apply(change)
		began := time.Now()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		var all tally
		for _, a := range change.Upserts {
			calls := f.only(t, a.ProducerID).log()
			if len(calls) < 198 || len(calls) > 202 {
				t.Errorf("%s: %d collections, want a fair 200", a.ProducerID, len(calls))
			}
			for i, c := range calls {
				if i > 0 && !c.at.After(calls[i-1].at) {
					t.Fatalf("%s: stamped %v after %v", a.ProducerID, c.at, calls[i-1].at)
				}
				if c.began.Sub(c.at) >= time.Second {
					t.Fatalf("%s: collected at %v under %v, which was missed", a.ProducerID, c.began, c.at)
				}
			}
			want := tallyOf(calls, schedule.GridOf(a.ProducerID, time.Second), began, time.Now())
			got := find(t, s, a.ProducerID)
			if got.Missed != want.overlap+want.budget || got.MissedOverlap != want.overlap || got.MissedBudget != want.budget {
				t.Errorf("%s: %d missed, %d for overlap, %d for budget, want %+v", a.ProducerID, got.Missed, got.MissedOverlap, got.MissedBudget, want)
			}
			all.overlap += want.overlap
			all.budget += want.budget
		}
		budget, overlap := metric(t, metrics, "missed_ticks_total", "budget"), metric(t, metrics, "missed_ticks_total", "overlap")
		if int64(budget) != all.budget || int64(overlap) != all.overlap || all.budget < 1000 || all.overlap < 100 {
			t.Errorf("%v missed for budget and %v for overlap, want %+v", budget, overlap, all)
		}
		stop()
	})
}

func TestDueTimesThatWaitAreServedInTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []assignment.ProducerID
		f := &fleet{collect: func(ctx context.Context, p *pull, _ time.Time) schedule.Result {
			order = append(order, p.id) // one at a time
			if p.id == "slow" {
				return pass(ctx, time.Hour+time.Minute)
			}
			return schedule.Result{}
		}}
		s, stop := run(t, f, schedule.Config{Concurrency: 1})
		var change schedule.Change
		for i := range 50 {
			change.Upserts = append(change.Upserts, newAssignment(assignment.ProducerID(fmt.Sprintf("p%02d", i)), time.Hour))
		}
		s.Apply(change)
		time.Sleep(time.Second)
		synctest.Wait()
		order = nil
		var want []assignment.ProducerID
		due := s.List("", 100, nil)
		slices.SortFunc(due, func(a, b schedule.Status) int { return a.Next.Compare(b.Next) })
		for _, status := range due {
			want = append(want, status.Assignment.ProducerID)
		}
		s.Apply(upserts(newAssignment("slow", 24*time.Hour)))
		time.Sleep(time.Hour + 2*time.Minute)
		synctest.Wait()
		// By then each was due once, and some a second time, in the same order.
		if len(order) < 51 || order[0] != "slow" || !slices.Equal(order[1:51], want) {
			t.Errorf("served %v, want %v", order, want)
		}
		stop()
	})
}
