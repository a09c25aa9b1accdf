package roster

import (
	"slices"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// maxGoneTimes is how many absences of a collector are remembered.
const maxGoneTimes = 2

// change decides what a change of a collector's record writes; nothing if change
// reports none.
func (v *View) change(id assignment.CollectorID, change func(*Collector) bool) (Txn, error) {
	c := v.Collector(id)
	if c == nil {
		return nil, Refuse(NotFound, ReasonUnknownCollector, "collector %q has never registered", id)
	}
	next := *c.Collector
	if !change(&next) {
		return nil, nil
	}
	return Txn{{Key: next.Key(), Expect: c.CollectorRevision, Record: &next}}, nil
}

// A Drain says how a collector is drained.
type Drain struct {
	// UntilRestart ends the drain when another instance registers.
	UntilRestart bool

	// Instance has to be the newest one; empty: whichever is.
	Instance assignment.InstanceID
}

// Drain decides what the begin of a drain writes. Of one that stands and this
// one, the one that ends later counts.
func (v *View) Drain(id assignment.CollectorID, d Drain, now time.Time) (Txn, error) {
	if c := v.Collector(id); c != nil {
		newest := c.Collector.Newest().ID
		switch {
		case c.Collector.Expunged():
			return nil, expunged(id)
		case d.Instance != "" && d.Instance != newest:
			return nil, Refuse(Aborted, ReasonInstanceReplaced, "collector %q: the newest instance is %q, not %q", id, newest, d.Instance)
		}
	}
	return v.change(id, func(c *Collector) bool {
		switch {
		case !c.Drains():
			c.DrainTime, c.DrainInstance = now, ""
			if d.UntilRestart {
				c.DrainInstance = c.Newest().ID
			}
			return true
		case c.DrainsUntilRestart() && !d.UntilRestart:
			c.DrainInstance = ""
			return true
		default:
			return false
		}
	})
}

// Undrain decides what the end of a drain, or of an expunction, writes.
func (v *View) Undrain(id assignment.CollectorID) (Txn, error) {
	return v.change(id, func(c *Collector) bool {
		// Also a drain that has ended: to a registry of an older version it has not.
		stands := !c.DrainTime.IsZero() || c.Expunged()
		c.DrainTime, c.DrainInstance, c.ExpungeTime = time.Time{}, "", time.Time{}
		return stands
	})
}

// Expunge decides what the end of a collector writes. Its session ends with it.
// force takes also one that is live and has producers.
func (v *View) Expunge(id assignment.CollectorID, force bool, now time.Time) (Txn, error) {
	c := v.Collector(id)
	if c != nil && c.Live() && !c.Drained() && !force {
		return nil, Refuse(FailedPrecondition, ReasonNotDrained,
			"collector %q is live and has %d producers: drain it first, or force it", id, c.Assigned+c.Leaving)
	}
	txn, err := v.change(id, func(c *Collector) bool {
		fresh := !c.Expunged()
		if fresh {
			c.ExpungeTime = now
		}
		return fresh
	})
	if len(txn) > 0 && c.Session != nil {
		txn = append(txn, Write{Key: c.Session.Key(), Expect: c.SessionRevision})
	}
	return txn, err
}

// Standing is a Txn that fails once a collector's record is another than the one
// that was written at a revision. What takes a producer from one that was expunged
// is that: it may be a member again, and would be told to let go at once.
func Standing(txn Txn, id assignment.CollectorID, at assignment.Revision) Txn {
	if len(txn) == 0 {
		return nil
	}
	return append(slices.Clip(txn), Write{Key: CollectorKey(id), Expect: at, Check: true})
}

// Drained tells whether it is drained and nothing is left to hand off.
func (c *CollectorEntry) Drained() bool {
	return c.Collector.Leaves() && c.Assigned == 0 && c.Leaving == 0
}

// NoteGone decides what an absence beyond the grace writes; nothing if that has
// been written by a leader before, and the collector has not been heard since.
func (v *View) NoteGone(id assignment.CollectorID, now time.Time) (Txn, error) {
	entry := v.Collector(id)
	return v.change(id, func(c *Collector) bool {
		if n := len(c.GoneTimes); n > 0 && (entry.Ack == nil || !entry.Ack.ReceiveTime.After(c.GoneTimes[n-1])) {
			return false
		}
		times := append(append([]time.Time(nil), c.GoneTimes...), now)
		c.GoneTimes = times[max(0, len(times)-maxGoneTimes):]
		return true
	})
}

// Elect decides what taking the lead writes; nothing if somebody leads.
func (v *View) Elect(registry assignment.InstanceID, now time.Time) Txn {
	if v.leader.Leader != nil {
		return nil
	}
	l := &Leader{Registry: registry, ElectTime: now}
	return Txn{{Key: l.Key(), Record: l, Leased: true}}
}

// Fenced is a Txn that fails unless the leader still leads.
func (l LeaderEntry) Fenced(txn Txn) Txn {
	if len(txn) == 0 {
		return nil
	}
	return append(slices.Clip(txn), Write{Key: LeaderKey(), Expect: l.Revision, Check: true})
}

// SetExpiry decides what an operator's word on those that are due writes.
func (v *View) SetExpiry(mode ExpiryMode, until time.Time) Txn {
	var expect assignment.Revision
	if v.expiry != nil {
		expect = v.expiryAt
	}
	next := &Expiry{Mode: mode, Until: until}
	if v.expiry != nil {
		next.Extra = v.expiry.Extra
	}
	return Txn{{Key: next.Key(), Expect: expect, Record: next}}
}

// Again decides what writing the leader's record anew writes, to see whether the
// store takes writes.
func (l LeaderEntry) Again() Txn {
	if l.Leader == nil {
		return nil
	}
	return Txn{{Key: LeaderKey(), Expect: l.Revision, Record: l.Leader, Leased: true}}
}
