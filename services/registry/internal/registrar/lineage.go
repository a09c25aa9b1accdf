package registrar

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/google/uuid"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// An epoch is a UUID of version 7: it begins with the time at which the epoch
// began, in milliseconds. To everybody else it is opaque. The registry reads it
// for one thing: who has seen an epoch that began after the one in the store
// knows that the store was set back, also when the store's own revisions do not
// show it, because the epochs between have had revisions of their own.

// maxAhead is how far in the future an epoch may have begun to be believed: a
// clock may be wrong, and a claim a lie.
const maxAhead = 24 * time.Hour

// newEpoch makes an epoch that began now, or, if a clock went back, just after
// the others.
func newEpoch(now time.Time, others ...assignment.Epoch) assignment.Epoch {
	began := now.UnixMilli()
	for _, other := range others {
		if at, ok := beginning(other); ok && at.Before(now.Add(maxAhead)) {
			began = max(began, at.UnixMilli()+1)
		}
	}
	id := uuid.New()
	var stamp [8]byte
	binary.BigEndian.PutUint64(stamp[:], uint64(began)<<16)
	copy(id[:6], stamp[:6])
	id[6] = id[6]&0x0f | 0x70
	return assignment.Epoch(id.String())
}

// younger reports whether a began after b, as far as that can be believed. One
// that is not of this form, as an older version made them, is never younger.
func younger(a, b assignment.Epoch, now time.Time) bool {
	began, ok := beginning(a)
	before, known := beginning(b)
	return ok && known && began.After(before) && began.Before(now.Add(maxAhead))
}

func beginning(e assignment.Epoch) (time.Time, bool) {
	id, err := uuid.Parse(string(e))
	if err != nil || id.Version() != 7 {
		return time.Time{}, false
	}
	var stamp [8]byte
	copy(stamp[2:], id[:6])
	return time.UnixMilli(int64(binary.BigEndian.Uint64(stamp[:]))), true
}

// writeEpoch begins a new epoch, after those that somebody has seen, provided that
// the one written at the revision before still stands. Another replica doing the
// same is as good.
func (r *Registrar) writeEpoch(ctx context.Context, before assignment.Revision, seen ...assignment.Epoch) error {
	r.mu.RLock()
	seen = append(seen, r.view.Epoch())
	r.mu.RUnlock()
	now := time.Now()
	record := &roster.Epoch{Epoch: newEpoch(now, seen...), CreateTime: now}
	outcomes, err := r.Store.Commit(ctx, []roster.Txn{{{Key: record.Key(), Expect: before, Record: record}}})
	if err == nil && outcomes[0].Committed {
		r.Metrics.Epochs.Inc()
		r.Logger.WarnContext(ctx, "began a new epoch", "epoch", record.Epoch)
	}
	return err
}
