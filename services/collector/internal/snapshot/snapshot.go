// Package snapshot turns the frames of an assignment stream into sealed
// changes of the accepted set.
//
// Its invariant: the accepted set changes only at an end frame that agrees with
// everything before it, and then as a whole. Whatever breaks off, or does not
// agree, leaves no trace.
package snapshot

import "github.com/rollcall-metrics/rollcall/services/internal/assignment"

// A Position is where in the registry's history a set stands.
type Position struct {
	Epoch    assignment.Epoch
	Revision assignment.Revision
}

// A Sealed is a complete and verified snapshot, told as what it changed.
type Sealed struct {
	Position
	SnapshotID     uint64
	SubscriptionID string
	Scope          assignment.Scope

	// EpochChanged tells that the accepted set before was of another epoch.
	EpochChanged bool

	// Upserts are the members that are new or have another version or role, or
	// all that were sent when the assignment format has changed.
	Upserts []*assignment.Assignment

	// Removed are former members that the snapshot names.
	Removed []assignment.Removal

	// Absent are former members that the snapshot does not name: they were in
	// a replaced part and are not there any more.
	Absent []assignment.ProducerID

	// Gone are the former members themselves: Removed and Absent.
	Gone []*assignment.Assignment

	// Frames are the frames of the snapshot, from begin to end.
	Frames []assignment.Frame
}

// Accepted is the mirror of the last sealed set. It changes by Assembler.Add
// only. The zero value is the set before the first seal.
type Accepted struct {
	Position
	Format int32
	Set    assignment.Set[*assignment.Assignment]

	// bytes is about what the members take.
	bytes int
}

// Describe tells a registry what this set holds; nil before the first seal.
func (a *Accepted) Describe() *assignment.Accepted {
	if a.Epoch == "" {
		return nil
	}
	bits := assignment.BucketBits(a.Set.Len())
	return &assignment.Accepted{
		Epoch:            a.Epoch,
		Revision:         a.Revision,
		SetCount:         int64(a.Set.Len()),
		SetDigest:        a.Set.Digest(),
		BucketBits:       bits,
		BucketDigests:    a.Set.BucketDigests(bits),
		AssignmentFormat: a.Format,
	}
}

// Agrees reports whether a heartbeat tells the same set, at a revision not
// before it. Before the first seal none does.
func (a *Accepted) Agrees(h *assignment.Heartbeat) bool {
	return a.Epoch != "" && h.Epoch == a.Epoch && h.Revision >= a.Revision &&
		h.SetCount == int64(a.Set.Len()) && h.SetDigest == a.Set.Digest()
}

// An Assembler takes the frames of one stream. Start a new one for each.
type Assembler struct {
	accepted *Accepted
	max      int

	// MaxBytes, if set, bounds what the assignments of a snapshot take, and
	// those of the set that it makes: their number alone bounds nothing, for one
	// may be as large as a chunk.
	MaxBytes int

	// Admit, if set, is asked before a snapshot that agrees with its end frame
	// is sealed. What it says against it, if anything, refuses the snapshot.
	Admit func(*Sealed) string

	open     *assignment.Begin
	frames   []assignment.Frame
	chunks   uint64
	bytes    int
	upserts  map[assignment.ProducerID]*assignment.Assignment
	removals map[assignment.ProducerID]assignment.Removal
	replaced map[uint32]bool
}

// NewAssembler makes an assembler for one stream. It alone may change accepted
// while it is in use. A snapshot that makes more than maxCount members is
// refused.
func NewAssembler(accepted *Accepted, maxCount int) *Assembler {
	return &Assembler{accepted: accepted, max: maxCount}
}

// Open reports whether a snapshot has begun and not ended.
func (a *Assembler) Open() bool { return a.open != nil }

// Add takes the next frame. It returns what was sealed when the frame seals a
// snapshot; the accepted set has then changed. An error is a *Fault.
//
// Heartbeats are only checked for their place: Accepted.Agrees compares them.
func (a *Assembler) Add(frame assignment.Frame) (*Sealed, error) {
	switch f := frame.(type) {
	case *assignment.Begin:
		return nil, a.begin(f)
	case *assignment.Chunk:
		return nil, a.chunk(f)
	case *assignment.End:
		return a.end(f)
	case *assignment.Heartbeat:
		if a.open != nil {
			return nil, a.fault(ReasonHeartbeat, "a heartbeat inside snapshot %d", a.open.SnapshotID)
		}
	}
	return nil, nil
}

