package schedule_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// checkGrid fails unless the calls are the first collection at began and then
// every instant of the grid until now, each started at its instant.
func checkGrid(t *testing.T, p *pull, interval time.Duration, began time.Time) {
	t.Helper()
	calls := p.log()
	if len(calls) == 0 || !calls[0].at.Equal(began) || !calls[0].began.Equal(began) {
		t.Fatalf("%s: the first collection is not at %v: %v", p.id, began, calls)
	}
	want := schedule.GridOf(p.id, interval).Next(began.UnixMilli())
	for _, c := range calls[1:] {
		if !onGrid(p.id, interval, want) {
			t.Fatalf("%s: %d is not on the grid", p.id, want)
		}
		if at := time.UnixMilli(want); !c.at.Equal(at) || !c.began.Equal(at) {
			t.Fatalf("%s: collected at %v under %v, want %v", p.id, c.began, c.at, at)
		}
		want += interval.Milliseconds()
	}
	if want <= time.Now().UnixMilli() {
		t.Fatalf("%s: nothing collected at %v", p.id, time.UnixMilli(want))
	}
}

func TestEveryProducerIsCollectedOnItsGridForHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		intervals := []time.Duration{1733 * time.Millisecond, 10 * time.Second, time.Minute, 7 * time.Minute, time.Hour}
		f := &fleet{collect: take(300 * time.Millisecond)}
		metrics := schedule.NewMetrics()
		s, stop := run(t, f, schedule.Config{Metrics: metrics})
		var change schedule.Change
		for i := range 100 {
			interval := intervals[i%len(intervals)]
			a := newAssignment(assignment.ProducerID(fmt.Sprintf("p%03d", i)), interval)
			// The first collection must have ended by the first instant, which
			// is where a miss would be right.
			if schedule.GridOf(a.ProducerID, interval).Next(time.Now().UnixMilli())-time.Now().UnixMilli() > 300 {
				change.Upserts = append(change.Upserts, a)
			}
		}
		began := time.Now()
		s.Apply(change)
		time.Sleep(3*time.Hour + 17*time.Millisecond)
		synctest.Wait()
		for _, a := range change.Upserts {
			checkGrid(t, f.only(t, a.ProducerID), a.Interval, began)
			status := find(t, s, a.ProducerID)
			if status.Missed != 0 || status.Failures != 0 {
				t.Errorf("%s: %d missed, %d failed", a.ProducerID, status.Missed, status.Failures)
			}
			if want := schedule.GridOf(a.ProducerID, a.Interval).Next(time.Now().UnixMilli()); status.Next.UnixMilli() != want {
				t.Errorf("%s: next at %v, want %v", a.ProducerID, status.Next, time.UnixMilli(want))
			}
		}
		stop()
		// The runs cut off at the end are cancelled, and only those.
		if n := metric(t, metrics, "running_collections", ""); n != 0 {
			t.Errorf("%v collections are running after the end", n)
		}
	})
}

func TestRemovalsLeaveTheOthersOnTheirGrids(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{}
		s, stop := run(t, f, schedule.Config{})
		random := rand.New(rand.NewPCG(1, 2))
		var all schedule.Change
		for i := range 400 {
			interval := time.Duration(1+random.IntN(100)) * time.Second
			all.Upserts = append(all.Upserts, newAssignment(assignment.ProducerID(fmt.Sprintf("p%03d", i)), interval))
		}
		s.Apply(all)
		began := time.Now()
		for _, i := range random.Perm(400)[:300] {
			time.Sleep(time.Duration(random.IntN(2000)) * time.Millisecond)
			s.Apply(removal(all.Upserts[i].ProducerID, true))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, status := range s.List("", 400, nil) {
			checkGrid(t, f.only(t, status.Assignment.ProducerID), status.Assignment.Interval, began)
		}
		if s.Len() != 100 {
			t.Errorf("%d left, want 100", s.Len())
		}
		stop()
	})
}

