package schedule_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// with is an assignment with something changed.
func with(a *assignment.Assignment, change func(*assignment.Assignment)) *assignment.Assignment {
	changed := *a
	change(&changed)
	return &changed
}

func at(endpoint string) func(*assignment.Assignment) {
	return func(a *assignment.Assignment) { a.Endpoint = endpoint }
}

func TestUnchangedUpsertTouchesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{collect: take(30 * time.Second)}
		s, stop := run(t, f, schedule.Config{})
		first := newAssignment("a", time.Minute)
		first.Labels = []assignment.Label{{Name: "job", Value: "x"}}
		s.Apply(upserts(first))
		began := time.Now()
		time.Sleep(time.Hour + time.Second)
		time.Sleep(time.Until(find(t, s, "a").Next.Add(time.Second))) // one runs
		synctest.Wait()
		before := find(t, s, "a")

		for version := range assignment.Version(10) {
			same := with(first, func(a *assignment.Assignment) {
				a.Version, a.Role = version, assignment.Role(version)
				a.Labels = slices.Clone(a.Labels)
			})
			s.Apply(upserts(same))
			after := find(t, s, "a")
			if after.Assignment != same {
				t.Error("the new assignment is not the applied one")
			}
			after.Assignment = before.Assignment
			if after != before {
				t.Errorf("the status was\n%+v, is\n%+v", before, after)
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		p := f.only(t, "a")
		if n := p.updated(); n != 0 {
			t.Errorf("%d updates, want 0", n)
		}
		checkGrid(t, p, time.Minute, began)
		if status := find(t, s, "a"); status.Failures != 0 || status.Successes != before.Successes+1 {
			t.Errorf("the running collection was touched: %+v", status)
		}
		stop()
	})
}

func TestChangedEndpointCancelsAndGoesOnOnTheGrid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{collect: func(ctx context.Context, _ *pull, _ time.Time) schedule.Result {
			result := pass(ctx, 30*time.Second)
			if ctx.Err() != nil {
				time.Sleep(2 * time.Second) // it takes a while to notice
			}
			return result
		}}
		metrics := schedule.NewMetrics()
		s, stop := run(t, f, schedule.Config{Metrics: metrics})
		first := newAssignment("a", time.Hour)
		s.Apply(upserts(first))
		synctest.Wait()
		began := time.Now()
		s.Apply(upserts(with(first, func(a *assignment.Assignment) {
			a.Endpoint, a.Interval, a.Timeout = "http://new", 10*time.Minute, time.Minute
		})))
		if took := time.Since(began); took != 0 {
			t.Errorf("Apply took %v", took)
		}
		p := f.only(t, "a")
		if p.updated() != 0 {
			t.Error("updated while it ran")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if c := p.log()[0]; p.updated() != 1 || !c.ended.Equal(began.Add(2*time.Second)) {
			t.Errorf("%d updates, collected until %v", p.updated(), c.ended)
		}
		if status := find(t, s, "a"); status.Failures != 0 || status.Successes != 0 || status.Missed != 0 {
			t.Errorf("the cancelled collection was counted: %+v", status)
		}
		if got := metric(t, metrics, "collections_total", "cancelled"); got != 1 {
			t.Errorf("%v cancelled, want 1", got)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		want := schedule.GridOf("a", 10*time.Minute).Next(began.UnixMilli())
		calls := p.log()[1:]
		if len(calls) != 6 {
			t.Errorf("%d collections in an hour, want 6", len(calls))
		}
		for _, c := range calls {
			if !c.at.Equal(time.UnixMilli(want)) || !c.began.Equal(c.at) || c.endpoint != "http://new" {
				t.Errorf("collected %s at %v under %v, want %v", c.endpoint, c.began, c.at, time.UnixMilli(want))
			}
			want += (10 * time.Minute).Milliseconds()
		}
		stop()
	})
}