func (a *Assembler) begin(f *assignment.Begin) error {
	if a.open != nil {
		return a.fault(ReasonNested, "snapshot %d begins inside %d", f.SnapshotID, a.open.SnapshotID)
	}
	a.open, a.chunks, a.bytes = f, 0, 0
	a.frames = append(a.frames[:0:0], f)
	a.upserts = make(map[assignment.ProducerID]*assignment.Assignment, max(0, min(f.ExpectedUpserts, maxRoom)))
	a.removals = map[assignment.ProducerID]assignment.Removal{}
	a.replaced = nil
	if f.Epoch == "" || f.Revision <= 0 {
		return a.fault(ReasonRevision, "epoch %q, revision %d", f.Epoch, f.Revision)
	}
	if f.Epoch == a.accepted.Epoch && f.Revision < a.accepted.Revision {
		return a.fault(ReasonRevision, "revision %d is older than the accepted %d", f.Revision, a.accepted.Revision)
	}
	if f.ExpectedUpserts < 0 || f.ExpectedUpserts > int64(a.max) {
		return a.fault(ReasonTooLarge, "%d assignments, at most %d are taken", f.ExpectedUpserts, a.max)
	}
	return a.checkScope(f)
}

// maxRoom is for how many assignments room is made because they are announced.
const maxRoom = 100_000

func (a *Assembler) checkScope(f *assignment.Begin) error {
	switch f.Scope {
	case assignment.ScopeAll:
	case assignment.ScopeChanges, assignment.ScopeBuckets:
		if a.accepted.Epoch == "" {
			return a.fault(ReasonScope, "scope %d without a set to build on", f.Scope)
		}
		if f.Scope == assignment.ScopeChanges && (f.Epoch != a.accepted.Epoch || f.BaseRevision > a.accepted.Revision) {
			return a.fault(ReasonScope, "changes to revision %d of epoch %q, the set is at %d of %q",
				f.BaseRevision, f.Epoch, a.accepted.Revision, a.accepted.Epoch)
		}
		if f.AssignmentFormat != a.accepted.Format {
			return a.fault(ReasonScope, "scope %d in format %d, the set is of format %d", f.Scope, f.AssignmentFormat, a.accepted.Format)
		}
	default:
		return a.fault(ReasonScope, "scope %d is not known", f.Scope)
	}
	if f.Scope != assignment.ScopeBuckets {
		if len(f.ReplacedBuckets) > 0 {
			return a.fault(ReasonBuckets, "buckets in scope %d", f.Scope)
		}
		return nil
	}
	if f.BucketBits > assignment.MaxBucketBits {
		return a.fault(ReasonBuckets, "%d bucket bits", f.BucketBits)
	}
	a.replaced = make(map[uint32]bool, min(len(f.ReplacedBuckets), 1<<f.BucketBits))
	for i, b := range f.ReplacedBuckets {
		if b >= 1<<f.BucketBits || i > 0 && b <= f.ReplacedBuckets[i-1] {
			return a.fault(ReasonBuckets, "bucket %d is out of range or order", b)
		}
		a.replaced[b] = true
	}
	return nil
}

func (a *Assembler) chunk(f *assignment.Chunk) error {
	switch {
	case a.open == nil:
		return a.fault(ReasonOutside, "chunk %d outside a snapshot", f.Sequence)
	case f.SnapshotID != a.open.SnapshotID:
		return a.fault(ReasonSnapshotID, "a chunk of snapshot %d inside %d", f.SnapshotID, a.open.SnapshotID)
	case f.Sequence != a.chunks:
		return a.fault(ReasonSequence, "chunk %d where %d is due", f.Sequence, a.chunks)
	case len(f.Removals) > 0 && a.open.Scope != assignment.ScopeChanges:
		return a.fault(ReasonRemoval, "a removal in scope %d", a.open.Scope)
	}
	a.chunks++
	for _, m := range f.Assignments {
		if err := a.upsert(m); err != nil {
			return err
		}
	}
	for _, r := range f.Removals {
		if err := a.remove(r); err != nil {
			return err
		}
	}
	if a.chunks > uint64(len(a.upserts)+len(a.removals)+maxEmptyChunks) {
		return a.fault(ReasonTooLarge, "%d chunks with %d assignments and %d removals", a.chunks, len(a.upserts), len(a.removals))
	}
	a.frames = append(a.frames, f)
	return nil
}

// maxEmptyChunks is how many chunks of nothing are put up with, as they are
// kept until the end.
const maxEmptyChunks = 1000

func (a *Assembler) upsert(m *assignment.Assignment) error {
	if m == nil || m.ProducerID == "" {
		return a.fault(ReasonMalformed, "an assignment without a producer")
	}
	id := m.ProducerID
	if _, twice := a.upserts[id]; twice {
		return a.producerFault(ReasonRepeated, id, "stands twice")
	}
	if _, removed := a.removals[id]; removed {
		return a.producerFault(ReasonRepeated, id, "is both removed and assigned")
	}
	if a.replaced != nil && !a.replaced[assignment.Bucket(id, a.open.BucketBits)] {
		return a.producerFault(ReasonBuckets, id, "is not in a replaced bucket")
	}
	if int64(len(a.upserts)) >= a.open.ExpectedUpserts {
		return a.fault(ReasonTooLarge, "more than the %d assignments announced", a.open.ExpectedUpserts)
	}
	if a.bytes += sizeOf(m); a.MaxBytes > 0 && a.bytes > a.MaxBytes {
		return a.fault(ReasonTooLarge, "%d assignments take %d bytes, at most %d are taken", len(a.upserts)+1, a.bytes, a.MaxBytes)
	}
	a.upserts[id] = m
	return nil
}

