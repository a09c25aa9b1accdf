package schedule_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// refuseFTP is an open or update that cannot run one scheme.
func refuseFTP(a *assignment.Assignment) error {
	if strings.HasPrefix(a.Endpoint, "ftp:") {
		return fmt.Errorf("no scheme %s", a.Endpoint)
	}
	return nil
}

func TestUnrunnableFromTheStartIsListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		f := &fleet{update: refuseFTP, open: func(a *assignment.Assignment) error {
			tries++
			return refuseFTP(a)
		}}
		metrics := schedule.NewMetrics()
		s, stop := run(t, f, schedule.Config{Metrics: metrics})
		never := with(newAssignment("never", time.Second), at("ftp://never"))
		s.Apply(upserts(never))
		time.Sleep(time.Minute)
		synctest.Wait()
		unrunnableIs(t, s, metrics, "never: no scheme ftp://never")
		if status := find(t, s, "never"); status.Assignment != never || !status.Next.IsZero() || status.UnrunnableReason == "" {
			t.Errorf("never: %+v", status)
		}
		if _, err := s.CollectNow(t.Context(), "never"); !errors.Is(err, schedule.ErrUnrunnable) {
			t.Errorf("CollectNow: %v", err)
		}

		s.Apply(upserts(with(never, func(a *assignment.Assignment) { a.Version = 7 })))
		unrunnableIs(t, s, metrics, "never: no scheme ftp://never")
		if tries != 1 {
			t.Errorf("tried %d times to open it, want once", tries)
		}
		s.Apply(upserts(with(never, at("http://never"))))
		unrunnableIs(t, s, metrics)
		began := time.Now()
		synctest.Wait()
		if calls := f.only(t, "never").log(); len(calls) != 1 || !calls[0].began.Equal(began) {
			t.Errorf("not collected at once: %v", calls)
		}
		s.Apply(upserts(with(never, at("ftp://again"))))
		unrunnableIs(t, s, metrics, "never: no scheme ftp://again")
		s.Apply(removal("never", true))
		unrunnableIs(t, s, metrics)
		stop()
	})
}

func TestUnrunnableChangeKeepsTheOldVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int64
		f := &fleet{collect: take(100 * time.Millisecond), update: func(a *assignment.Assignment) error {
			tries.Add(1)
			return refuseFTP(a)
		}}
		metrics := schedule.NewMetrics()
		s, stop := run(t, f, schedule.Config{Metrics: metrics})
		good := newAssignment("good", time.Second)
		s.Apply(upserts(good))
		time.Sleep(time.Minute)

		// While it runs: known when that has ended. It is cancelled, as for any
		// change.
		time.Sleep(time.Until(find(t, s, "good").Next.Add(time.Millisecond)))
		bad := with(good, at("ftp://good"))
		s.Apply(upserts(bad))
		synctest.Wait()
		unrunnableIs(t, s, metrics, "good: no scheme ftp://good")
		before := find(t, s, "good")
		if before.Assignment != bad {
			t.Error("the accepted assignment is not shown")
		}
		time.Sleep(time.Minute + 200*time.Millisecond)
		synctest.Wait()
		if after := find(t, s, "good"); after.Successes != before.Successes+60 || after.Missed != 0 || after.Failures != 0 {
			t.Errorf("the old version does not go on: %+v", after)
		}

		// The same again, in another version, while it runs: nothing is touched.
		time.Sleep(time.Until(find(t, s, "good").Next.Add(time.Millisecond)))
		again := with(bad, func(a *assignment.Assignment) { a.Version = 7 })
		s.Apply(upserts(again))
		if status := find(t, s, "good"); status.Assignment != again || status.UnrunnableReason == "" {
			t.Errorf("again: %+v", status)
		}
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		if status := find(t, s, "good"); status.Successes != before.Successes+61 || tries.Load() != 1 {
			t.Errorf("after %d tries: %+v", tries.Load(), status)
		}
		// While it is idle: known at once.
		time.Sleep(time.Until(find(t, s, "good").Next.Add(-100 * time.Millisecond)))
		s.Apply(upserts(with(good, at("ftp://other"))))
		unrunnableIs(t, s, metrics, "good: no scheme ftp://other")

		back := *good
		s.Apply(upserts(&back))
		unrunnableIs(t, s, metrics)
		if n := f.only(t, "good").updated(); n != 0 {
			t.Errorf("%d updates on the way back to what runs, want 0", n)
		}
		stop()
	})
}

func unrunnableIs(t *testing.T, s *schedule.Schedule, metrics *schedule.Metrics, want ...string) {
	t.Helper()
	count, list := s.Unrunnable()
	var got []string
	for _, u := range list {
		got = append(got, fmt.Sprintf("%s: %s", u.ProducerID, u.Reason))
	}
	if count != len(want) || !slices.Equal(got, want) {
		t.Errorf("%d unrunnable: %q, want %q", count, got, want)
	}
	if gauge := metric(t, metrics, "unrunnable_producers", ""); int(gauge) != count {
		t.Errorf("the gauge says %v", gauge)
	}
}

// An update that fails late does not hide the reason of a newer assignment.
func TestLateRefusalKeepsTheNewerReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{
			update: func(*assignment.Assignment) error { return errors.New("late") },
			collect: func(context.Context, *pull, time.Time) schedule.Result {
				time.Sleep(time.Second)
				return schedule.Result{}
			},
		}
		metrics := schedule.NewMetrics()
		s, stop := run(t, f, schedule.Config{Metrics: metrics})
		a := newAssignment("a", time.Hour)
		s.Apply(upserts(a))
		synctest.Wait()
		s.Apply(upserts(with(a, at("http://new"))))
		newest := with(a, func(a *assignment.Assignment) { a.Timeout = 0 })
		s.Apply(upserts(newest))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		unrunnableIs(t, s, metrics, "a: the timeout 0s is not positive")
		if status := find(t, s, "a"); status.Assignment != newest || status.UnrunnableReason == "" {
			t.Errorf("a: %+v", status)
		}
		stop()
	})
}

