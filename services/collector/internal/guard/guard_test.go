package guard_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/guard"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

const beat = 5 * time.Second

func member(id assignment.ProducerID) *assignment.Assignment {
	return &assignment.Assignment{ProducerID: id, Version: 1, Role: assignment.RoleOwner, Interval: time.Minute}
}

func silent(assignment.ProducerID) guard.Evidence { return guard.Evidence{} }

// rig is a guard on a clock, with what the collections say.
type rig struct {
	*guard.Guard
	t        *testing.T
	now      time.Time
	epoch    assignment.Epoch
	survey   guard.Survey
	released map[assignment.ProducerID]guard.Reason
}

// newRig is a guard that holds one producer, h, of a healthy fleet of 10.
func newRig(t *testing.T, cause assignment.Cause) *rig {
	t.Helper()
	r := &rig{
		Guard: guard.New("e", nil), t: t, now: time.Unix(1e9, 0), epoch: "e",
		survey:   guard.Survey{Applied: 10, Run: 10, Answering: 10, MedianInterval: time.Minute, Failing: map[assignment.ProducerID]guard.Evidence{}},
		released: map[assignment.ProducerID]guard.Reason{},
	}
	r.tick()
	r.lose(cause, "h")
	return r
}

// lose takes members off the set.
func (r *rig) lose(cause assignment.Cause, ids ...assignment.ProducerID) {
	c := &guard.Change{Had: r.epoch, Epoch: r.epoch}
	for _, id := range ids {
		c.Gone = append(c.Gone, guard.Departure{Assignment: member(id), Cause: cause})
	}
	v := r.Seal(c, beat, r.witness, r.now)
	r.note(&v)
}

func (r *rig) witness(id assignment.ProducerID) guard.Evidence { return r.survey.Failing[id] }

func (r *rig) note(v *guard.Verdict) {
	for _, e := range v.Ended {
		r.released[e.ProducerID] = e.Reason
	}
}

func (r *rig) tick() {
	v := r.Tick(&r.survey, r.now)
	r.note(&v)
}

// pass lets time go by, with ticks and, unless the link is down, heartbeats.
func (r *rig) pass(d time.Duration, linked bool) {
	for until := r.now.Add(d); r.now.Before(until); {
		r.now = r.now.Add(10 * time.Second)
		if linked {
			r.Agree(r.now, beat)
		}
		r.tick()
	}
}

// fail has the collections of a producer fail from now on.
func (r *rig) fail(id assignment.ProducerID, interval time.Duration, failures int) {
	r.survey.Failing[id] = guard.Evidence{Interval: interval, FailingSince: r.now, Failures: failures}
}

func (r *rig) want(id assignment.ProducerID, reason guard.Reason) {
	r.t.Helper()
	if got := r.released[id]; got != reason {
		r.t.Errorf("%s: released as %q, want %q", id, got, reason)
	}
	if r.Holds(id) == (reason != "") {
		r.t.Errorf("%s: held: %v, released as %q", id, r.Holds(id), reason)
	}
}

func TestNamesAreBelieved(t *testing.T) {
	for _, c := range []struct {
		cause    assignment.Cause
		believed bool
		stale    bool
	}{
		{assignment.CauseDeregistered, true, true},
		{assignment.CauseHandedOff, true, false},
		{assignment.CauseExpired, false, false},
		{assignment.CauseUnspecified, false, false},
		{99, false, false}, // of a newer registry
	} {
		gone := []guard.Departure{{Assignment: member("p"), Cause: c.cause}}
		v := guard.New("e", nil).Seal(&guard.Change{Had: "e", Epoch: "e", Gone: gone}, beat, silent, time.Now())
		if believed := len(v.Released) == 1; believed != c.believed || believed == (len(v.Held) == 1) {
			t.Errorf("cause %d: %+v", c.cause, v)
		}
		if c.believed && v.Released[0].Stale != c.stale {
			t.Errorf("cause %d: stale %v", c.cause, v.Released[0].Stale)
		}
		g := guard.New("e", []guard.Held{{Assignment: member("p"), Epoch: "e", Revision: 1}})
		v = g.Explain([]assignment.Removal{{ProducerID: "p", Cause: c.cause, Revision: 2}, {ProducerID: "other", Cause: c.cause, Revision: 2}}, silent, time.Now())
		if (len(v.Released) == 1) != c.believed || g.Holds("p") == c.believed {
			t.Errorf("explained with cause %d: %+v", c.cause, v)
		}
	}
}

