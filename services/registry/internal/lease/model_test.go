package lease_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/lease"
	"pgregory.net/rapid"
)

const (
	people      = 30
	modelLease  = 2 * time.Minute // of everything, the mass too
	modelExpiry = 5 * time.Minute
)

// world is what must be true of a judge and its clock, kept in the plainest way.
type world struct {
	*rapid.T
	clock *lease.Clock
	judge *lease.Judge
	at    lease.Instant

	healthy, was bool
	sure         bool // what is judged is carried out
	credited     time.Duration
	known        map[assignment.ProducerID]*person
	roll         map[assignment.ProducerID]bool
	silent       [3]bool
	control      lease.Mode
	revision     assignment.Revision

	moved   map[assignment.ProducerID]time.Duration
	strikes map[assignment.ProducerID]time.Duration // of those not seen since
	gone    []time.Duration                         // when one went under a hold
	held    bool
	since   time.Duration // of the hold
}

// person is a suspect.
type person struct {
	failing  bool
	revision assignment.Revision
	seen     assignment.Revision // by this judge
	start    time.Duration       // when it saw it
	renewed  time.Duration       // when it last did; -1: not since it is a suspect
	failed   time.Duration       // since when it was heard to; -1: not yet
}

func (w *world) lead() {
	w.clock, w.credited, w.was = lease.NewClock(0), 0, false
	w.judge = lease.NewJudge(modelLease, rand.New(rand.NewPCG(rapid.Uint64().Draw(w.T, "source"), 0)))
	w.moved, w.strikes = map[assignment.ProducerID]time.Duration{}, map[assignment.ProducerID]time.Duration{}
	w.held, w.gone = false, nil
	for _, p := range w.known {
		p.seen, p.failed = 0, -1
	}
	w.clock.Tick(w.at, w.healthy)
	w.was = w.healthy
}

func (w *world) heard(id assignment.ProducerID) bool { return !w.silent[id[len(id)-1]%3] }

// round is what the judge is told, and what a naive judge would remember of it.
func (w *world) round() *lease.Round {
	r := &lease.Round{Credited: w.clock.Credited(), Fleet: len(w.roll), Control: w.control}
	for id, p := range w.known {
		if p.seen != p.revision {
			if p.seen != 0 {
				delete(w.strikes, id)
			}
			p.seen, p.start = p.revision, w.credited
		}
		if w.heard(id) && p.failing && p.failed < 0 {
			p.failed = w.credited
		}
		r.Suspects = append(r.Suspects, lease.Suspect{
			ID: id, Revision: p.revision, Lease: modelLease, ExpireAfter: modelExpiry, Heard: w.heard(id), Failing: p.failing,
			Renewed: p.renewed >= 0 && w.at.Mono-p.renewed <= modelLease,
		})
	}
	slices.SortFunc(r.Suspects, func(a, b lease.Suspect) int { return slices.Compare([]byte(a.ID), []byte(b.ID)) })
	return r
}

// tick lets time go by and has it judged.
func (w *world) tick(sp span) {
	w.at = sp.after(w.at)
	credited := w.was && sp.healthy && sp.mono <= 15*time.Second && (sp.wall-sp.mono).Abs() <= time.Second && sp.mono > 0
	if credited {
		w.credited += sp.mono
	}
	w.was = sp.healthy
	w.clock.Tick(w.at, sp.healthy)
	if w.clock.Credited() != w.credited {
		w.Fatalf("credited %v, want %v", w.clock.Credited(), w.credited)
	}
	r := w.round()
	v := w.judge.Tick(r)
	w.witnesses(r, &v, credited)
	due, near := w.clocks()
	if v.Due != due {
		w.Fatalf("%d due, want %d", v.Due, due)
	}
	w.masses(&v, credited, near)
	w.amount(&v, credited, due)
	w.carryOut(&v)
}

// clocks are how many are due, and who is within a lease of it.
func (w *world) clocks() (due int, near map[assignment.ProducerID]bool) {
	near = map[assignment.ProducerID]bool{}
	for id, p := range w.known {
		if w.heard(id) && !p.failing {
			continue
		}
		if w.credited-p.start >= modelExpiry-modelLease {
			near[id] = true
		}
		if w.heard(id) && w.credited-p.start >= modelExpiry {
			due++
		}
	}
	return due, near
}

// witnesses checks each one that is named.
func (w *world) witnesses(r *lease.Round, v *lease.Verdict, credited bool) {
	for _, id := range v.Strike {
		if p := w.known[id]; p == nil || !w.heard(id) || !p.failing || w.credited-p.start < modelExpiry {
			w.Fatalf("%s is struck off at %v: %+v", id, w.credited, p)
		}
	}
	var recovered, unreachable []assignment.ProducerID
	for i := range r.Suspects {
		s := &r.Suspects[i]
		p := w.known[s.ID]
		moved, ever := w.moved[s.ID]
		switch {
		case s.Heard && !s.Failing:
			recovered = append(recovered, s.ID)
			delete(w.strikes, s.ID)
		case s.Heard && s.Renewed && w.credited-p.failed >= modelLease && (!ever || w.credited-moved >= time.Hour) && w.credited-p.start < modelExpiry:
			unreachable = append(unreachable, s.ID)
		}
	}
	if !slices.Equal(v.Recovered, recovered) {
		w.Fatalf("recovered %v, want %v", v.Recovered, recovered)
	}
	if !credited {
		unreachable = nil
	}
	if !slices.Equal(v.Unreachable, unreachable) {
		w.Fatalf("unreachable %v, want %v", v.Unreachable, unreachable)
	}
	w.judge.Moved(v.Unreachable)
	for _, id := range v.Unreachable {
		w.moved[id], w.known[id].failed = w.credited, w.credited
	}
}