func TestFirstCollectionsAreAtOnceAtABoundedRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const producers, burst, perSecond = 1000, 50, 100
		f := &fleet{}
		metrics := schedule.NewMetrics()
		s, stop := run(t, f, schedule.Config{Concurrency: burst, StartRate: perSecond, Metrics: metrics})
		began := time.Now()
		var change schedule.Change
		for i := range producers {
			change.Upserts = append(change.Upserts, newAssignment(assignment.ProducerID(fmt.Sprintf("p%03d", i)), time.Hour))
		}
		s.Apply(change)
		time.Sleep(9500 * time.Millisecond)
		synctest.Wait()
		for i, a := range change.Upserts {
			calls := f.only(t, a.ProducerID).log()
			want := began.Add(time.Duration(max(0, i-burst+1)) * time.Second / perSecond)
			if len(calls) == 0 || !calls[0].began.Equal(want) {
				t.Fatalf("%s: first collected %v, want after %v", a.ProducerID, calls, want.Sub(began))
			}
			if stamp := calls[0].at; !stamp.Equal(want.Truncate(time.Millisecond)) && !onGrid(a.ProducerID, a.Interval, stamp.UnixMilli()) {
				t.Errorf("%s: the first collection at %v is stamped %v", a.ProducerID, want, stamp)
			}
		}
		if n := metric(t, metrics, "start_delay_seconds", ""); n < producers {
			t.Errorf("%v start delays observed, want at least %d", n, producers)
		}
		stop()
	})
}

// A first collection that has to wait beyond the next due time takes that one's
// place: the sample is on the grid, no due time is missed, the rate is kept.
func TestFirstCollectionThatWaitsTakesTheDueTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{}
		s, stop := run(t, f, schedule.Config{Concurrency: 1, StartRate: 1})
		s.Apply(upserts(newAssignment("a", time.Hour), newAssignment("b", time.Hour), newAssignment("c", 300*time.Millisecond)))
		began := time.Now()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		first := f.only(t, "c").log()[0]
		if !first.began.Equal(began.Add(2 * time.Second)) {
			t.Errorf("first collected after %v, want 2s", first.began.Sub(began))
		}
		grid := schedule.GridOf("c", 300*time.Millisecond)
		last := began.UnixMilli()
		ticks := int64(0)
		for next := grid.Next(last); next <= first.began.UnixMilli(); next = grid.Next(last) {
			last = next
			ticks++
		}
		if first.at.UnixMilli() != last {
			t.Errorf("stamped %v, want the due time %v", first.at, time.UnixMilli(last))
		}
		if missed := find(t, s, "c").Missed; missed != ticks-1 {
			t.Errorf("%d missed, want all %d but the last", missed, ticks)
		}
		stop()
	})
}

func TestApplyBeforeRunIsCollectedWithoutMisses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{}
		s := schedule.New(schedule.Config{Opener: f})
		s.Apply(upserts(newAssignment("a", time.Second), newAssignment("b", time.Minute), newAssignment("c", time.Minute)))
		s.Apply(removal("c", true))
		if s.Len() != 2 {
			t.Fatalf("%d applied, want 2", s.Len())
		}
		time.Sleep(time.Hour)
		began := time.Now()
		stop := start(t, f, s)
		time.Sleep(time.Hour)
		synctest.Wait()
		checkGrid(t, f.only(t, "a"), time.Second, began)
		checkGrid(t, f.only(t, "b"), time.Minute, began)
		if missed := find(t, s, "a").Missed; missed != 0 {
			t.Errorf("%d missed, want 0", missed)
		}
		if ends := f.only(t, "c").ended(); len(ends) != 1 || !ends[0].stale {
			t.Errorf("the producer removed before Run was ended %v", ends)
		}
		stop()
	})
}

