package main

import (
	"fmt"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A verifier checks the frames of one stream by the rules told at the rpc
// Subscribe. It shares no code with the collector's own check, so that one can
// find the other's faults. After an error it is of no use any more.
type verifier struct {
	epoch    assignment.Epoch
	revision assignment.Revision
	set      assignment.Set[*assignment.Assignment]

	open     *assignment.Begin // the snapshot that has begun and not ended
	chunks   uint64
	upserts  map[assignment.ProducerID]*assignment.Assignment
	removals map[assignment.ProducerID]bool
}

// take takes the next frame. It returns whether the frame sealed a snapshot.
func (v *verifier) take(frame assignment.Frame) (sealed bool, err error) {
	switch f := frame.(type) {
	case *assignment.Begin:
		return false, v.begin(f)
	case *assignment.Chunk:
		return false, v.chunk(f)
	case *assignment.End:
		err := v.end(f)
		return err == nil, err
	case *assignment.Heartbeat:
		return false, v.heartbeat(f)
	default:
		return false, nil // announcements, and what only a newer peer knows
	}
}

func (v *verifier) begin(f *assignment.Begin) error {
	switch {
	case v.open != nil:
		return fmt.Errorf("snapshot %d begins inside snapshot %d", f.SnapshotID, v.open.SnapshotID)
	case f.Epoch == "" || f.Revision <= 0:
		return fmt.Errorf("snapshot %d has epoch %q and revision %d", f.SnapshotID, f.Epoch, f.Revision)
	case f.Epoch == v.epoch && f.Revision < v.revision:
		return fmt.Errorf("snapshot %d is of revision %d, and the one before was of %d", f.SnapshotID, f.Revision, v.revision)
	case f.Scope != assignment.ScopeAll && f.Scope != assignment.ScopeChanges:
		return fmt.Errorf("snapshot %d has scope %d, and nothing was subscribed with that it could complete", f.SnapshotID, f.Scope)
	case f.Scope == assignment.ScopeChanges && (v.epoch != f.Epoch || f.BaseRevision > v.revision):
		return fmt.Errorf("snapshot %d changes revision %d of epoch %q, and the set is of %d of %q",
			f.SnapshotID, f.BaseRevision, f.Epoch, v.revision, v.epoch)
	}
	v.open, v.chunks = f, 0
	v.upserts = map[assignment.ProducerID]*assignment.Assignment{}
	v.removals = map[assignment.ProducerID]bool{}
	return nil
}

func (v *verifier) chunk(f *assignment.Chunk) error {
	switch {
	case v.open == nil:
		return fmt.Errorf("chunk %d stands outside of a snapshot", f.Sequence)
	case f.SnapshotID != v.open.SnapshotID:
		return fmt.Errorf("a chunk of snapshot %d stands inside snapshot %d", f.SnapshotID, v.open.SnapshotID)
	case f.Sequence != v.chunks:
		return fmt.Errorf("chunk %d of snapshot %d comes where %d is due", f.Sequence, f.SnapshotID, v.chunks)
	case len(f.Removals) > 0 && v.open.Scope != assignment.ScopeChanges:
		return fmt.Errorf("snapshot %d replaces the set and yet removes from it", f.SnapshotID)
	}
	v.chunks++
	seen := func(id assignment.ProducerID) error {
		if v.removals[id] || v.upserts[id] != nil {
			return fmt.Errorf("producer %q stands twice in snapshot %d", id, f.SnapshotID)
		}
		return nil
	}
	for _, a := range f.Assignments {
		if err := seen(a.ProducerID); err != nil {
			return err
		}
		v.upserts[a.ProducerID] = a
	}
	for _, r := range f.Removals {
		if err := seen(r.ProducerID); err != nil {
			return err
		}
		v.removals[r.ProducerID] = true
	}
	return nil
}

func (v *verifier) end(f *assignment.End) error {
	b := v.open
	switch {
	case b == nil:
		return fmt.Errorf("the end of snapshot %d stands outside of a snapshot", f.SnapshotID)
	case f.SnapshotID != b.SnapshotID || f.Epoch != b.Epoch || f.Revision != b.Revision:
		return fmt.Errorf("snapshot %d begins at revision %d of epoch %q and ends as snapshot %d at %d of %q",
			b.SnapshotID, b.Revision, b.Epoch, f.SnapshotID, f.Revision, f.Epoch)
	case f.Chunks != v.chunks:
		return fmt.Errorf("snapshot %d has %d chunks, and its end counts %d", f.SnapshotID, v.chunks, f.Chunks)
	case f.Upserts != int64(len(v.upserts)) || b.ExpectedUpserts != f.Upserts:
		return fmt.Errorf("snapshot %d has %d assignments; its begin announced %d, its end counts %d",
			f.SnapshotID, len(v.upserts), b.ExpectedUpserts, f.Upserts)
	case f.Removals != int64(len(v.removals)):
		return fmt.Errorf("snapshot %d has %d removals, and its end counts %d", f.SnapshotID, len(v.removals), f.Removals)
	}
	if b.Scope == assignment.ScopeAll {
		v.set = assignment.Set[*assignment.Assignment]{}
	}
	for _, a := range v.upserts {
		v.set.Put(a)
	}
	for id := range v.removals {
		v.set.Remove(id)
	}
	v.open, v.epoch, v.revision = nil, f.Epoch, f.Revision
	return v.compare(fmt.Sprintf("the end of snapshot %d", f.SnapshotID), f.SetCount, f.SetDigest)
}

func (v *verifier) heartbeat(f *assignment.Heartbeat) error {
	switch {
	case v.open != nil:
		return fmt.Errorf("a heartbeat stands inside snapshot %d", v.open.SnapshotID)
	case v.epoch == "":
		return fmt.Errorf("a heartbeat comes before the first snapshot")
	case f.Epoch != v.epoch || f.Revision < v.revision:
		return fmt.Errorf("a heartbeat is of revision %d of epoch %q, and the set is of %d of %q", f.Revision, f.Epoch, v.revision, v.epoch)
	}
	v.revision = f.Revision
	return v.compare("a heartbeat", f.SetCount, f.SetDigest)
}

// compare compares the set with what a frame says that it is.
func (v *verifier) compare(who string, count int64, digest assignment.Digest) error {
	switch {
	case count != int64(v.set.Len()):
		return fmt.Errorf("%s counts %d assignments, and the set has %d", who, count, v.set.Len())
	case digest != v.set.Digest():
		return fmt.Errorf("%s says that the digest is %016x, and it is %016x", who, uint64(digest), uint64(v.set.Digest()))
	}
	return nil
}