// TestNamesFromBeforeAreNotBelieved: in one epoch, a name that is not newer than the
// set which last had the producer is from before that, out of a backup.
func TestNamesFromBeforeAreNotBelieved(t *testing.T) {
	for name, c := range map[string]struct {
		epoch    assignment.Epoch // of the set that lacks it
		revision assignment.Revision
		believed bool
	}{
		"before":                 {"e", 6, false},
		"as of that set":         {"e", 7, false},
		"after":                  {"e", 8, true},
		"in another epoch":       {"f", 8, true},
		"early in another epoch": {"f", 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			removal := assignment.Removal{ProducerID: "p", Cause: assignment.CauseDeregistered, Revision: c.revision}
			gone := []guard.Departure{{Assignment: member("p")}}
			g := guard.New("e", nil)
			v := g.Seal(&guard.Change{Had: "e", HadRevision: 7, Epoch: c.epoch, Gone: gone}, beat, silent, time.Now())
			if len(v.Held) != 1 || v.Held[0].Revision != 7 {
				t.Fatalf("not held: %+v", v)
			}
			// A process that has resumed what another held knows it, too.
			for _, g := range []*guard.Guard{g, guard.New(c.epoch, v.Held)} {
				if v := g.Explain([]assignment.Removal{removal}, silent, time.Now()); (len(v.Released) == 1) != c.believed {
					t.Errorf("explained: %+v", v)
				}
			}
			g = guard.New(c.epoch, v.Held)
			named := &guard.Change{Had: c.epoch, HadRevision: 9, Epoch: c.epoch, Named: []assignment.Removal{removal}}
			if v := g.Seal(named, beat, silent, time.Now()); (len(v.Released) == 1) != c.believed {
				t.Errorf("named: %+v", v)
			}
		})
	}
}

func TestTheDeadGo(t *testing.T) {
	for name, c := range map[string]struct {
		interval, median time.Duration
		failures         int
		after            time.Duration // released then and not before; 0: never
	}{
		"ten minutes":          {time.Minute, time.Minute, 3, 10 * time.Minute},
		"failed twice":         {time.Minute, time.Minute, 2, 0},
		"slow producer":        {10 * time.Minute, time.Minute, 3, 30 * time.Minute},
		"slow fleet":           {time.Minute, time.Hour, 3, 3 * time.Hour},
		"nothing is known":     {time.Minute, time.Minute, 0, 0},
		"all at ten seconds":   {10 * time.Second, 10 * time.Second, 60, 10 * time.Minute},
		"slower than a day is": {24 * time.Hour, time.Minute, 3, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, assignment.CauseUnspecified)
			r.survey.MedianInterval = c.median
			r.pass(time.Hour, false)
			r.fail("h", c.interval, c.failures)
			if c.after == 0 {
				r.pass(6*time.Hour, false)
				r.want("h", "")
				return
			}
			r.pass(c.after-10*time.Second, false)
			r.want("h", "")
			r.pass(10*time.Second, false)
			r.want("h", guard.ReasonFailing)
		})
	}
}

// TestCollectorBlipKeepsHeld: a fault of this collector's own, for as long as it
// likes and again and again, lets go of nobody.
func TestCollectorBlipKeepsHeld(t *testing.T) {
	r := newRig(t, assignment.CauseUnspecified)
	for range 5 {
		r.fail("h", time.Minute, 100)
		r.pass(time.Minute, false) // the others have not been tried yet
		r.survey.Answering = 4
		r.pass(3*time.Hour, false)
		r.survey.Answering = 5 // they answer again, and h has not been tried yet
		r.pass(9*time.Minute, false)
		delete(r.survey.Failing, "h")
		r.pass(time.Hour, false)
		r.want("h", "")
	}
}

