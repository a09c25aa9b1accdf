package schedule_test

import (
	"context"
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

func target(a *assignment.Assignment)  { a.Role = assignment.RoleHandoffTarget }
func owner(a *assignment.Assignment)   { a.Role = assignment.RoleOwner }
func source(a *assignment.Assignment)  { a.Role = assignment.RoleHandoffSource }
func lasting(a *assignment.Assignment) { a.Permanent = true }

// past is a time so long after an instant of a producer's grid that is at least
// two intervals away, and the instant; the bubble sleeps until then.
func past(id assignment.ProducerID, interval, d time.Duration) (instant time.Time) {
	grid := schedule.GridOf(id, interval)
	instant = time.UnixMilli(grid.Next(time.Now().Add(2 * interval).UnixMilli()))
	time.Sleep(time.Until(instant.Add(d)))
	return instant
}

// shown is a producer's collections, in words: when each began after a time, and
// under which time stamp, counted from the same.
func shown(p *pull, from time.Time) []string {
	var all []string
	for _, c := range p.log() {
		how := ""
		if c.probe {
			how = "probe "
		}
		stamp := "nothing"
		if !c.at.IsZero() {
			stamp = c.at.Sub(from).String()
		}
		all = append(all, fmt.Sprintf("%s%v:%s", how, c.began.Sub(from), stamp))
	}
	return all
}

// failing fails that many collections, then succeeds.
func failing(n int64) func(context.Context, *pull, time.Time) schedule.Result {
	var done atomic.Int64
	return func(context.Context, *pull, time.Time) schedule.Result {
		if done.Add(1) <= n {
			return schedule.Result{Reason: schedule.ReasonUnreachable}
		}
		return schedule.Result{Samples: 1}
	}
}

// TestProbeStandsForAnInstant: what a joining producer yields is kept when its
// collection begins within 5 s after an instant of its grid, under that instant,
// and the first one waits for an instant that is near; from the first success on it is collected as any other.
func TestProbeStandsForAnInstant(t *testing.T) {
	for name, tc := range map[string]struct {
		interval, after time.Duration
		fails           int64
		want            []string
	}{
		"on the instant":    {time.Minute, 0, 0, []string{"probe 0s:0s", "1m0s:1m0s"}},
		"4.9 s after it":    {time.Minute, 4900 * time.Millisecond, 0, []string{"probe 4.9s:0s", "1m0s:1m0s"}},
		"5 s after it":      {time.Minute, 5 * time.Second, 0, []string{"probe 5s:0s", "1m0s:1m0s"}},
		"5.001 s after it":  {time.Minute, 5001 * time.Millisecond, 0, []string{"probe 5.001s:nothing", "1m0s:1m0s"}},
		"5.1 s after it":    {time.Minute, 5100 * time.Millisecond, 0, []string{"probe 5.1s:nothing", "1m0s:1m0s"}},
		"58.9 s after it":   {time.Minute, 58900 * time.Millisecond, 0, []string{"probe 58.9s:nothing", "1m0s:1m0s"}},
		"just before one":   {time.Minute, 59 * time.Second, 0, []string{"probe 1m0s:1m0s", "2m0s:2m0s"}},
		"a short interval":  {2 * time.Second, 900 * time.Millisecond, 0, []string{"probe 900ms:0s", "2s:2s"}},
		"a second":          {time.Second, 300 * time.Millisecond, 0, []string{"probe 1s:1s", "2s:2s"}},
		"an interval of 5s": {5 * time.Second, 3999 * time.Millisecond, 0, []string{"probe 3.999s:0s", "5s:5s"}},
		"it fails once":     {time.Minute, time.Second, 1, []string{"probe 1s:0s", "probe 6s:nothing", "1m0s:1m0s"}},
		"it fails at once and is kept": {
			time.Minute, 0, 1, []string{"probe 0s:0s", "probe 5s:0s", "1m0s:1m0s"},
		},
		"it fails until behind the next instant": {
			20 * time.Second, 3 * time.Second, 4,
			[]string{"probe 3s:0s", "probe 8s:nothing", "probe 13s:nothing", "probe 18s:nothing", "probe 20s:20s", "40s:40s"},
		},
		"it fails at the next instant, too": {
			20 * time.Second, 13 * time.Second, 3,
			[]string{"probe 13s:nothing", "probe 18s:nothing", "probe 20s:20s", "probe 25s:20s", "40s:40s"},
		},
		"an interval under 5 s has no retries": {
			2 * time.Second, 900 * time.Millisecond, 2, []string{"probe 900ms:0s", "probe 2s:2s", "probe 4s:4s", "6s:6s"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fleet{collect: failing(tc.fails)}
				s, stop := run(t, f, schedule.Config{})
				instant := past("a", tc.interval, tc.after)
				s.Apply(upserts(with(newAssignment("a", tc.interval), target)))
				for len(f.only(t, "a").log()) < len(tc.want) {
					time.Sleep(100 * time.Millisecond)
				}
				synctest.Wait()
				if got := shown(f.only(t, "a"), instant)[:len(tc.want)]; !slices.Equal(got, tc.want) {
					t.Errorf("%v, want %v", got, tc.want)
				}
				if status := find(t, s, "a"); status.Missed != 0 {
					t.Errorf("%d missed", status.Missed)
				}
				stop()
			})
		})
	}
}