// masses checks when a hold begins, and that it does not end early.
func (w *world) masses(v *lease.Verdict, credited bool, near map[assignment.ProducerID]bool) {
	count, size := len(near), len(w.roll)
	for id, at := range w.strikes {
		if w.credited-at >= modelLease {
			continue
		}
		if w.known[id] == nil {
			size++
		}
		if !near[id] {
			count++
		}
	}
	lately := len(near) > 0 && count > 2 && float64(count)/float64(size) > 0.15
	switch {
	case !credited && v.Held != w.held:
		w.Fatalf("a hold began or ended in a round without time: %+v", v)
	case credited && lately && !v.Held:
		w.Fatalf("%d of %d are not held: %+v", count, size, v)
	case credited && v.Held && (len(near) == 0 || !w.held && !lately):
		w.Fatalf("%d of %d are held: %+v", count, size, v)
	}
	if v.Held && !w.held {
		w.since, w.gone = w.credited, nil
	}
	w.held = v.Held
}

// amount checks how many are struck off.
func (w *world) amount(v *lease.Verdict, credited bool, due int) {
	n := len(v.Strike)
	switch {
	case !credited && n+len(v.Unreachable) > 0, w.control == lease.Hold && n > 0:
		w.Fatalf("%+v", v)
	case !credited, w.control == lease.Hold:
	case w.control == lease.Hasten || !v.Held:
		if n != due {
			w.Fatalf("%d struck off, %d due", n, due)
		}
	case n > 0:
		w.gone = append(w.gone, w.credited)
		last := w.gone[max(0, len(w.gone)-2)]
		if n > 1 || w.credited-w.since < modelLease || last != w.credited && w.credited-last < time.Minute {
			w.Fatalf("%d struck off; held since %v, now %v, one went at %v", n, w.since, w.credited, last)
		}
		if p := w.known[v.Strike[0]]; w.credited-p.start < modelExpiry+modelLease {
			w.Fatalf("%s was not due for a lease", v.Strike[0])
		}
	}
}

// carryOut does what the leader would; a renewal may come in between, and the
// store may refuse.
func (w *world) carryOut(v *lease.Verdict) {
	for _, id := range v.Recovered {
		delete(w.known, id)
	}
	for _, id := range v.Strike {
		w.strikes[id] = w.credited
		fate := 2
		if !w.sure {
			fate = rapid.IntRange(0, 9).Draw(w.T, "carried out")
		}
		switch fate {
		case 0:
			w.renew(id)
		case 1:
		default:
			delete(w.known, id)
			delete(w.roll, id)
		}
	}
}

func (w *world) renew(id assignment.ProducerID) {
	if p := w.known[id]; p != nil {
		w.revision++
		p.revision, p.renewed = w.revision, w.at.Mono
	}
}

func (w *world) fail(id assignment.ProducerID) {
	if w.roll[id] && w.known[id] == nil {
		w.revision++
		w.known[id] = &person{failing: true, revision: w.revision, renewed: -1, failed: -1}
	}
}

func (w *world) one() assignment.ProducerID {
	return name(rapid.IntRange(0, people-1).Draw(w.T, "producer"))
}

func (w *world) pass(d time.Duration) {
	for until := w.at.Mono + d; w.at.Mono < until; {
		w.tick(span{step, step, w.healthy})
	}
}

func (w *world) actions() map[string]func(*rapid.T) {
	pass := func(t *rapid.T) { w.pass(time.Duration(rapid.IntRange(1, 50).Draw(t, "ticks")) * step) }
	return map[string]func(*rapid.T){
		"pass": pass, "pass on": pass, "pass and on": pass,
		"health":    func(*rapid.T) { w.healthy = !w.healthy },
		"pause":     func(*rapid.T) { w.tick(span{time.Hour, time.Hour, w.healthy}) },
		"jump":      func(*rapid.T) { w.tick(span{step, time.Hour, w.healthy}) },
		"same time": func(*rapid.T) { w.tick(span{0, 0, w.healthy}) },
		"lead":      func(*rapid.T) { w.lead() },
		"control":   func(t *rapid.T) { w.control = lease.Mode(rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(t, "mode")) },
		"silence":   func(t *rapid.T) { c := rapid.IntRange(0, 2).Draw(t, "collector"); w.silent[c] = !w.silent[c] },
		"renew":     func(*rapid.T) { w.renew(w.one()) },
		"fail":      func(*rapid.T) { w.fail(w.one()) },
		"many fail": func(t *rapid.T) {
			for i := range rapid.IntRange(1, people).Draw(t, "many") {
				w.fail(name(i))
			}
		},
		"answer": func(*rapid.T) {
			if p := w.known[w.one()]; p != nil {
				p.failing = false
			}
		},
		"register":   func(*rapid.T) { w.roll[w.one()] = true },
		"deregister": func(*rapid.T) { id := w.one(); delete(w.roll, id); delete(w.known, id) },
	}
}

// TestJudgeModel: whatever happens, nobody is struck off but by two witnesses, in
// the number that the rules allow; and it always ends.
func TestJudgeModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{
			T: t, at: lease.Instant{Wall: morning}, healthy: true,
			known: map[assignment.ProducerID]*person{}, roll: map[assignment.ProducerID]bool{},
		}
		for i := range people {
			w.roll[name(i)] = true
		}
		w.lead()
		t.Repeat(w.actions())

		w.healthy, w.control, w.silent, w.sure = true, lease.Auto, [3]bool{}, true
		w.pass(modelExpiry + modelLease + people*time.Minute + 2*step)
		if len(w.known) > 0 || w.held {
			t.Fatalf("it does not end: %d suspects, held: %v", len(w.known), w.held)
		}
	})
}