// TestStandstillIsNoEvidence: a process that stood still has not collected
// meanwhile, so what failed before it has not failed for all that time.
func TestStandstillIsNoEvidence(t *testing.T) {
	r := newRig(t, assignment.CauseUnspecified)
	r.pass(time.Hour, false)
	r.fail("h", 10*time.Second, 3)
	r.now = r.now.Add(8 * time.Hour)
	r.tick()
	r.want("h", "")
	r.pass(10*time.Minute, false)
	r.want("h", guard.ReasonFailing)
}

func TestAStartIsNoEvidence(t *testing.T) {
	r := newRig(t, assignment.CauseUnspecified)
	r.Guard = guard.New("e", slices.Collect(r.All))
	r.fail("h", time.Minute, 3)
	r.survey.Failing["h"] = guard.Evidence{Interval: time.Minute, FailingSince: r.now.Add(-time.Hour), Failures: 3}
	r.pass(9*time.Minute, false)
	r.want("h", "")
	r.pass(2*time.Minute, false)
	r.want("h", guard.ReasonFailing)
}

// TestExpiryNeedsTwoWitnesses: EXPIRED passes at once if the collections say so
// too; else the producer is held, and goes when they do.
func TestExpiryNeedsTwoWitnesses(t *testing.T) {
	r := newRig(t, assignment.CauseExpired)
	r.want("h", "")
	for h := range r.After("") {
		if h.Cause != assignment.CauseExpired {
			t.Errorf("shown with cause %d", h.Cause)
		}
	}
	r.pass(30*time.Minute, false)
	r.fail("h", time.Minute, 3)
	r.fail("x", time.Minute, 3)
	r.fail("y", time.Minute, 3)
	r.lose(assignment.CauseUnspecified, "y")
	r.pass(11*time.Minute, false)
	r.want("h", guard.ReasonFailing)
	v := r.Seal(&guard.Change{Had: "e", Epoch: "e", Gone: []guard.Departure{{Assignment: member("x"), Cause: assignment.CauseExpired}}}, beat, r.witness, r.now)
	if len(v.Held) > 0 || len(v.Released) != 1 || !v.Released[0].Stale {
		t.Errorf("expired and dead: %+v", v)
	}
}

func TestConfirmedForADay(t *testing.T) {
	r := newRig(t, assignment.CauseUnspecified)
	r.pass(20*time.Hour, true)
	r.NewStream()
	r.pass(72*time.Hour, false) // a break confirms nothing
	r.pass(4*time.Hour-time.Minute, true)
	r.want("h", "")
	r.pass(2*time.Minute, true)
	r.want("h", guard.ReasonConfirmed)
}

// TestAStalledStreamConfirmsLittle: two heartbeats far apart confirm three
// intervals, not all the time between them.
func TestAStalledStreamConfirmsLittle(t *testing.T) {
	r := newRig(t, assignment.CauseUnspecified)
	for range 100 {
		r.now = r.now.Add(time.Hour)
		r.Agree(r.now, beat)
	}
	for h := range r.After("") {
		if h.Confirmed != 100*3*beat {
			t.Errorf("confirmed for %v", h.Confirmed)
		}
	}
}

// TestReconnectingConfirmsNothing: a stream that breaks off after its first seal
// has told the set at one moment only.
func TestReconnectingConfirmsNothing(t *testing.T) {
	r := newRig(t, assignment.CauseUnspecified)
	for range 100 {
		r.now = r.now.Add(beat)
		r.NewStream()
		r.lose(assignment.CauseUnspecified)
	}
	for h := range r.After("") {
		if h.Confirmed != 0 {
			t.Errorf("confirmed for %v", h.Confirmed)
		}
	}
}

