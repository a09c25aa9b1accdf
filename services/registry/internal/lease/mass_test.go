package lease_test

import (
	"slices"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/lease"
)

// TestMass: more than 15 % of the fleet and more than 2 is a mass.
func TestMass(t *testing.T) {
	for _, test := range []struct {
		due, fleet int
		held       bool
	}{
		{1, 1, false},
		{2, 2, false},
		{3, 3, true},
		{3, 10, true},
		{3, 19, true},
		{3, 20, false},
		{4, 26, true},
		{150, 1000, false},
		{151, 1000, true},
		{10000, 10000, true},
	} {
		c := newCourt(t, test.fleet)
		c.suspect(0, test.due)
		c.tick()
		c.now = expiry - term - 2*step
		c.pass(step)
		if c.last.Held {
			t.Errorf("%d of %d are held before their last lease", test.due, test.fleet)
		}
		c.pass(step)
		if v := c.last; v.Held != test.held || v.Mass != test.due || v.Of != test.fleet {
			t.Errorf("%d of %d, a lease before: %+v", test.due, test.fleet, v)
		}
		c.pass(term)
		if test.held {
			c.want(0)
			if c.last.Due != test.due {
				t.Errorf("%+v", c.last)
			}
		} else {
			c.want(test.due)
		}
	}
}

// TestAllDueAtOnce: the whole fleet is held for one more lease, then goes at 1 %
// of what it was a minute, until it is over.
func TestAllDueAtOnce(t *testing.T) {
	for _, test := range []struct{ fleet, batch, minutes int }{{10000, 100, 100}, {150, 1, 150}, {10, 1, 10}, {3, 1, 3}} {
		c := newCourt(t, test.fleet)
		c.suspect(0, test.fleet)
		c.tick()
		c.now = expiry - term - step
		c.pass(2 * term)
		c.want(0)
		if v := c.last; !v.Held || v.Paced || v.HeldFor != 2*term-step || v.Due != test.fleet {
			t.Errorf("%+v", v)
		}
		for minute := range test.minutes {
			c.pass(step)
			c.want(min(test.fleet, (minute+1)*test.batch))
			if minute < test.minutes-1 && (!c.last.Held || !c.last.Paced) {
				t.Errorf("minute %d: %+v", minute, c.last)
			}
			c.pass(time.Minute - step)
		}
		if len(c.struck) != test.fleet || c.last.Held {
			t.Errorf("%d of %d are struck off: %+v", len(c.struck), test.fleet, c.last)
		}
	}
}

// TestMassGoesInRandomOrder: not by id, and the same for the same source.
func TestMassGoesInRandomOrder(t *testing.T) {
	order := func() []assignment.ProducerID {
		c := newCourt(t, 1000)
		c.suspect(0, 1000)
		c.tick()
		c.pass(expiry + term)
		ids := make([]assignment.ProducerID, 0, len(c.struck))
		for id := range c.struck {
			ids = append(ids, id)
		}
		slices.Sort(ids)
		return ids
	}
	first := order()
	if len(first) != 10 || first[9] < name(100) || first[0] > name(900) {
		t.Errorf("the first are %v", first)
	}
	if second := order(); !slices.Equal(first, second) {
		t.Errorf("once %v, then %v", first, second)
	}
}

// TestATrickleAddsUp: parts of a mass that become due one by one are a mass, once
// more than 15 % of the fleet, those struck off included, are of one lease.
func TestATrickleAddsUp(t *testing.T) {
	c := newCourt(t, 100)
	for i := range 30 {
		c.suspect(2*i, 2*i+2)
		c.suspects[name(2*i)].ExpireAfter = term
		c.suspects[name(2*i+1)].ExpireAfter = term
		c.pass(time.Minute)
		if n := len(c.struck) + len(c.suspects); !c.last.Held && n > 15 {
			t.Fatalf("%d are suspects or struck off: %+v", n, c.last)
		}
	}
	if n := len(c.struck); n > 15+20 {
		t.Errorf("%d are struck off in %v", n, c.now)
	}

	// Each wave of 10 % is no mass; the second is one within a lease of the first,
	// which has been struck off.
	c = newCourt(t, 100)
	c.suspect(0, 10)
	c.tick()
	c.pass(expiry)
	c.want(10)
	c.suspect(10, 20)
	for i := 10; i < 20; i++ {
		c.suspects[name(i)].ExpireAfter = term
	}
	c.tick()
	c.pass(step)
	c.want(10)
	if v := c.last; !v.Held || v.Mass != 20 || v.Of != 100 {
		t.Errorf("%+v", v)
	}
}

