package lease_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/lease"
)

const (
	step   = 5 * time.Second
	term   = 10 * time.Minute // the lease of everything here
	expiry = time.Hour
)

// court is a judge on a clock that is credited in full, with a fleet and its
// suspects; it carries out what is judged.
type court struct {
	t        *testing.T
	judge    *lease.Judge
	now      time.Duration
	fleet    int
	suspects map[assignment.ProducerID]*lease.Suspect
	control  lease.Mode
	futile   bool // what is struck off is not, for the store refuses

	struck  map[assignment.ProducerID]time.Duration
	batches []int // sizes of the rounds that struck off anybody
	last    lease.Verdict
}

func newCourt(t *testing.T, fleet int) *court {
	t.Helper()
	return &court{
		t: t, judge: lease.NewJudge(0, rand.New(rand.NewPCG(1, 2))), fleet: fleet,
		suspects: map[assignment.ProducerID]*lease.Suspect{}, struck: map[assignment.ProducerID]time.Duration{},
	}
}

// suspect has producers fail from now on, numbered from..to-1.
func (c *court) suspect(from, to int) {
	for i := from; i < to; i++ {
		id := name(i)
		c.suspects[id] = &lease.Suspect{ID: id, Revision: 1, Lease: term, ExpireAfter: expiry, Heard: true, Failing: true}
	}
}

func name(i int) assignment.ProducerID { return assignment.ProducerID(fmt.Sprintf("p-%05d", i)) }

func (c *court) round() lease.Round {
	r := lease.Round{Credited: c.now, Fleet: c.fleet, Control: c.control}
	for _, s := range c.suspects {
		r.Suspects = append(r.Suspects, *s) // in any order
	}
	return r
}

func (c *court) tick() lease.Verdict {
	r := c.round()
	v := c.judge.Tick(&r)
	c.judge.Moved(v.Unreachable)
	for _, id := range v.Recovered {
		delete(c.suspects, id)
	}
	if len(v.Strike) > 0 {
		c.batches = append(c.batches, len(v.Strike))
	}
	for _, id := range v.Strike {
		if c.futile {
			continue
		}
		if _, again := c.struck[id]; again {
			c.t.Errorf("%s is struck off twice", id)
		}
		c.struck[id] = c.now
		delete(c.suspects, id)
		c.fleet--
	}
	c.last = v
	return v
}

// pass lets credited time go by.
func (c *court) pass(d time.Duration) {
	for until := c.now + d; c.now < until; {
		c.now += step
		c.tick()
	}
}

// want checks how many are struck off by now.
func (c *court) want(n int) {
	c.t.Helper()
	if len(c.struck) != n {
		c.t.Errorf("after %v %d are struck off, want %d: %+v", c.now, len(c.struck), n, c.last)
	}
}

// TestStruckOffAfterItsTime: to the second, and by both witnesses only.
func TestStruckOffAfterItsTime(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*lease.Suspect)
		at     time.Duration // 0: never
	}{
		"an hour":                           {func(*lease.Suspect) {}, time.Hour},
		"another time":                      {func(s *lease.Suspect) { s.ExpireAfter = 25 * time.Minute }, 25 * time.Minute},
		"never within its lease":            {func(s *lease.Suspect) { s.ExpireAfter = time.Second }, term},
		"permanent":                         {func(s *lease.Suspect) { s.Lease, s.ExpireAfter = 0, 0 }, 0},
		"permanent in one sense":            {func(s *lease.Suspect) { s.ExpireAfter = 0 }, 0},
		"no lease but an expiry":            {func(s *lease.Suspect) { s.Lease = 0 }, time.Hour},
		"its collector is not heard":        {func(s *lease.Suspect) { s.Heard = false }, 0},
		"nor fails it by what it said last": {func(s *lease.Suspect) { s.Heard, s.Failing = false, false }, 0},
		"it does not fail":                  {func(s *lease.Suspect) { s.Failing = false }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCourt(t, 100)
			c.suspect(0, 1)
			test.change(c.suspects["p-00000"])
			c.now = 7 * time.Hour // a judge that comes late starts at zero as well
			c.tick()
			if test.at == 0 {
				c.pass(20 * time.Hour)
				c.want(0)
				return
			}
			c.pass(test.at - step)
			c.want(0)
			c.pass(step)
			c.want(1)
		})
	}
}

