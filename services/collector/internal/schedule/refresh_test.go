package schedule_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// barred makes a fleet whose collections refuse what bars says.
func barred(f *fleet) (bars *atomic.Pointer[assignment.ProducerID]) {
	bars = new(atomic.Pointer[assignment.ProducerID])
	f.open = func(a *assignment.Assignment) error {
		if id := bars.Load(); id != nil && *id == a.ProducerID {
			return errors.New("barred")
		}
		return nil
	}
	f.update = f.open
	return bars
}

// Where nothing has changed, Refresh only asks: each collection goes on, those
// that run to their end, at every instant of its grid.
func TestRefreshThatChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const interval = 10 * time.Second
		f := &fleet{collect: take(3 * time.Second)}
		s, stop := run(t, f, schedule.Config{})
		var change schedule.Change
		for i := range 200 {
			a := newAssignment(assignment.ProducerID(fmt.Sprintf("p%03d", i)), interval)
			// The first collection must have ended by the first instant.
			if schedule.GridOf(a.ProducerID, interval).Next(time.Now().UnixMilli())-time.Now().UnixMilli() > 3000 {
				change.Upserts = append(change.Upserts, a)
			}
		}
		began := time.Now()
		s.Apply(change)
		const times = 50
		for range times {
			time.Sleep(7013 * time.Millisecond)
			s.Refresh()
		}
		time.Sleep(interval)
		synctest.Wait()
		for _, a := range change.Upserts {
			p := f.only(t, a.ProducerID)
			checkGrid(t, p, interval, began)
			status := find(t, s, a.ProducerID)
			if status.Failures+status.Missed != 0 || int(status.Successes) < len(p.log())-1 || p.updated() != times {
				t.Errorf("%s: %d updates, %+v", a.ProducerID, p.updated(), status)
			}
		}
		stop()
	})
}

func TestRefreshEndsWhatCannotBeRun(t *testing.T) {
	for _, while := range []string{"idle", "running"} {
		t.Run(while, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fleet{collect: take(time.Second)}
				bars := barred(f)
				metrics := schedule.NewMetrics()
				s, stop := run(t, f, schedule.Config{Metrics: metrics})
				s.Apply(upserts(newAssignment("a", 10*time.Second), newAssignment("b", 10*time.Second)))
				time.Sleep(time.Until(find(t, s, "a").Next.Add(-time.Second)))
				want := time.Now()
				if while == "running" {
					time.Sleep(1500 * time.Millisecond)
					want = want.Add(2 * time.Second) // its end
				}
				synctest.Wait()
				before := find(t, s, "a")
				bars.Store(new(assignment.ProducerID("a")))
				s.Refresh()
				time.Sleep(time.Minute)
				synctest.Wait()
				unrunnableIs(t, s, metrics, "a: barred")
				ends := f.only(t, "a").ended()
				if len(ends) != 1 || !ends[0].stale || !ends[0].called.Equal(want) {
					t.Errorf("ended %+v, want at %v with stale markers", ends, want)
				}
				after := find(t, s, "a")
				if running := int64(btoi(while == "running")); !after.Next.IsZero() || after.Successes != before.Successes+running || after.Failures != 0 {
					t.Errorf("before %+v, after %+v", before, after)
				}
				if _, err := s.CollectNow(t.Context(), "a"); !errors.Is(err, schedule.ErrUnrunnable) {
					t.Errorf("CollectNow: %v", err)
				}
				if n := len(f.only(t, "b").log()); n < 6 || len(f.only(t, "b").ended()) != 0 {
					t.Errorf("b has %d collections", n)
				}

				// And back: at once, and then on the grid.
				bars.Store(nil)
				began := time.Now()
				s.Refresh()
				time.Sleep(time.Minute)
				synctest.Wait()
				unrunnableIs(t, s, metrics)
				pulls := f.of("a")
				if len(pulls) != 2 || len(pulls[1].log()) < 6 || !pulls[1].log()[0].began.Equal(began) {
					t.Fatalf("%d collections of a", len(pulls))
				}
				if again := find(t, s, "a"); again.Successes < after.Successes+6 {
					t.Errorf("the counts do not go on: %+v, then %+v", after, again)
				}
				stop()
			})
		})
	}
}

