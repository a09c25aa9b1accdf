package simulation

import (
	"context"
	"slices"
	"time"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	"google.golang.org/grpc"
)

// play plays a script, and judges after each step.
func (t *town) play(script []step) {
	t.begun = time.Now()
	t.every(renewal, func() { _ = t.renew(t.registries[t.random.IntN(len(t.registries))], true) })
	t.every(leaseTime/2, t.renewLeased)
	for _, s := range script {
		t.until(t.begun.Add(s.at))
		t.step = s.String()
		verbs[slices.IndexFunc(verbs, func(v verb) bool { return v.name == s.verb })].play(t, s.args)
		t.faults[s.verb]++
		t.judge()
	}
	t.step = "the end"
	if len(script) == 0 || script[len(script)-1].verb != "quiet" {
		t.quiet(quietTime.String())
		t.judge()
	}
}

// until lets time go by, and what is on the agenda happen.
func (t *town) until(at time.Time) {
	for len(t.agenda) > 0 {
		i := 0
		for k, a := range t.agenda {
			if a.at.Before(t.agenda[i].at) {
				i = k
			}
		}
		next := t.agenda[i]
		if next.at.After(at) {
			break
		}
		t.agenda = slices.Delete(t.agenda, i, i+1)
		time.Sleep(time.Until(next.at))
		next.what()
		t.settle()
		t.noteHealth()
	}
	time.Sleep(time.Until(at))
	t.settle()
}

// every does something again and again.
func (t *town) every(d time.Duration, what func()) {
	var again func()
	again = func() {
		what()
		t.agenda = append(t.agenda, appointment{at: time.Now().Add(d), what: again, recurs: true})
	}
	t.agenda = append(t.agenda, appointment{at: time.Now().Add(d), what: again, recurs: true})
}

// judge judges what holds at any time.
func (t *town) judge() {
	t.settle()
	t.noteHealth()
	t.lookForStrikes()
	t.journal.judgeGaps()
	for _, r := range t.registries {
		r.lives()
	}
	for _, c := range t.collectors {
		c.lives()
		if c.disk.wasTorn() {
			c.crash()
			t.later("3s", c.restart)
		}
		if m := c.membershipNow(); m.GetEpoch() != "" {
			t.journal.position(c.name, m.GetEpoch(), m.GetRevision())
		}
	}
}

// membershipNow is what the collector tells of its set; nil when it does not
// answer.
func (c *collectorNode) membershipNow() (m *collectorv1.GetMembershipResponse) {
	if c.town.network.isFrozen(c.name) {
		return nil
	}
	_ = c.call(func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		m, err = collectorv1.NewCollectionServiceClient(conn).GetMembership(ctx, &collectorv1.GetMembershipRequest{})
		return err
	})
	return m
}

// quiet ends all faults, lets everything work for a time, and judges who is
// collected, and whether all agree.
func (t *town) quiet(wait string) {
	d, err := time.ParseDuration(wait)
	if err != nil {
		t.fatalf("%q: %v", wait, err)
	}
	end := time.Now().Add(d)
	t.journal.calm = time.Now()
	var ends []appointment
	t.agenda = slices.DeleteFunc(t.agenda, func(a appointment) bool {
		if !a.recurs {
			ends = append(ends, a)
		}
		return !a.recurs
	})
	for _, a := range ends {
		a.what()
		t.settle()
	}
	t.noteHealth()
	for _, c := range t.collectors {
		if c.disk.wasTorn() {
			c.crash()
			c.restart()
		}
	}
	t.until(time.Now().Add(3 * time.Second)) // a registry that was cut off loads anew
	t.settleFleet()
	t.durable()
	// A collector's longest backoff, and a bit.
	t.until(time.Now().Add(32 * time.Second))
	_ = t.renew(t.registries[0], true)
	for _, id := range t.journal.order {
		if s := t.journal.subjects[id]; !s.wanted && !s.certain {
			t.deregister(id, t.registries[0].name)
			s.left = "" // who holds it may hear of it only after the end
		}
	}
	t.certain()
	t.until(end)
	t.judge()
	t.journal.judgeQuiet()
	t.judgeDrained()
	t.agree()
	t.takeManglersAway()
}

// certain judges that a registry that works answers.
func (t *town) certain() {
	t.journal.mu.Lock()
	defer t.journal.mu.Unlock()
	for _, id := range t.journal.order {
		if s := t.journal.subjects[id]; s.instance > 0 && !s.certain && !s.dead {
			t.journal.violateLocked("%s could not be registered or deregistered although everything works", id)
		}
	}
}

// agree judges that every collector is subscribed, and that it and all registries
// tell the same set.
func (t *town) agree() {
	for _, c := range t.collectors {
		m := c.membershipNow()
		if !m.GetSubscribed() || !m.GetPersisted() {
			t.journal.violate("%s: subscribed %v, persisted %v: %s", c.name, m.GetSubscribed(), m.GetPersisted(), m.GetLastError())
			continue
		}
		for _, r := range t.registries {
			end, err := t.observed(t.ctx, r, c.name)
			switch {
			case err != nil:
				t.journal.violate("%v", err)
			case end.GetEpoch() != m.GetEpoch(), end.GetSetCount() != m.GetAcceptedCount(), end.GetSetDigest() != m.GetAcceptedDigest():
				t.journal.violate("%s accepted %d with digest %x at %d of %s; %s tells %d with digest %x at %d of %s", c.name,
					m.GetAcceptedCount(), m.GetAcceptedDigest(), m.GetRevision(), m.GetEpoch(), r.name,
					end.GetSetCount(), end.GetSetDigest(), end.GetRevision(), end.GetEpoch())
			}
		}
	}
}