// One that fails for long is tried every 5 s and at each instant of its grid, not
// more often, and missed nothing.
func TestProbesAreAtABoundedRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{collect: failing(1 << 40)}
		s, stop := run(t, f, schedule.Config{})
		instant := past("a", time.Minute, 3*time.Second)
		s.Apply(upserts(with(newAssignment("a", time.Minute), target)))
		time.Sleep(time.Until(instant.Add(10*time.Minute + 500*time.Millisecond)))
		synctest.Wait()
		calls := f.only(t, "a").log()
		for i, c := range calls[1:] {
			if gap := c.began.Sub(calls[i].began); !c.probe || gap > 5*time.Second {
				t.Errorf("%v after the one before", gap)
			}
		}
		// 12 in a minute, by retries, and one instant in each.
		if n := len(calls); n < 120 || n > 131 {
			t.Errorf("%d probes in ten minutes", n)
		}
		if status := find(t, s, "a"); status.Missed != 0 || status.Failures != int64(len(calls)) {
			t.Errorf("%+v", status)
		}
		stop()
	})
}

// A collector that gets very many at once does not start their retries faster
// than first collections.
func TestRetriesKeepTheRateOfStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const producers, perSecond = 100, 10
		f := &fleet{collect: failing(1 << 40)}
		s, stop := run(t, f, schedule.Config{Concurrency: 1, StartRate: perSecond})
		var change schedule.Change
		for i := range producers {
			change.Upserts = append(change.Upserts, with(newAssignment(assignment.ProducerID(fmt.Sprintf("p%03d", i)), time.Hour), target))
		}
		s.Apply(change)
		time.Sleep(time.Minute)
		synctest.Wait()
		n := 0
		for _, a := range change.Upserts {
			n += len(f.only(t, a.ProducerID).log())
		}
		if most := 60*perSecond + producers/10; n > most || n < 50*perSecond {
			t.Errorf("%d probes in a minute, want about %d", n, 60*perSecond)
		}
		stop()
	})
}

// Only who comes as a target joins: a collection that goes on is not touched by
// any change of its part, or of its lease.
func TestRolesTouchNoCollection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{collect: take(20 * time.Second)}
		s, stop := run(t, f, schedule.Config{})
		a := newAssignment("a", time.Minute)
		began := time.Now()
		s.Apply(upserts(with(a, owner)))
		time.Sleep(time.Until(time.UnixMilli(schedule.GridOf("a", time.Minute).Next(time.Now().Add(time.Minute).UnixMilli()))))
		for _, role := range []func(*assignment.Assignment){source, owner, target, owner, lasting, source, owner, target} {
			time.Sleep(2 * time.Second) // while it runs
			s.Apply(upserts(with(a, role)))
		}
		time.Sleep(20 * time.Second)
		for _, role := range []func(*assignment.Assignment){source, target} { // while it does not
			s.Apply(upserts(with(a, role)))
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		p := f.only(t, "a")
		checkGrid(t, p, time.Minute, began)
		calls := p.log()
		for _, c := range calls[:len(calls)-1] { // the last one may be running
			if c.probe || c.ended.Sub(c.began) != 20*time.Second {
				t.Errorf("%+v", c)
			}
		}
		if p.updated() != 0 {
			t.Errorf("%d updates", p.updated())
		}
		stop()
	})
}