func TestChangedEndpointForgetsThatTheOldOneFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{collect: func(context.Context, *pull, time.Time) schedule.Result {
			return schedule.Result{Reason: schedule.ReasonUnreachable, Message: "refused"}
		}}
		s, stop := run(t, f, schedule.Config{})
		first := newAssignment("a", time.Hour)
		s.Apply(upserts(first))
		began := time.Now()
		time.Sleep(30 * time.Second)
		second := with(first, func(a *assignment.Assignment) { a.Timeout = time.Second })
		s.Apply(upserts(second))
		if since := find(t, s, "a").FailingSince; !since.Equal(began) {
			t.Errorf("failing since %v, want %v", since, began)
		}
		s.Apply(upserts(with(second, at("http://new"))))
		status := find(t, s, "a")
		if !status.FailingSince.IsZero() || status.Failures != 1 || status.Failure.Message != "refused" {
			t.Errorf("with a new endpoint: %+v", status)
		}
		time.Sleep(time.Until(status.Next))
		synctest.Wait()
		if since := find(t, s, "a").FailingSince; !since.Equal(status.Next) {
			t.Errorf("failing since %v, want %v", since, status.Next)
		}
		stop()
	})
}

// A due time that waits for room is not lost because something else than the
// interval changes.
func TestChangeKeepsADueTimeThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{collect: func(ctx context.Context, p *pull, _ time.Time) schedule.Result {
			if p.id == "slow" {
				return pass(ctx, time.Hour)
			}
			return schedule.Result{}
		}}
		s, stop := run(t, f, schedule.Config{Concurrency: 1})
		first := newAssignment("a", time.Hour)
		s.Apply(upserts(first))
		synctest.Wait()
		tick := find(t, s, "a").Next
		time.Sleep(time.Until(tick.Add(-time.Second)))
		s.Apply(upserts(with(newAssignment("slow", time.Hour), func(a *assignment.Assignment) { a.Timeout = time.Minute })))
		time.Sleep(2 * time.Second)
		s.Apply(upserts(with(first, at("http://new"))))
		time.Sleep(time.Minute)
		synctest.Wait()
		calls := f.only(t, "a").log()
		if last := calls[len(calls)-1]; len(calls) != 2 || !last.at.Equal(tick) || !last.began.Equal(tick.Add(59*time.Second)) || last.endpoint != "http://new" {
			t.Errorf("collections: %+v", calls)
		}
		if missed := find(t, s, "a").Missed; missed != 0 {
			t.Errorf("%d missed, want 0", missed)
		}

		// With another interval it is on another grid, and is missed.
		tick = find(t, s, "a").Next
		time.Sleep(time.Until(tick.Add(-time.Second)))
		if _, err := s.CollectNow(canceled(), "slow"); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		s.Apply(upserts(with(first, func(a *assignment.Assignment) { a.Interval = 2 * time.Hour })))
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(f.only(t, "a").log()); n != 2 {
			t.Errorf("%d collections, want 2", n)
		}
		if missed := find(t, s, "a").Missed; missed != 1 {
			t.Errorf("%d missed, want 1", missed)
		}
		stop()
	})
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// TestRemovalWaitsForTheRunningCollection: one that is gone is cancelled first; one
// that was handed off is let finish, for the instant that it stands for.
func TestRemovalWaitsForTheRunningCollection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{collect: func(ctx context.Context, _ *pull, _ time.Time) schedule.Result {
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			time.Sleep(3 * time.Second)
			return schedule.Result{Reason: schedule.ReasonUnreachable}
		}}
		s, stop := run(t, f, schedule.Config{})
		for _, stale := range []bool{true, false} {
			id := assignment.ProducerID(fmt.Sprint("stale-", stale))
			s.Apply(upserts(newAssignment(id, time.Hour)))
			synctest.Wait()
			began := time.Now()
			s.Apply(removal(id, stale))
			if took := time.Since(began); took != 0 {
				t.Errorf("Apply took %v", took)
			}
			if _, ok := s.Find(id); ok || s.Len() != 0 {
				t.Error("still applied")
			}
			if !stale {
				time.Sleep(time.Second)
			}
			time.Sleep(3*time.Second - time.Nanosecond)
			synctest.Wait()
			if ends := f.only(t, id).ended(); len(ends) != 0 {
				t.Errorf("stale %v: ended %v while it ran", stale, ends)
			}
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			now := time.Now()
			want := end{at: now, called: now, stale: stale}
			if ends := f.only(t, id).ended(); len(ends) != 1 || !ends[0].at.Equal(want.at) || ends[0].stale != stale || !ends[0].called.Equal(now) {
				t.Errorf("ended %+v, want %+v", ends, want)
			}
		}
		stop()
	})
}

func TestReaddedProducerWaitsForItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{collect: func(_ context.Context, p *pull, _ time.Time) schedule.Result {
			if p == p.fleet.pulls[0] {
				time.Sleep(30 * time.Second) // whatever ctx says
			}
			return schedule.Result{}
		}}
		s, stop := run(t, f, schedule.Config{})
		a := newAssignment("a", 10*time.Second)
		s.Apply(upserts(a))
		synctest.Wait()
		began := time.Now()
		time.Sleep(100 * time.Millisecond)
		for range 5 {
			s.Apply(removal("a", false))
			s.Apply(upserts(a))
			synctest.Wait()
		}
		s.Apply(removal("a", true))
		s.Apply(upserts(a))
		if _, err := s.CollectNow(t.Context(), "a"); !errors.Is(err, schedule.ErrBusy) {
			t.Errorf("CollectNow: %v", err)
		}
		time.Sleep(30*time.Second - 200*time.Millisecond)
		synctest.Wait()
		pulls := f.of("a")
		newest := pulls[len(pulls)-1]
		if n := len(newest.log()); n != 0 {
			t.Fatalf("%d collections before the end", n)
		}
		missed := find(t, s, "a").Missed
		if missed < 2 || missed > 3 {
			t.Errorf("%d missed, want those of 30 s", missed)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if ends := pulls[0].ended(); len(ends) != 1 || !ends[0].called.Equal(began.Add(30*time.Second)) || !ends[0].stale {
			t.Errorf("the first one ended %+v, want as the last removal said", ends)
		}
		if calls := newest.log(); len(calls) < 6 || !calls[0].began.Equal(began.Add(30*time.Second)) {
			t.Errorf("the newest one collected %+v", calls)
		}
		for _, p := range pulls[1 : len(pulls)-1] {
			if len(p.log()) != 0 || len(p.ended()) != 1 {
				t.Errorf("one in between: %d collections, %d ends", len(p.log()), len(p.ended()))
			}
		}
		stop()
	})
}

func TestChangeWithRepeatedIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{}
		s, stop := run(t, f, schedule.Config{})
		one, two := newAssignment("a", time.Hour), newAssignment("a", time.Minute)
		s.Apply(schedule.Change{
			Upserts:  []*assignment.Assignment{newAssignment("b", time.Hour), one, nil, two},
			Removals: []schedule.Removal{{ProducerID: "b"}, {ProducerID: "none", Stale: true}},
		})
		synctest.Wait()
		if s.Len() != 1 || find(t, s, "a").Assignment != two || len(f.of("b")) != 0 {
			t.Errorf("%d applied: %+v", s.Len(), s.List("", 10, nil))
		}
		f.only(t, "a")
		s.Apply(schedule.Change{
			Upserts:  upserts(one).Upserts,
			Removals: []schedule.Removal{{ProducerID: "a"}, {ProducerID: "a", Stale: true}},
		})
		synctest.Wait()
		if ends := f.only(t, "a").ended(); s.Len() != 0 || len(ends) != 1 || !ends[0].stale {
			t.Errorf("%d applied, ended %+v", s.Len(), ends)
		}
		s.Apply(schedule.Change{})
		stop()
	})
}