// What ended and came back is not collected before the old collection's End.
func TestRefreshWithoutRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{collect: take(30 * time.Second)}
		bars := barred(f)
		s, stop := run(t, f, schedule.Config{Concurrency: 1})
		s.Apply(upserts(newAssignment("a", time.Hour)))
		time.Sleep(time.Minute)
		s.Apply(upserts(newAssignment("b", time.Hour))) // has all the room
		synctest.Wait()
		for range 3 {
			bars.Store(new(assignment.ProducerID("a")))
			s.Refresh()
			bars.Store(nil)
			s.Refresh()
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		pulls := f.of("a")
		if len(pulls) != 4 || len(pulls[3].log()) != 1 || len(pulls[1].log())+len(pulls[2].log()) != 0 {
			t.Errorf("%d collections of a", len(pulls))
		}
		stop()
	})
}

// A whole fleet that was barred comes back at the rate of first collections.
func TestRefreshIsNoStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const producers, burst, perSecond = 500, 50, 100
		f := &fleet{}
		var barAll atomic.Bool
		f.open = func(*assignment.Assignment) error {
			if barAll.Load() {
				return errors.New("barred")
			}
			return nil
		}
		f.update = f.open
		s, stop := run(t, f, schedule.Config{Concurrency: burst, StartRate: perSecond})
		var change schedule.Change
		for i := range producers {
			change.Upserts = append(change.Upserts, newAssignment(assignment.ProducerID(fmt.Sprintf("p%03d", i)), 24*time.Hour))
		}
		s.Apply(change)
		time.Sleep(time.Minute)
		barAll.Store(true)
		s.Refresh()
		synctest.Wait()
		if count, _ := s.Unrunnable(); count != producers {
			t.Fatalf("%d unrunnable", count)
		}
		time.Sleep(time.Minute)
		barAll.Store(false)
		began := time.Now()
		s.Refresh()
		s.Refresh() // not twice
		time.Sleep(time.Minute)
		synctest.Wait()
		for i, a := range change.Upserts {
			pulls := f.of(a.ProducerID)
			if len(pulls) != 2 {
				t.Fatalf("%d collections of %s", len(pulls), a.ProducerID)
			}
			want := began.Add(time.Duration(max(0, i-burst+1)) * time.Second / perSecond)
			if calls := pulls[1].log(); len(calls) == 0 || !calls[0].began.Equal(want) {
				t.Fatalf("%s: collected %v, want at %v", a.ProducerID, calls, want)
			}
		}
		stop()
	})
}

// A change that was refused is tried again; what ran in its place is left only if
// that is refused, too.
func TestRefreshTriesTheNewerAssignment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{}
		var closed atomic.Value
		closed.Store("http://new")
		f.update = func(a *assignment.Assignment) error {
			if a.Endpoint == closed.Load() {
				return errors.New("closed")
			}
			return nil
		}
		metrics := schedule.NewMetrics()
		s, stop := run(t, f, schedule.Config{Metrics: metrics})
		a := newAssignment("a", time.Hour)
		s.Apply(upserts(a))
		synctest.Wait()
		s.Apply(upserts(with(a, at("http://new"))))
		unrunnableIs(t, s, metrics, "a: closed")
		s.Refresh()
		unrunnableIs(t, s, metrics, "a: closed")
		if p := f.only(t, "a"); p.endpoint() != a.Endpoint {
			t.Errorf("runs %s", p.endpoint())
		}
		closed.Store("")
		s.Refresh()
		unrunnableIs(t, s, metrics)
		if p := f.only(t, "a"); p.endpoint() != "http://new" || len(p.ended()) != 0 {
			t.Errorf("runs %s", p.endpoint())
		}
		stop()
	})
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
