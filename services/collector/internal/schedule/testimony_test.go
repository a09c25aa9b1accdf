package schedule_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// results says what each producer's collections come to.
type results struct {
	mu sync.Mutex
	of map[assignment.ProducerID]schedule.Result
}

func (r *results) set(id assignment.ProducerID, result schedule.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.of[id] = result
}

func (r *results) collect(_ context.Context, p *pull, _ time.Time) schedule.Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.of[p.id]
}

func testimony(t *testing.T, s *schedule.Schedule, id assignment.ProducerID) schedule.Testimony {
	t.Helper()
	list := s.Testify(schedule.Question{Of: []assignment.ProducerID{id}, Limit: 10})
	if len(list) != 1 || list[0].ProducerID != id {
		t.Fatalf("the testimony on %s is %+v", id, list)
	}
	return list[0]
}

func TestTestimony(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := &results{of: map[assignment.ProducerID]schedule.Result{}}, &wall{}
		s, stop := run(t, &fleet{collect: r.collect}, schedule.Config{Now: w.now})
		check := func(what string, want schedule.Testimony) {
			t.Helper()
			synctest.Wait()
			want.ProducerID = "a"
			if got := testimony(t, s, "a"); got != want {
				t.Errorf("%s: %+v, want %+v", what, got, want)
			}
		}
		tick := func(result schedule.Result) time.Time {
			r.set("a", result)
			time.Sleep(time.Until(time.UnixMilli(schedule.GridOf("a", 10*time.Second).Next(time.Now().UnixMilli()))))
			synctest.Wait()
			return time.Unix(0, time.Now().UnixNano())
		}
		r.set("a", schedule.Result{Reason: schedule.ReasonUnreachable})
		s.Apply(upserts(newAssignment("a", 10*time.Second)))
		check("the first one fails", schedule.Testimony{
			FailingSince: time.Unix(0, time.Now().UnixNano()), Failures: 1, Reason: schedule.ReasonUnreachable,
		})
		tick(schedule.Result{Samples: 250, Identity: schedule.IdentityOwn})
		check("a success", schedule.Testimony{Rate: 25, Collected: true, Identified: true})
		since := tick(schedule.Result{Reason: schedule.ReasonTimeout, Samples: 7})
		tick(schedule.Result{Reason: schedule.ReasonStatus, Identity: schedule.IdentityOwn})
		check("two failures", schedule.Testimony{
			FailingSince: since, Failures: 2, Reason: schedule.ReasonStatus, Rate: 25, Collected: true, Identified: true,
		})
		w.step(time.Hour)
		time.Sleep(2 * time.Second)
		check("after a step of the clock", schedule.Testimony{
			FailingSince: since.Add(time.Hour), Failures: 2, Reason: schedule.ReasonStatus, Rate: 25, Collected: true, Identified: true,
		})
		w.step(-time.Hour)
		time.Sleep(2 * time.Second)
		for _, own := range []schedule.Reason{schedule.ReasonBudget, schedule.ReasonStore, schedule.ReasonOverlap} {
			tick(schedule.Result{Reason: own})
			check("a failure of this collector's own", schedule.Testimony{Rate: 25, Collected: true, Identified: true})
			tick(schedule.Result{Reason: schedule.ReasonTimeout})
		}
		since = tick(schedule.Result{Reason: schedule.ReasonWrongProducer, Identity: schedule.IdentityOther}).Add(-10 * time.Second)
		check("another producer", schedule.Testimony{
			FailingSince: since, Failures: 2, Reason: schedule.ReasonWrongProducer, Rate: 25, Collected: true,
		})
		tick(schedule.Result{Samples: 0, Identity: schedule.IdentityNameless})
		check("a success without a sample", schedule.Testimony{Collected: true})
		stop()
	})
}

func TestTestifyAnswersTheQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &script{reasons: map[assignment.ProducerID]schedule.Reason{}}
		var change schedule.Change
		for i := range 2500 {
			a := newAssignment(assignment.ProducerID(fmt.Sprintf("p%04d", i)), time.Hour)
			switch {
			case i == 7:
				a.Timeout = 0 // not run
			case i%5 == 0:
				c.set(a.ProducerID, schedule.ReasonUnreachable)
			case i%5 == 1:
				c.set(a.ProducerID, schedule.ReasonStore)
			}
			change.Upserts = append(change.Upserts, a)
		}
		s, stop := run(t, &fleet{collect: c.collect}, schedule.Config{})
		s.Apply(change)
		time.Sleep(time.Second)
		synctest.Wait()
		for name, tc := range map[string]struct {
			question    schedule.Question
			count       int
			first, last assignment.ProducerID
		}{
			"everyone":               {schedule.Question{Limit: 10_000}, 2500, "p0000", "p2499"},
			"up to the limit":        {schedule.Question{Limit: 2000}, 2000, "p0000", "p1999"},
			"one":                    {schedule.Question{Limit: 1}, 1, "p0000", "p0000"},
			"behind":                 {schedule.Question{After: "p1234", Limit: 2}, 2, "p1235", "p1236"},
			"behind one that is not": {schedule.Question{After: "p1234x", Limit: 1}, 1, "p1235", "p1235"},
			"behind the last":        {schedule.Question{After: "p2499", Limit: 1}, 0, "", ""},
			"failing":                {schedule.Question{Limit: 10_000, Failing: true}, 500, "p0000", "p2495"},
			"failing, up to a limit": {schedule.Question{After: "p1000", Limit: 300, Failing: true}, 299, "p1005", "p2495"},
			"some": {
				schedule.Question{Of: []assignment.ProducerID{"p0007", "p0003", "x", "p0003", "a"}, Limit: 10}, 2, "p0003", "p0007",
			},
			"some, behind":   {schedule.Question{Of: []assignment.ProducerID{"p0007", "p0003", "p0005"}, After: "p0003", Limit: 1}, 1, "p0005", "p0005"},
			"some, failing":  {schedule.Question{Of: []assignment.ProducerID{"p0007", "p0003", "p0005"}, Failing: true, Limit: 9}, 1, "p0005", "p0005"},
			"nobody applied": {schedule.Question{Of: []assignment.ProducerID{"x"}, Limit: 10}, 0, "", ""},
		} {
			got := s.Testify(tc.question)
			if len(got) != tc.count {
				t.Errorf("%s: %d, want %d", name, len(got), tc.count)
				continue
			}
			if tc.count > 0 && (got[0].ProducerID != tc.first || got[tc.count-1].ProducerID != tc.last) {
				t.Errorf("%s: from %s to %s, want %s to %s", name, got[0].ProducerID, got[tc.count-1].ProducerID, tc.first, tc.last)
			}
			if !slices.IsSortedFunc(got, func(a, b schedule.Testimony) int {
				return slices.Compare([]byte(a.ProducerID), []byte(b.ProducerID))
			}) {
				t.Errorf("%s: not in order", name)
			}
		}
		if got := testimony(t, s, "p0007"); got != (schedule.Testimony{ProducerID: "p0007"}) {
			t.Errorf("one that is not run: %+v", got)
		}
		stop()
	})
}