// TestClockOfASuspect: what starts a clock anew, and what does not.
func TestClockOfASuspect(t *testing.T) {
	for name, test := range map[string]struct {
		after  time.Duration
		change func(*court, *lease.Suspect)
		at     time.Duration // from the change
	}{
		"a renewal":                    {59 * time.Minute, func(_ *court, s *lease.Suspect) { s.Revision++ }, time.Hour},
		"a revision that went back":    {59 * time.Minute, func(_ *court, s *lease.Suspect) { s.Revision-- }, time.Hour},
		"its collector falls silent":   {time.Minute, func(c *court, s *lease.Suspect) { c.silence(s, 20*time.Minute) }, 39 * time.Minute},
		"silent when it is due":        {50 * time.Minute, func(c *court, s *lease.Suspect) { c.silence(s, 30*time.Minute) }, step},
		"a renewal in the silence":     {50 * time.Minute, func(c *court, s *lease.Suspect) { s.Heard = false; s.Revision++; c.silence(s, 30*time.Minute) }, 30*time.Minute + step},
		"it answers once":              {59 * time.Minute, func(c *court, s *lease.Suspect) { c.answer(s) }, time.Hour},
		"it is not there once":         {59 * time.Minute, func(c *court, s *lease.Suspect) { c.absent(s) }, time.Hour},
		"a new judge":                  {59 * time.Minute, func(c *court, _ *lease.Suspect) { c.judge = lease.NewJudge(0, nil); c.tick() }, time.Hour},
		"an operator's hold":           {59 * time.Minute, func(c *court, _ *lease.Suspect) { c.hold(3 * time.Hour) }, step},
		"rounds without credited time": {59 * time.Minute, func(c *court, _ *lease.Suspect) { c.idle(10000) }, time.Minute},
		"the same round again, when due": {time.Hour - step, func(c *court, s *lease.Suspect) {
			s.Heard = false
			c.pass(step)
			s.Heard = true
			c.idle(10000)
		}, step},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCourt(t, 100)
			c.suspect(0, 1)
			s := c.suspects["p-00000"]
			s.Revision = 7
			c.tick()
			c.pass(test.after)
			test.change(c, s)
			if s.Revision != 7 {
				c.tick()
			}
			c.pass(test.at - step)
			c.want(0)
			c.pass(step)
			c.want(1)
		})
	}
}

func (c *court) silence(s *lease.Suspect, d time.Duration) {
	s.Heard = false
	c.pass(d)
	s.Heard = true
}

func (c *court) answer(s *lease.Suspect) {
	s.Failing = false
	if v := c.tick(); !slices.Equal(v.Recovered, []assignment.ProducerID{s.ID}) {
		c.t.Errorf("%+v", v)
	}
	s.Failing = true
	c.suspects[s.ID] = s
	c.tick()
}

func (c *court) absent(s *lease.Suspect) {
	delete(c.suspects, s.ID)
	c.tick()
	c.suspects[s.ID] = s
	c.tick()
}

func (c *court) hold(d time.Duration) {
	c.control = lease.Hold
	c.pass(d)
	c.control = lease.Auto
}

// idle has rounds in which nothing is credited.
func (c *court) idle(n int) {
	for range n {
		if v := c.tick(); len(v.Strike)+len(v.Unreachable) > 0 {
			c.t.Fatalf("in a round without credited time: %+v", v)
		}
	}
}

// TestStruckOffIsToldUntilItIs: what the store refused is told again, and is one
// producer still.
func TestStruckOffIsToldUntilItIs(t *testing.T) {
	c := newCourt(t, 14)
	c.suspect(0, 2)
	c.futile = true
	c.tick()
	c.pass(time.Hour + 5*term)
	if c.last.Held || c.last.Mass != 2 || c.last.Of != 14 || len(c.last.Strike) != 2 {
		t.Errorf("%+v", c.last)
	}
	c.futile = false
	c.pass(step)
	c.want(2)
}