// TestStrikingOffDoesNotChangeTheShare: what goes in ordinary judging counts for
// one lease, in the mass as in the fleet.
func TestStrikingOffDoesNotChangeTheShare(t *testing.T) {
	c := newCourt(t, 100)
	c.suspect(0, 15)
	c.tick()
	c.pass(expiry)
	c.want(15)
	c.pass(step)
	if v := c.last; v.Held || v.Mass != 15 || v.Of != 100 {
		t.Errorf("%+v", v)
	}
	c.suspect(15, 16)
	c.suspects[name(15)].ExpireAfter = term
	c.tick()
	c.pass(step)
	if v := c.last; !v.Held || v.Mass != 16 || v.Of != 100 {
		t.Errorf("%+v", v)
	}
	c.pass(term - 3*step) // the 15 are not of the last lease any more
	if v := c.last; !v.Held {
		t.Errorf("%+v", v)
	}
	c.pass(step)
	if v := c.last; v.Held || v.Mass != 1 || v.Of != 85 {
		t.Errorf("%+v", v)
	}
}

// TestHoldEndsWhenEnoughRecover: and then the rest goes at once, for with all
// that the hold has struck off it is no mass.
func TestHoldEndsWhenEnoughRecover(t *testing.T) {
	c := newCourt(t, 1000)
	c.suspect(0, 300)
	c.tick()
	c.pass(expiry + term + 4*time.Minute)
	c.want(50) // of 1,000, 10 a minute
	answer := func(n int) {
		for _, s := range c.suspects {
			if n == 0 {
				break
			}
			s.Failing = false
			n--
		}
		c.pass(step)
	}
	answer(149)
	c.want(50)
	if v := c.last; !v.Held || v.Mass != 151 || v.Of != 1000 {
		t.Errorf("%+v", v)
	}
	answer(1)
	c.want(150)
	if v := c.last; v.Held || v.Mass != 150 || v.Of != 1000 || len(c.suspects) != 0 {
		t.Errorf("%+v", v)
	}
}

// TestSilenceDoesNotEndAHold: those whose collector is not heard count.
func TestSilenceDoesNotEndAHold(t *testing.T) {
	c := newCourt(t, 1000)
	c.suspect(0, 300)
	c.tick()
	c.pass(expiry)
	for i := range 290 {
		c.suspects[name(i)].Heard = false
	}
	c.pass(term - step)
	c.want(0)
	if v := c.last; !v.Held || v.Mass != 300 || v.Due != 10 {
		t.Errorf("%+v", v)
	}
	c.pass(step)
	c.want(10)
	c.pass(time.Hour)
	c.want(10)
	for _, s := range c.suspects {
		s.Heard = true
	}
	c.pass(time.Minute)
	c.want(20)
}

// TestEachIsHeldForALease: those that join a mass late are not struck off before
// they have been due for one more lease, too.
func TestEachIsHeldForALease(t *testing.T) {
	c := newCourt(t, 1000)
	c.suspect(0, 5)
	c.tick()
	c.pass(9 * time.Minute)
	c.suspect(5, 300)
	c.tick()
	c.pass(expiry + term - step)
	c.want(5)
	c.pass(step)
	c.want(15)
}

// TestAHoldLastsForALease: also for those who were due long before it, and whose
// collector was not heard.
func TestAHoldLastsForALease(t *testing.T) {
	c := newCourt(t, 100)
	c.suspect(0, 2)
	c.tick()
	c.suspects[name(0)].Heard, c.suspects[name(1)].Heard = false, false
	c.pass(expiry + 3*time.Hour)
	c.suspect(2, 40)
	for i := 2; i < 40; i++ {
		c.suspects[name(i)].ExpireAfter = term
	}
	c.tick()
	c.pass(step) // the hold begins
	c.suspects[name(0)].Heard, c.suspects[name(1)].Heard = true, true
	c.pass(term - step)
	c.want(0)
	c.pass(step)
	c.want(1)
	c.pass(time.Minute)
	c.want(2)
}