// An update that fails late is told of the newest assignment that asks for it.
func TestLateRefusalIsOfTheNewestVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{
			update: func(*assignment.Assignment) error { return errors.New("late") },
			collect: func(context.Context, *pull, time.Time) schedule.Result {
				time.Sleep(time.Second)
				return schedule.Result{}
			},
		}
		metrics := schedule.NewMetrics()
		s, stop := run(t, f, schedule.Config{Metrics: metrics})
		a := newAssignment("a", time.Hour)
		s.Apply(upserts(a))
		synctest.Wait()
		changed := with(a, at("http://new"))
		s.Apply(upserts(changed))
		newest := with(changed, func(a *assignment.Assignment) { a.Version = 7 })
		s.Apply(upserts(newest))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		unrunnableIs(t, s, metrics, "a: late")
		if status := find(t, s, "a"); status.Assignment != newest || status.UnrunnableReason != "late" {
			t.Errorf("a: %+v", status)
		}
		stop()
	})
}

func TestNonsenseTimesAreUnrunnable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{}
		s, stop := run(t, f, schedule.Config{})
		times := []struct{ interval, timeout time.Duration }{
			{0, 0},
			{0, time.Second},
			{-time.Second, -time.Second},
			{-1 << 63, -1 << 63},
			{1<<63 - 1, 1<<63 - 1},
			{24*time.Hour + time.Millisecond, time.Second},
			{time.Nanosecond, time.Nanosecond},
			{99 * time.Millisecond, time.Millisecond},
			{time.Second + 1, time.Second},
			{time.Second, 0},
			{time.Second, -1},
			{time.Second, time.Second + 1},
		}
		fine := newAssignment("fine", time.Hour)
		s.Apply(upserts(fine))
		for i, tm := range times {
			bad := with(newAssignment(assignment.ProducerID(fmt.Sprintf("bad%02d", i)), 0), func(a *assignment.Assignment) {
				a.Interval, a.Timeout = tm.interval, tm.timeout
			})
			s.Apply(upserts(bad))
			synctest.Wait()
			if status := find(t, s, bad.ProducerID); status.UnrunnableReason == "" || len(f.of(bad.ProducerID)) != 0 {
				t.Errorf("interval %v, timeout %v is run", tm.interval, tm.timeout)
			}
			s.Apply(upserts(with(fine, func(a *assignment.Assignment) { a.Interval, a.Timeout = tm.interval, tm.timeout })))
			if status := find(t, s, "fine"); status.UnrunnableReason == "" || status.Next.IsZero() {
				t.Errorf("interval %v, timeout %v: the old version does not go on", tm.interval, tm.timeout)
			}
		}
		if count, _ := s.Unrunnable(); count != len(times)+1 {
			t.Errorf("%d unrunnable, want %d", count, len(times)+1)
		}
		for _, interval := range []time.Duration{100 * time.Millisecond, 24 * time.Hour} {
			s.Apply(upserts(newAssignment("edge", interval)))
			synctest.Wait()
			if status := find(t, s, "edge"); status.UnrunnableReason != "" || len(f.of("edge")) != 1 {
				t.Errorf("interval %v: %s", interval, status.UnrunnableReason)
			}
		}
		stop()
	})
}

func TestPanicsOfTheCollectionsCodeAreContained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{open: func(a *assignment.Assignment) error {
			if a.ProducerID == "bad" {
				panic("open")
			}
			return nil
		}, update: func(*assignment.Assignment) error { panic("update") }}
		told := 0
		cfg := schedule.Config{Panicked: func(assignment.ProducerID, any, []byte) { told++ }}
		s, stop := run(t, f, cfg)
		good := newAssignment("good", time.Hour)
		s.Apply(upserts(good, newAssignment("bad", time.Hour)))
		synctest.Wait()
		s.Apply(upserts(with(good, at("http://new"))))
		_, list := s.Unrunnable()
		want := []schedule.Unrunnable{{ProducerID: "bad", Reason: "panic: open"}, {ProducerID: "good", Reason: "panic: update"}}
		if !slices.Equal(list, want) || told != 2 {
			t.Errorf("%d told, unrunnable %v, want %v", told, list, want)
		}
		stop()
	})
}

type oddOpener struct{ c schedule.Collection }

func (o oddOpener) Open(*assignment.Assignment) (schedule.Collection, error) { return o.c, nil }

type badEnd struct{ pull }

func (*badEnd) End(time.Time, bool) { panic("end") }

func TestOddCollections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := schedule.New(schedule.Config{Opener: oddOpener{}})
		s.Apply(upserts(newAssignment("a", time.Hour)))
		if count, _ := s.Unrunnable(); count != 1 {
			t.Error("no collection is a collection")
		}
		told := make(chan any, 1)
		cfg := schedule.Config{Opener: oddOpener{&badEnd{pull{fleet: &fleet{}}}}, Panicked: func(_ assignment.ProducerID, v any, _ []byte) { told <- v }}
		s = schedule.New(cfg)
		s.Apply(upserts(newAssignment("a", time.Hour)))
		s.Apply(removal("a", true))
		if err := s.Run(canceled()); err != nil || <-told != "end" {
			t.Errorf("Run: %v", err)
		}
	})
}