func (a *Assembler) remove(r assignment.Removal) error {
	id := r.ProducerID
	if id == "" {
		return a.fault(ReasonMalformed, "a removal without a producer")
	}
	if _, twice := a.removals[id]; twice {
		return a.producerFault(ReasonRepeated, id, "is removed twice")
	}
	if _, assigned := a.upserts[id]; assigned {
		return a.producerFault(ReasonRepeated, id, "is both assigned and removed")
	}
	if len(a.removals) >= maxRemovalsOver+a.accepted.Set.Len() {
		return a.fault(ReasonTooLarge, "%d removals from a set of %d", len(a.removals)+1, a.accepted.Set.Len())
	}
	a.removals[id] = r
	return nil
}

// maxRemovalsOver is how many removals of producers that are not in the set are
// put up with: a registry may name some whose assignment it had not sent yet.
const maxRemovalsOver = 100_000

func (a *Assembler) end(f *assignment.End) (*Sealed, error) {
	b := a.open
	switch {
	case b == nil:
		return nil, a.fault(ReasonOutside, "end of snapshot %d outside a snapshot", f.SnapshotID)
	case f.SnapshotID != b.SnapshotID:
		return nil, a.fault(ReasonSnapshotID, "end of snapshot %d inside %d", f.SnapshotID, b.SnapshotID)
	case f.Epoch != b.Epoch:
		return nil, a.fault(ReasonEpoch, "begun in epoch %q, ended in %q", b.Epoch, f.Epoch)
	case f.Revision != b.Revision:
		return nil, a.fault(ReasonRevision, "begun at revision %d, ended at %d", b.Revision, f.Revision)
	case f.Chunks != a.chunks:
		return nil, a.fault(ReasonCount, "%d chunks, the end frame counts %d", a.chunks, f.Chunks)
	case f.Upserts != int64(len(a.upserts)) || f.Upserts != b.ExpectedUpserts:
		return nil, a.fault(ReasonCount, "%d assignments, announced %d, the end frame counts %d", len(a.upserts), b.ExpectedUpserts, f.Upserts)
	case f.Removals != int64(len(a.removals)):
		return nil, a.fault(ReasonCount, "%d removals, the end frame counts %d", len(a.removals), f.Removals)
	}
	sealed := a.stage()
	count, digest := a.outcome(sealed)
	if count > a.max {
		return nil, a.fault(ReasonTooLarge, "the set would have %d members, at most %d are taken", count, a.max)
	}
	if int64(count) != f.SetCount {
		return nil, a.fault(ReasonCount, "the set would have %d members, the end frame counts %d", count, f.SetCount)
	}
	if digest != f.SetDigest {
		return nil, a.fault(ReasonDigest, "the set's digest would be %016x, the end frame says %016x", uint64(digest), uint64(f.SetDigest))
	}
	if size := a.size(sealed); a.MaxBytes > 0 && size > a.MaxBytes {
		return nil, a.fault(ReasonTooLarge, "the set would take %d bytes, at most %d are taken", size, a.MaxBytes)
	}
	if a.Admit != nil {
		if objection := a.Admit(sealed); objection != "" {
			return nil, a.fault(ReasonTooLarge, "%s", objection)
		}
	}
	a.commit(sealed)
	sealed.Frames = append(a.frames, f)
	a.open, a.frames, a.upserts, a.removals, a.replaced = nil, nil, nil, nil, nil
	return sealed, nil
}

// stage works out what the open snapshot changes, without changing anything:
// the result.
func (a *Assembler) stage() *Sealed {
	b, set := a.open, &a.accepted.Set
	s := &Sealed{
		Position:       Position{b.Epoch, b.Revision},
		SnapshotID:     b.SnapshotID,
		SubscriptionID: b.SubscriptionID,
		Scope:          b.Scope,
		EpochChanged:   a.accepted.Epoch != "" && a.accepted.Epoch != b.Epoch,
	}
	if set.Len() == 0 {
		s.Upserts = make([]*assignment.Assignment, 0, len(a.upserts))
	}
	// A set of another format was decoded without fields that count now.
	reformed := a.accepted.Format != b.AssignmentFormat
	for m := range a.assigned { // in their order, as they are in memory
		if old, had := set.HashOf(m.ProducerID); !had || reformed || old != m.Hash() {
			s.Upserts = append(s.Upserts, m)
		}
	}
	for id, r := range a.removals {
		if was, had := set.Find(id); had {
			s.Removed = append(s.Removed, r)
			s.Gone = append(s.Gone, was)
		}
	}
	if b.Scope != assignment.ScopeChanges && (b.Scope == assignment.ScopeAll || len(a.replaced) > 0) {
		for id, was := range set.All() {
			if a.replaced != nil && !a.replaced[assignment.Bucket(id, b.BucketBits)] {
				continue
			}
			if _, stays := a.upserts[id]; !stays {
				s.Absent = append(s.Absent, id)
				s.Gone = append(s.Gone, was)
			}
		}
	}
	return s
}