// TestProofOfLife: whoever renews or answers after all is not one of those struck
// off, although it was told to be.
func TestProofOfLife(t *testing.T) {
	for name, change := range map[string]func(*lease.Suspect){
		"renews":  func(s *lease.Suspect) { s.Revision++ },
		"answers": func(s *lease.Suspect) { s.Failing = false },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCourt(t, 100)
			c.suspect(0, 1)
			c.tick()
			c.futile = true
			c.pass(expiry)
			if len(c.last.Strike) != 1 || c.last.Mass != 1 {
				t.Errorf("%+v", c.last)
			}
			change(c.suspects["p-00000"])
			c.pass(step)
			if len(c.last.Strike) != 0 || c.last.Mass != 0 || c.last.Of != 100 {
				t.Errorf("%+v", c.last)
			}
		})
	}
}

// TestSeenOnceARound: a suspect that is named twice is one.
func TestSeenOnceARound(t *testing.T) {
	c := newCourt(t, 100)
	c.suspect(0, 1)
	c.tick()
	c.pass(expiry - step)
	c.now += step
	r := c.round()
	r.Suspects = append(r.Suspects, r.Suspects[0])
	if v := c.judge.Tick(&r); len(v.Strike) != 1 || v.Due != 1 || v.Mass != 1 {
		t.Errorf("%+v", v)
	}
}

// TestNobodyIsMovedInIllness: one that is heard again in a round without credited
// time is moved in the next one.
func TestNobodyIsMovedInIllness(t *testing.T) {
	c := newCourt(t, 100)
	c.suspect(0, 1)
	s := c.suspects["p-00000"]
	s.Renewed = true
	c.tick()
	c.silence(s, 20*time.Minute)
	c.idle(100)
	c.pass(step)
	if len(c.last.Unreachable) != 1 {
		t.Errorf("%+v", c.last)
	}
}

// TestUnreachable: one that renews and is not reached for a lease is told once an
// hour, whatever its renewals do to the other clock.
func TestUnreachable(t *testing.T) {
	for name, test := range map[string]struct {
		change func(c *court, s *lease.Suspect, at time.Duration)
		told   []time.Duration // within 150 minutes
	}{
		"renews":         {func(*court, *lease.Suspect, time.Duration) {}, []time.Duration{10 * time.Minute, 70 * time.Minute, 130 * time.Minute}},
		"does not renew": {func(_ *court, s *lease.Suspect, _ time.Duration) { s.Renewed, s.Revision = false, 1 }, nil},
		"permanent":      {func(_ *court, s *lease.Suspect, _ time.Duration) { s.Lease, s.ExpireAfter = 0, 0 }, nil},
		"answers at five minutes": {func(_ *court, s *lease.Suspect, at time.Duration) {
			s.Failing = at != 5*time.Minute
		}, []time.Duration{15*time.Minute + step, 75*time.Minute + step, 135*time.Minute + step}},
		"answers where it was moved to, for a minute": {func(_ *court, s *lease.Suspect, at time.Duration) {
			s.Failing = at <= 10*time.Minute || at > 11*time.Minute
		}, []time.Duration{10 * time.Minute, 70 * time.Minute, 130 * time.Minute}},
		"a lease longer than an hour": {func(_ *court, s *lease.Suspect, _ time.Duration) { s.Lease = 70 * time.Minute }, []time.Duration{70 * time.Minute, 140 * time.Minute}},
		"its collector is not heard": {func(_ *court, s *lease.Suspect, at time.Duration) {
			s.Heard = at < 5*time.Minute || at >= 20*time.Minute
		}, []time.Duration{20 * time.Minute, 80 * time.Minute, 140 * time.Minute}},
		"never heard at first": {func(_ *court, s *lease.Suspect, at time.Duration) { s.Heard = at >= 20*time.Minute }, []time.Duration{30 * time.Minute, 90 * time.Minute, 150 * time.Minute}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCourt(t, 100)
			var told []time.Duration
			for ; c.now <= 150*time.Minute; c.now += step {
				c.suspect(0, 1)
				s := c.suspects["p-00000"]
				s.Renewed, s.Revision = true, assignment.Revision(c.now/(3*time.Minute))
				test.change(c, s, c.now)
				if _, gone := c.struck[s.ID]; gone {
					break
				}
				if v := c.tick(); len(v.Unreachable) > 0 {
					told = append(told, c.now)
				}
			}
			if diff := cmp.Diff(test.told, told, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("told (-want +got):\n%s", diff)
			}
			if (len(c.struck) > 0) != (name == "does not renew") {
				t.Errorf("struck off: %v", c.struck)
			}
		})
	}
}
