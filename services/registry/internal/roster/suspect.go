package roster

import (
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// The second witness of a producer's end is its own silence. It is listened for
// only while the first one, its collector, says that it fails: then, and only
// then, a renewal is written, under the key of the suspicion.

// maxRenewals is how many renewals a suspect may have written within a lease:
// one that renews all the time does not set the pace of the store's writes.
const maxRenewals = 10

// Suspected decides what the collector's word that a producer fails writes;
// nothing if that is known, or makes no difference.
func (v *View) Suspected(e *Entry, collector assignment.CollectorID, reason string, now time.Time) Txn {
	if _, known := v.suspects[e.ID]; known || e.Permanent {
		return nil
	}
	s := &Suspect{ID: e.ID, SuspectTime: now, Collector: collector, Reason: reason}
	return Txn{
		{Key: s.Key(), Record: s},
		{Key: e.Key(), Expect: e.Revision, Check: true},
	}
}

// Acquit decides what the end of a suspicion writes.
func (s SuspectEntry) Acquit() Txn { return Txn{{Key: s.Key(), Expect: s.Revision}} }

// renew decides what a renewal writes that changes nothing else.
func (v *View) renew(e *Entry, now time.Time) Txn {
	s, ok := v.suspects[e.ID]
	if !ok || now.Sub(s.RenewTime) < e.Lease/maxRenewals && !now.Before(s.RenewTime) {
		return nil
	}
	return Txn{s.renewed(&e.Producer, now), {Key: e.Key(), Expect: e.Revision, Check: true}}
}

// renewed is the write of a renewal.
func (s SuspectEntry) renewed(p *Producer, now time.Time) Write {
	if p.Permanent {
		return s.Acquit()[0]
	}
	next := *s.Suspect
	next.RenewTime = now
	return Write{Key: next.Key(), Expect: s.Revision, Record: &next}
}

// StrikeOff decides what taking off a suspect writes. A renewal in between makes
// it fail: it writes the suspect.
func (v *View) StrikeOff(s SuspectEntry, now time.Time) Txn {
	e := v.Producer(s.ID)
	if e == nil || e.Collector == "" || e.Permanent {
		return nil
	}
	return v.remove(e, assignment.CauseExpired, now)
}