// A target that becomes the owner before it ever answered is an owner as others
// are: nobody else tells that the producer is down.
func TestOwnerIsNoProbe(t *testing.T) {
	for name, roles := range map[string][]func(*assignment.Assignment){
		"as owner":                      {owner},
		"as owner, and as target again": {owner, target},
		"as owner, with other work":     {func(a *assignment.Assignment) { owner(a); a.HonorLabels = true }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fleet{collect: failing(1 << 40)}
				s, stop := run(t, f, schedule.Config{})
				a := newAssignment("a", time.Minute)
				instant := past("a", time.Minute, 10*time.Second)
				s.Apply(upserts(with(a, target)))
				time.Sleep(7 * time.Second)
				for _, role := range roles {
					s.Apply(upserts(with(a, role)))
				}
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				want := []string{"probe 10s:nothing", "probe 15s:nothing", "1m0s:1m0s", "2m0s:2m0s"}
				if got := shown(f.only(t, "a"), instant); !slices.Equal(got, want) {
					t.Errorf("%v, want %v", got, want)
				}
				if ids, _ := s.Collected(0, 10); len(ids) != 0 {
					t.Errorf("collected: %v", ids)
				}
				stop()
			})
		})
	}
}

// A collection on demand of one that joins is a probe, too; no instant is stored
// twice, whatever comes between, and none is left out.
func TestNoInstantTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, w := &fleet{collect: failing(1)}, &wall{}
		s, stop := run(t, f, schedule.Config{Now: w.now})
		instant := past("a", time.Minute, time.Second)
		s.Apply(upserts(with(newAssignment("a", time.Minute), target)))
		time.Sleep(time.Second)
		if _, err := s.CollectNow(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		w.step(-4 * time.Second) // the instant comes again
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		want := []string{"probe 1s:0s", "probe 2s:0s", "4s:1ms", "1m4s:1m0s"}
		if got := shown(f.only(t, "a"), instant); !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		stop()
	})
}

// What changes while it joins is probed anew, also on another grid.
func TestChangedWorkIsProbedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{collect: func(ctx context.Context, p *pull, _ time.Time) schedule.Result {
			if strings.HasSuffix(p.endpoint(), "/slow") {
				return pass(ctx, time.Hour)
			}
			return schedule.Result{}
		}}
		s, stop := run(t, f, schedule.Config{})
		a := with(newAssignment("a", time.Hour), func(a *assignment.Assignment) { target(a); a.Endpoint += "/slow" })
		instant := past("a", time.Hour, 10*time.Minute)
		s.Apply(upserts(a))
		time.Sleep(time.Second)
		s.Apply(upserts(with(a, func(a *assignment.Assignment) { a.Endpoint = "http://fast" })))
		time.Sleep(time.Hour)
		synctest.Wait()
		want := []string{"probe 10m0s:nothing", "probe 10m6s:nothing", "1h0m0s:1h0m0s"}
		if got := shown(f.only(t, "a"), instant); !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		stop()
	})
}

// TestCollectedTargets: who joined and succeeded, and who was collected already;
// until the role changes or the producer goes.
func TestCollectedTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &script{reasons: map[assignment.ProducerID]schedule.Reason{"dead": schedule.ReasonTimeout, "down": schedule.ReasonTimeout}}
		var told atomic.Int64
		s, stop := run(t, &fleet{collect: c.collect}, schedule.Config{TargetCollected: func() { told.Add(1) }})
		check := func(what string, tellings int64, want ...assignment.ProducerID) {
			t.Helper()
			synctest.Wait()
			if got, _ := s.Collected(0, 100); !slices.Equal(got, want) || told.Swap(0) != tellings {
				t.Errorf("%s: %v, want %v told %d times", what, got, want, tellings)
			}
		}
		as := func(id assignment.ProducerID, role func(*assignment.Assignment)) *assignment.Assignment {
			return with(newAssignment(id, time.Minute), role)
		}
		s.Apply(upserts(as("own", owner), as("down", owner), as("from", source)))
		check("nobody is a target", 0)
		s.Apply(upserts(as("new", target), as("dead", target)))
		check("one has joined", 1, "new")
		s.Apply(upserts(as("own", target), as("down", target)))
		check("one was collected already", 1, "new", "own")
		time.Sleep(10 * time.Minute)
		check("nothing is told twice", 0, "new", "own")
		c.set("own", schedule.ReasonTimeout)
		c.set("down", schedule.ReasonNone)
		time.Sleep(2 * time.Minute)
		check("one is up again, one fails meanwhile", 1, "new", "own", "down")
		s.Apply(upserts(as("new", owner)))
		check("one is an owner", 0, "own", "down")
		s.Apply(removal("own", false))
		check("one is gone", 0, "down")
		s.Apply(upserts(as("new", target), as("own", target)))
		check("one comes back as a target, one has to join again", 1, "down", "new")
		c.set("own", schedule.ReasonNone)
		time.Sleep(time.Minute)
		check("it has", 1, "down", "new", "own")
		stop()
	})
}