// TestNeverAgainstAnAnswerAfterAnEpoch: a registry that never knew a producer
// confirms nothing but that.
func TestNeverAgainstAnAnswerAfterAnEpoch(t *testing.T) {
	r := newRig(t, assignment.CauseUnspecified)
	r.lose(assignment.CauseUnspecified, "dead")
	r.epoch = "f"
	r.lose(assignment.CauseUnspecified)
	r.survey.Answering = 0 // so the dead are not seen to be dead
	r.pass(30*time.Hour, true)
	r.fail("dead", time.Minute, 5)
	r.pass(23*time.Hour, true)
	r.want("dead", "")
	r.pass(2*time.Hour, true)
	r.want("dead", guard.ReasonConfirmed)
	r.pass(30*24*time.Hour, true)
	r.want("h", "")
	r.lose(assignment.CauseUnspecified, "later") // the new registry knew this one
	r.pass(25*time.Hour, true)
	r.want("later", guard.ReasonConfirmed)
	r.want("h", "")
}

// TestPace: what goes by confirmation goes at 1 % a minute, or one.
func TestPace(t *testing.T) {
	for _, applied := range []int{1, 50, 100, 150, 199, 1000, 5000} {
		r := newRig(t, assignment.CauseDeregistered)
		r.survey.Applied = applied
		var ids []assignment.ProducerID
		for i := range applied * 6 / 10 {
			ids = append(ids, assignment.ProducerID(fmt.Sprintf("p-%05d", i)))
		}
		r.lose(assignment.CauseUnspecified, ids...)
		r.pass(24*time.Hour-10*time.Second, true)
		if n := len(r.released); n > 0 {
			t.Fatalf("%d of %d went within a day", n, applied)
		}
		minutes, gone := 0, 0
		for ; r.Len() > 0 && minutes < 200; minutes++ {
			r.pass(time.Minute, true)
			n := len(r.released) - gone
			if most := max(1, (r.survey.Applied+99)/100); n > most {
				t.Errorf("%d of %d went in a minute", n, r.survey.Applied)
			}
			gone += n
			r.survey.Applied -= n
		}
		if minutes > 100 {
			t.Errorf("%d of %d took %d minutes", len(ids), applied, minutes)
		}
	}
}

func TestOperator(t *testing.T) {
	r := newRig(t, assignment.CauseUnspecified)
	v := r.Release([]assignment.ProducerID{"h", "h", "other"})
	if len(v.Released) != 1 || !v.Released[0].Stale || v.Ended[0].Reason != guard.ReasonOperator || r.Len() != 0 {
		t.Errorf("%+v", v)
	}
}

// TestProgress: the confirmation goes on where it was kept, and what needs no
// more of it is not kept again.
func TestProgress(t *testing.T) {
	r := newRig(t, assignment.CauseUnspecified)
	r.pass(23*time.Hour, true)
	kept := r.Progress()
	if len(kept) != 1 || kept[0].Confirmed != 23*time.Hour || len(r.Progress()) != 0 {
		t.Fatalf("kept %+v", kept)
	}
	r.Guard = guard.New("other", kept)
	r.pass(2*time.Hour, true)
	if kept = r.Progress(); len(kept) != 1 || kept[0].Confirmed < 24*time.Hour {
		t.Fatalf("kept %+v", kept)
	}
	r.pass(time.Hour, true)
	if kept = r.Progress(); len(kept) != 0 {
		t.Errorf("kept again: %+v", kept)
	}
}

func TestOrder(t *testing.T) {
	r := newRig(t, assignment.CauseUnspecified)
	r.lose(assignment.CauseUnspecified, "c", "a", "z")
	ids := func(after assignment.ProducerID) string {
		s := ""
		for h := range r.After(after) {
			s += string(h.Assignment.ProducerID)
		}
		return s
	}
	if all, some := ids(""), ids("c"); all != "achz" || some != "hz" {
		t.Errorf("%s, behind c %s", all, some)
	}
	r.Release([]assignment.ProducerID{"c", "h"})
	if all, some := ids(""), ids("b"); all != "az" || some != "z" {
		t.Errorf("after two went: %s, behind b %s", all, some)
	}
	var set assignment.Set[*assignment.Assignment]
	set.Put(member("a"))
	set.Put(member("z"))
	if set.Digest() != r.Digest() {
		t.Error("the digest is not that of what is held")
	}
}