// TestOrdinaryDeathsDoNotProlongAHold: a fleet in which somebody dies all the
// time is judged as ever some time after a mass.
func TestOrdinaryDeathsDoNotProlongAHold(t *testing.T) {
	c := newCourt(t, 1000)
	c.suspect(0, 400)
	c.tick()
	for i := 400; i < 700; i++ {
		c.suspect(i, i+1)
		c.pass(time.Minute)
		c.fleet++ // and somebody comes
	}
	if v := c.last; v.Held || len(c.suspects) > 61 {
		t.Errorf("with %d suspects: %+v", len(c.suspects), v)
	}
}

// TestAMassWithoutEnd: while more die than may go, they go at their pace, and
// nobody waits for ever: the order of a batch is not joined from behind.
func TestAMassWithoutEnd(t *testing.T) {
	c := newCourt(t, 200)
	c.suspect(0, 100)
	c.tick()
	next := 100
	for range 24 * 60 {
		c.suspect(next, next+3)
		for i := next; i < next+3; i++ {
			c.suspects[name(i)].ExpireAfter = term
		}
		next += 3
		c.fleet += 3
		c.pass(time.Minute)
		for len(c.suspects) > 150 { // they recover, the newest first
			next--
			if s := c.suspects[name(next)]; s != nil {
				delete(c.suspects, s.ID)
			}
		}
	}
	if !c.last.Held {
		t.Errorf("%+v", c.last)
	}
	for i := range 100 {
		if at, gone := c.struck[name(i)]; !gone || at > expiry+term+80*time.Minute { // 150 at once, 2 a minute
			t.Errorf("%s: struck off: %v, after %v", name(i), gone, at)
		}
	}
}

// TestPaceOfAFleetThatChanges: 1 % of the fleet, without those who left it
// otherwise, and never of more than it was.
func TestPaceOfAFleetThatChanges(t *testing.T) {
	for name, test := range map[string]struct{ change, batch int }{
		"as it was": {0, 10},
		"leaving":   {-500, 5},
		"joining":   {500, 10},
		"all gone":  {-1000, 1},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCourt(t, 1000)
			c.suspect(0, 400)
			c.tick()
			c.pass(expiry)
			c.fleet = max(0, c.fleet+test.change)
			c.pass(term + 10*time.Minute - step)
			for i, n := range c.batches {
				if n != test.batch {
					t.Errorf("batch %d is of %d, want %d", i, n, test.batch)
				}
			}
			if len(c.batches) != 10 {
				t.Errorf("%d batches", len(c.batches))
			}
		})
	}
}

// TestOperatorHolds: and a mass that was held by hand does not go faster after.
func TestOperatorHolds(t *testing.T) {
	c := newCourt(t, 1000)
	c.suspect(0, 400)
	c.tick()
	c.control = lease.Hold
	c.pass(expiry + 5*time.Hour)
	c.want(0)
	c.control = 99 // of a newer version
	c.pass(time.Hour)
	c.want(0)
	c.control = lease.Auto
	c.pass(step)
	c.want(10)
	c.pass(time.Minute - step)
	c.want(10)
	c.pass(step)
	c.want(20)
}

// TestOperatorHastens: the hold and its rate are skipped, and the witnesses are
// not.
func TestOperatorHastens(t *testing.T) {
	c := newCourt(t, 1000)
	c.suspect(0, 400)
	c.tick()
	c.control = lease.Hasten
	c.pass(expiry - step)
	c.want(0)
	for i := range 50 {
		c.suspects[name(i)].Heard = false
	}
	c.pass(step)
	c.want(350)
	c.pass(time.Hour)
	c.want(350)
	for i := range 50 {
		c.suspects[name(i)].Heard = true
	}
	c.idle(5)
	c.pass(step)
	c.want(400)
}

// TestIllnessDoesNotEndAHold: nor does it run its time.
func TestIllnessDoesNotEndAHold(t *testing.T) {
	c := newCourt(t, 1000)
	c.suspect(0, 400)
	c.tick()
	c.pass(expiry + term - step)
	all := c.suspects
	c.suspects = map[assignment.ProducerID]*lease.Suspect{}
	for i := range 100 {
		c.suspects[name(i)] = all[name(i)]
	}
	c.idle(1000)
	c.want(0)
	if !c.last.Held || c.last.Mass != 100 {
		t.Errorf("%+v", c.last)
	}
}