// A reader that goes on from where it was meets everybody once, whoever leaves.
func TestCollectedTargetsInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, stop := run(t, &fleet{}, schedule.Config{})
		var change, owners schedule.Change
		for i := range 1000 {
			a := newAssignment(assignment.ProducerID(fmt.Sprintf("p%04d", i)), time.Hour)
			change.Upserts = append(change.Upserts, with(a, target))
			if i%10 != 0 {
				owners.Upserts = append(owners.Upserts, with(a, owner))
			}
		}
		s.Apply(change)
		time.Sleep(time.Second)
		synctest.Wait()
		seen := map[assignment.ProducerID]int{}
		var at uint64
		for n := 0; ; n++ {
			var ids []assignment.ProducerID
			if ids, at = s.Collected(at, 30); len(ids) == 0 {
				break
			}
			for _, id := range ids {
				seen[id]++
			}
			if n == 10 {
				s.Apply(owners)
			}
		}
		for i := range 1000 {
			id := assignment.ProducerID(fmt.Sprintf("p%04d", i))
			if n := seen[id]; n > 1 || n == 0 && i%10 == 0 {
				t.Errorf("%s was met %d times", id, n)
			}
		}
		if ids, _ := s.Collected(0, 1000); len(ids) != 100 {
			t.Errorf("%d in the end", len(ids))
		}
		if ids, next := s.Collected(at, 1000); len(ids) != 0 || next != at {
			t.Errorf("%v behind the last one", ids)
		}
		stop()
	})
}

// A removal before the first success ends it as every other.
func TestTargetThatNeverAnsweredIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{collect: take(time.Hour)}
		s, stop := run(t, f, schedule.Config{})
		s.Apply(upserts(with(newAssignment("a", time.Hour), target)))
		time.Sleep(time.Second)
		s.Apply(removal("a", false))
		synctest.Wait()
		if ends := f.only(t, "a").ended(); len(ends) != 1 || ends[0].stale {
			t.Errorf("ended %v", ends)
		}
		stop()
	})
}

// TestCollectedElsewhere: a success at an endpoint that has changed since is none.
func TestCollectedElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{collect: func(_ context.Context, p *pull, _ time.Time) schedule.Result {
			p.fleet.mu.Lock()
			at := p.work.Endpoint
			p.fleet.mu.Unlock()
			if at == "http://moved/" {
				return schedule.Result{Reason: schedule.ReasonUnreachable}
			}
			return schedule.Result{Samples: 1}
		}}
		s, stop := run(t, f, schedule.Config{})
		a := with(newAssignment("a", 10*time.Second), target)
		s.Apply(upserts(a))
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if ids, _ := s.Collected(0, 10); len(ids) != 1 {
			t.Fatalf("collected %v", ids)
		}
		moved := *a
		moved.Endpoint, moved.Version = "http://moved/", 7
		s.Apply(upserts(&moved))
		if ids, _ := s.Collected(0, 10); len(ids) != 0 {
			t.Errorf("told of %v at once after the change", ids)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if ids, _ := s.Collected(0, 10); len(ids) != 0 {
			t.Errorf("told of %v, which never answered there", ids)
		}
		if told := s.Testify(schedule.Question{Limit: 10}); len(told) != 1 || told[0].Collected || told[0].Failures == 0 {
			t.Errorf("%+v", told)
		}
		stop()
	})
}