func TestStopCancelsAndEndsWithoutStaleMarkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{collect: func(ctx context.Context, p *pull, _ time.Time) schedule.Result {
			if p.id == "idle" {
				return schedule.Result{}
			}
			<-ctx.Done()
			time.Sleep(3 * time.Second) // it takes a while to notice
			return schedule.Result{Reason: schedule.ReasonUnreachable}
		}}
		metrics := schedule.NewMetrics()
		s, stop := run(t, f, schedule.Config{Metrics: metrics})
		s.Apply(upserts(newAssignment("runs", time.Hour), newAssignment("idle", time.Hour), newAssignment("removed", time.Hour)))
		synctest.Wait()
		s.Apply(removal("removed", true))
		synctest.Wait()
		began := time.Now()
		stop()
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("Run returned after %v, want the 3s of the running collection", took)
		}
		for id, stale := range map[assignment.ProducerID]bool{"runs": false, "idle": false, "removed": true} {
			if ends := f.only(t, id).ended(); len(ends) != 1 || ends[0].stale != stale {
				t.Errorf("%s: ended %v, want once and stale %v", id, ends, stale)
			}
		}
		if status := find(t, s, "runs"); status.Failures != 0 || !status.FailingSince.IsZero() {
			t.Error("the cancelled collection counts as the producer's failure")
		}
		if got := metric(t, metrics, "collections_total", "cancelled"); got != 2 {
			t.Errorf("%v cancelled, want 2", got)
		}
		s.Apply(upserts(newAssignment("late", time.Hour)))
		if s.Len() != 2 || len(f.of("late")) != 0 {
			t.Error("a change after the end was applied")
		}
		if err := s.Run(t.Context()); err == nil {
			t.Error("Run can be called twice")
		}
	})
}

func TestGoroutinesOfPastCollectionsAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{collect: take(time.Second)}
		s, stop := run(t, f, schedule.Config{})
		before := runtime.NumGoroutine()
		var change schedule.Change
		for i := range 500 {
			change.Upserts = append(change.Upserts, newAssignment(assignment.ProducerID(fmt.Sprintf("p%03d", i)), time.Hour))
		}
		s.Apply(change)
		time.Sleep(500 * time.Millisecond)
		if n := runtime.NumGoroutine() - before; n < 450 {
			t.Fatalf("%d goroutines while all are collected", n)
		}
		for range 3 {
			time.Sleep(time.Hour)
			synctest.Wait()
			// The runtime counts them to some dozens, while it puts away dead ones.
			if n := runtime.NumGoroutine() - before; n > 150 {
				t.Errorf("%d goroutines are left", n)
			}
		}
		stop() // goleak finds who outlives it
	})
}

func TestPanicIsAFailureOfThatCollection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{collect: func(_ context.Context, p *pull, _ time.Time) schedule.Result {
			if p.id == "bad" {
				panic("index out of range")
			}
			return schedule.Result{}
		}}
		var told []string
		metrics := schedule.NewMetrics()
		s, stop := run(t, f, schedule.Config{Metrics: metrics, Panicked: func(id assignment.ProducerID, value any, stack []byte) {
			if !strings.Contains(string(stack), "TestPanicIsAFailure") {
				t.Errorf("not the stack of the panic: %s", stack)
			}
			told = append(told, fmt.Sprintf("%s: %v", id, value))
		}})
		s.Apply(upserts(newAssignment("bad", time.Hour), newAssignment("good", time.Hour)))
		synctest.Wait()
		bad := find(t, s, "bad")
		if bad.Last.Reason != schedule.ReasonMalformed || bad.Last.Message != "panic: index out of range" || bad.Failures != 1 {
			t.Errorf("the panic came to %+v", bad.Last)
		}
		if good := find(t, s, "good"); good.Successes != 1 {
			t.Errorf("the other producer has %d successes, want 1", good.Successes)
		}
		if len(told) != 1 || told[0] != "bad: index out of range" {
			t.Errorf("told %q", told)
		}
		if got := metric(t, metrics, "collections_total", "panic"); got != 1 {
			t.Errorf("%v panics counted, want 1", got)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if bad := find(t, s, "bad"); bad.Failures != 2 {
			t.Errorf("%d failures, want the schedule to go on", bad.Failures)
		}
		stop()
	})
}

func TestStatusTellsSuccessAndFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		f := &fleet{collect: func(context.Context, *pull, time.Time) schedule.Result {
			time.Sleep(20 * time.Millisecond)
			switch n++; n {
			case 2, 3:
				return schedule.Result{Reason: schedule.ReasonStatus, Message: strings.Repeat("ä", 1000), Samples: 3, BodyBytes: 30}
			default:
				return schedule.Result{Samples: 7, BodyBytes: 70}
			}
		}}
		metrics := schedule.NewMetrics()
		s, stop := run(t, f, schedule.Config{Metrics: metrics})
		s.Apply(upserts(newAssignment("a", time.Hour)))
		if status := find(t, s, "a"); status.Last != (schedule.Result{}) || !status.LastSuccess.IsZero() {
			t.Errorf("before the first collection: %+v", status)
		}
		grid := time.UnixMilli(schedule.GridOf("a", time.Hour).Next(time.Now().UnixMilli()))
		time.Sleep(time.Until(grid.Add(time.Hour + time.Minute)))
		synctest.Wait()

		status := find(t, s, "a")
		if status.Successes != 1 || status.Failures != 2 || !status.FailingSince.Equal(grid.Add(20*time.Millisecond)) ||
			!status.LastFailure.Equal(grid.Add(time.Hour+20*time.Millisecond)) {
			t.Errorf("after two failures: %+v", status)
		}
		if status.Last.Reason != schedule.ReasonStatus || status.Last.Message != strings.Repeat("ä", 256) ||
			status.Last.Duration != 20*time.Millisecond || !status.Last.Start.Equal(grid.Add(time.Hour)) {
			t.Errorf("the last failure: %+v", status.Last)
		}
		if status.Last != status.Failure {
			t.Errorf("the last one is %+v, the last failure %+v", status.Last, status.Failure)
		}
		first := schedule.Result{Start: status.Success.Start, Duration: 20 * time.Millisecond, Samples: 7, BodyBytes: 70}
		if status.Success != first || !first.Start.Before(grid) {
			t.Errorf("the success before the failures: %+v", status.Success)
		}

		time.Sleep(time.Hour)
		synctest.Wait()
		status = find(t, s, "a")
		if status.Successes != 2 || !status.FailingSince.IsZero() || status.Failure.Reason != schedule.ReasonStatus ||
			status.Failure.Message == "" || !status.LastSuccess.Equal(grid.Add(2*time.Hour+20*time.Millisecond)) {
			t.Errorf("after the success: %+v", status)
		}
		if status.Last.Reason != schedule.ReasonNone || status.Last.Message != "" || status.Last.Samples != 7 || status.Last.BodyBytes != 70 {
			t.Errorf("the last success: %+v", status.Last)
		}
		failure := schedule.Result{
			Start: time.Unix(0, grid.Add(time.Hour).UnixNano()), Duration: 20 * time.Millisecond, Samples: 3, BodyBytes: 30,
			Reason: schedule.ReasonStatus, Message: strings.Repeat("ä", 256),
		}
		if status.Failure != failure || status.Success != status.Last {
			t.Errorf("the failure before the success: %+v, want %+v; the success %+v", status.Failure, failure, status.Success)
		}
		if a, b := metric(t, metrics, "collections_total", "success"), metric(t, metrics, "collections_total", "status"); a != 2 || b != 2 {
			t.Errorf("%v successes and %v failures counted", a, b)
		}
		stop()
	})
}

func TestMetricsAreWellNamed(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(schedule.NewMetrics())
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestReasonsHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for r := schedule.ReasonNone; r <= schedule.ReasonStore; r++ {
		if name := r.String(); name == "other" || seen[name] || name != strings.ToLower(name) {
			t.Errorf("reason %d is called %q", r, name)
		} else {
			seen[name] = true
		}
	}
	if name := schedule.Reason(99).String(); name != "other" {
		t.Errorf("no reason is called %q", name)
	}
}
