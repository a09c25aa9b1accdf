package snapshot_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/snapshot"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"pgregory.net/rapid"
)

const maxCount = 1000

// members is a set as plain as can be.
type members = map[assignment.ProducerID]*assignment.Assignment

// A registry is a model of the other end of the stream: a map and a revision.
type registry struct {
	epoch    assignment.Epoch
	revision assignment.Revision
	members  members

	// perChunk is how many items go into a chunk.
	perChunk  int
	snapshots uint64
}

func newRegistry(n int) *registry {
	r := &registry{epoch: "epoch-1", revision: 10, members: members{}, perChunk: 60}
	for i := range n {
		id := producer(i)
		r.members[id] = &assignment.Assignment{ProducerID: id, Version: assignment.Version(i + 1), Role: assignment.RoleOwner}
	}
	return r
}

func producer(i int) assignment.ProducerID {
	return assignment.ProducerID(fmt.Sprintf("producer-%d", i))
}

// put adds or updates one producer, and remove takes one off.
func (r *registry) put(id assignment.ProducerID, version assignment.Version, role assignment.Role) {
	r.revision++
	r.members[id] = &assignment.Assignment{ProducerID: id, Version: version, Role: role}
}

func (r *registry) remove(id assignment.ProducerID) {
	r.revision++
	delete(r.members, id)
}

func digestOf(ms members) assignment.Digest {
	var d assignment.Digest
	for _, m := range ms {
		d += assignment.Digest(m.Hash())
	}
	return d
}

// all is a snapshot of scope ALL.
func (r *registry) all() []assignment.Frame {
	return r.frames(assignment.Begin{Scope: assignment.ScopeAll}, r.members, nil)
}

// buckets is a snapshot of the buckets that differ from what a collector has
// told.
func (r *registry) buckets(told *assignment.Accepted) []assignment.Frame {
	begin := assignment.Begin{Scope: assignment.ScopeBuckets, BucketBits: told.BucketBits}
	mine := make([]assignment.Digest, 1<<told.BucketBits)
	for id, m := range r.members {
		mine[assignment.Bucket(id, told.BucketBits)] += assignment.Digest(m.Hash())
	}
	for i, d := range mine {
		if d != told.BucketDigests[i] {
			begin.ReplacedBuckets = append(begin.ReplacedBuckets, uint32(i))
		}
	}
	upserts := members{}
	for id, m := range r.members {
		if slices.Contains(begin.ReplacedBuckets, assignment.Bucket(id, told.BucketBits)) {
			upserts[id] = m
		}
	}
	return r.frames(begin, upserts, nil)
}

// changes is a snapshot of what differs from a set that the registry has sent.
// Some removals may name producers that the collector never had.
func (r *registry) changes(base members, revision assignment.Revision, strangers ...assignment.ProducerID) []assignment.Frame {
	upserts := members{}
	for id, m := range r.members {
		if old, ok := base[id]; !ok || old.Hash() != m.Hash() {
			upserts[id] = m
		}
	}
	gone := maps.Clone(base)
	for _, id := range strangers {
		gone[id] = nil
	}
	var removals []assignment.Removal
	for _, id := range slices.Sorted(maps.Keys(gone)) {
		if _, stays := r.members[id]; !stays {
			removals = append(removals, assignment.Removal{ProducerID: id, Cause: assignment.CauseDeregistered, Revision: r.revision})
		}
	}
	return r.frames(assignment.Begin{Scope: assignment.ScopeChanges, BaseRevision: revision}, upserts, removals)
}

// frames completes a snapshot.
func (r *registry) frames(begin assignment.Begin, upserts members, removals []assignment.Removal) []assignment.Frame {
	r.snapshots++
	begin.SnapshotID, begin.SubscriptionID, begin.AssignmentFormat = r.snapshots, "subscription", 1
	begin.Epoch, begin.Revision, begin.ExpectedUpserts = r.epoch, r.revision, int64(len(upserts))
	frames := []assignment.Frame{&begin}
	var chunks []*assignment.Chunk
	room := func() *assignment.Chunk {
		if n := len(chunks); n > 0 && len(chunks[n-1].Assignments)+len(chunks[n-1].Removals) < r.perChunk {
			return chunks[n-1]
		}
		c := &assignment.Chunk{SnapshotID: r.snapshots, Sequence: uint64(len(chunks))}
		chunks, frames = append(chunks, c), append(frames, c)
		return c
	}
	for _, removal := range removals {
		c := room()
		c.Removals = append(c.Removals, removal)
	}
	for _, id := range slices.Sorted(maps.Keys(upserts)) {
		c := room()
		c.Assignments = append(c.Assignments, upserts[id])
	}
	return append(frames, &assignment.End{
		SnapshotID: r.snapshots, Epoch: r.epoch, Revision: r.revision,
		Chunks: uint64(len(chunks)), Upserts: int64(len(upserts)), Removals: int64(len(removals)),
		SetCount: int64(len(r.members)), SetDigest: digestOf(r.members),
	})
}

func (r *registry) heartbeat() *assignment.Heartbeat {
	return &assignment.Heartbeat{Epoch: r.epoch, Revision: r.revision, SetCount: int64(len(r.members)), SetDigest: digestOf(r.members)}
}

// A state is all that can be seen of an accepted set.
type state struct {
	snapshot.Position
	format  int32
	count   int
	digest  assignment.Digest
	members members
}

func observe(a *snapshot.Accepted) state {
	return state{a.Position, a.Format, a.Set.Len(), a.Set.Digest(), maps.Collect(a.Set.All())}
}

func (s state) equal(o state) bool {
	return s.Position == o.Position && s.format == o.format && s.count == o.count && s.digest == o.digest && maps.Equal(s.members, o.members)
}

// checkUntouched checks that an accepted set is as it was.
func checkUntouched(t rapid.TB, a *snapshot.Accepted, before state) {
	t.Helper()
	if after := observe(a); !after.equal(before) {
		t.Fatalf("the accepted set has changed: %d members at %v, before %d at %v", after.count, after.Position, before.count, before.Position)
	}
}

// staged is the one rule of the protocol, for all scopes: the accepted set
// without the replaced buckets, plus the assignments, minus the removals.
func staged(before members, frames []assignment.Frame) members {
	set := members{}
	begin, _ := frames[0].(*assignment.Begin)
	for id, m := range before {
		switch {
		case begin.Scope == assignment.ScopeChanges,
			begin.Scope == assignment.ScopeBuckets && !slices.Contains(begin.ReplacedBuckets, assignment.Bucket(id, begin.BucketBits)):
			set[id] = m
		}
	}
	for _, frame := range frames {
		if c, ok := frame.(*assignment.Chunk); ok {
			for _, m := range c.Assignments {
				set[m.ProducerID] = m
			}
			for _, removal := range c.Removals {
				delete(set, removal.ProducerID)
			}
		}
	}
	return set
}

// sameSet compares sets as the digest does.
func sameSet(a, b members) bool {
	return maps.EqualFunc(a, b, func(x, y *assignment.Assignment) bool {
		return x.ProducerID == y.ProducerID && x.Version == y.Version && x.Role == y.Role
	})
}

// checkSealed checks a sealed snapshot against the set before it, its frames,
// and the set after it.
func checkSealed(t rapid.TB, before state, sealed *snapshot.Sealed, a *snapshot.Accepted) {
	t.Helper()
	after := observe(a)
	begin, ok := sealed.Frames[0].(*assignment.Begin)
	end, ok2 := sealed.Frames[len(sealed.Frames)-1].(*assignment.End)
	if !ok || !ok2 {
		t.Fatalf("the frames of a snapshot: %v", sealed.Frames)
	}
	want := staged(before.members, sealed.Frames)
	if !sameSet(after.members, want) {
		t.Fatalf("the set is %v, want %v", after.members, want)
	}
	if after.count != len(want) || after.digest != digestOf(want) || end.SetCount != int64(len(want)) || end.SetDigest != digestOf(want) {
		t.Fatalf("%d members, digest %x, of %d with %x; told %d, %x", after.count, after.digest, len(want), digestOf(want), end.SetCount, end.SetDigest)
	}
	position := snapshot.Position{Epoch: begin.Epoch, Revision: begin.Revision}
	if sealed.Position != position || after.Position != position || after.format != begin.AssignmentFormat || sealed.Scope != begin.Scope ||
		sealed.SnapshotID != begin.SnapshotID || sealed.SubscriptionID != begin.SubscriptionID {
		t.Fatalf("sealed %+v, want the position %v", sealed, position)
	}
	if changed := before.Epoch != "" && before.Epoch != begin.Epoch; sealed.EpochChanged != changed {
		t.Fatalf("epoch %q after %q, changed: %v", begin.Epoch, before.Epoch, sealed.EpochChanged)
	}
	checkDifference(t, before, sealed, after)
}

// checkDifference checks that upserts, removed, absent and gone are exactly what
// has changed.
func checkDifference(t rapid.TB, before state, sealed *snapshot.Sealed, after state) {
	t.Helper()
	named := map[assignment.ProducerID]assignment.Removal{}
	upserts, absent, removed := members{}, members{}, map[assignment.ProducerID]assignment.Removal{}
	for _, frame := range sealed.Frames {
		if c, ok := frame.(*assignment.Chunk); ok {
			for _, m := range c.Assignments {
				if old, had := before.members[m.ProducerID]; !had || old.Hash() != m.Hash() || before.format != after.format {
					upserts[m.ProducerID] = m
				}
			}
			for _, r := range c.Removals {
				named[r.ProducerID] = r
			}
		}
	}
	var gone int
	for id, m := range before.members {
		if _, stays := after.members[id]; !stays {
			gone++
			if !slices.Contains(sealed.Gone, m) {
				t.Fatalf("%q has left and is not told as gone", id)
			}
			if r, ok := named[id]; ok {
				removed[id] = r
			} else {
				absent[id] = m
			}
		}
	}
	if len(sealed.Upserts) != len(upserts) || len(sealed.Removed) != len(removed) || len(sealed.Absent) != len(absent) || len(sealed.Gone) != gone {
		t.Fatalf("%d upserts, %d removed, %d absent, %d gone; want %d, %d, %d, %d", len(sealed.Upserts), len(sealed.Removed), len(sealed.Absent),
			len(sealed.Gone), len(upserts), len(removed), len(absent), gone)
	}
	for _, m := range sealed.Upserts {
		if upserts[m.ProducerID] != m || after.members[m.ProducerID] != m {
			t.Fatalf("%q is upserted", m.ProducerID)
		}
		delete(upserts, m.ProducerID)
	}
	for _, r := range sealed.Removed {
		if want, ok := removed[r.ProducerID]; !ok || want != r {
			t.Fatalf("%+v is removed, want %+v", r, want)
		}
		delete(removed, r.ProducerID)
	}
	for _, id := range sealed.Absent {
		if _, ok := absent[id]; !ok {
			t.Fatalf("%q is absent", id)
		}
		delete(absent, id)
	}
}

func checkFault(t rapid.TB, err error, reason string) {
	t.Helper()
	_ = faultOf(t, err, reason)
}

// faultOf checks that an error is a fault with this reason, and returns it.
func faultOf(t rapid.TB, err error, reason string) *snapshot.Fault {
	t.Helper()
	var fault *snapshot.Fault
	if !errors.As(err, &fault) {
		t.Fatalf("the error is %v (%T), want a fault for %s", err, err, reason)
	}
	if fault.Reason != reason || fault.Message == "" || err.Error() != "snapshot refused: "+reason+": "+fault.Message {
		t.Fatalf("%v, want %s", err, reason)
	}
	return fault
}

// add gives frames to an assembler until one is refused. After every frame that
// seals nothing the accepted set must be as before; after one that does, as
// told.
func add(t rapid.TB, a *snapshot.Assembler, accepted *snapshot.Accepted, frames ...assignment.Frame) (*snapshot.Sealed, error) {
	t.Helper()
	var last *snapshot.Sealed
	for _, frame := range frames {
		before := observe(accepted)
		sealed, err := a.Add(frame)
		switch {
		case err != nil:
			checkUntouched(t, accepted, before)
			if sealed != nil || a.Open() {
				t.Fatalf("after a fault: sealed %v, open %v", sealed, a.Open())
			}
			return last, err
		case sealed != nil:
			checkSealed(t, before, sealed, accepted)
			if a.Open() {
				t.Fatal("a sealed snapshot is still open")
			}
			last = sealed
		default:
			checkUntouched(t, accepted, before)
		}
	}
	return last, nil
}

// seal is add for frames that must be sealed.
func seal(t rapid.TB, accepted *snapshot.Accepted, frames ...assignment.Frame) *snapshot.Sealed {
	t.Helper()
	sealed, err := add(t, snapshot.NewAssembler(accepted, maxCount), accepted, frames...)
	if err != nil || sealed == nil {
		t.Fatalf("sealed %v, %v", sealed, err)
	}
	return sealed
}

// follow makes a registry with n producers, and a collector that has them.
func follow(t rapid.TB, n int) (*registry, *snapshot.Accepted) {
	t.Helper()
	r, accepted := newRegistry(n), &snapshot.Accepted{}
	seal(t, accepted, r.all()...)
	return r, accepted
}

// step changes a registry of at least three producers a little, and returns
// the snapshots that tell a follower: one of each scope.
func step(r *registry, accepted *snapshot.Accepted) map[assignment.Scope][]assignment.Frame {
	base := maps.Collect(accepted.Set.All())
	r.put(producer(0), 1<<40, assignment.RoleOwner)
	r.remove(producer(1))
	r.put("new", 7, assignment.RoleOwner)
	r.put(producer(2), r.members[producer(2)].Version, 2)
	r.perChunk = max(2, len(base)/8)
	snapshots := map[assignment.Scope][]assignment.Frame{
		assignment.ScopeAll:     r.all(),
		assignment.ScopeBuckets: r.buckets(accepted.Describe()),
	}
	r.perChunk = 3 // so that a chunk has both removals and assignments
	snapshots[assignment.ScopeChanges] = r.changes(base, accepted.Revision, "stranger")
	return snapshots
}

// with returns the frames with one replaced by a changed copy of it.
func with[F any, P interface {
	*F
	assignment.Frame
}](frames []assignment.Frame, i int, change func(P)) []assignment.Frame {
	changed := slices.Clone(frames)
	f, _ := frames[i].(P)
	copied := *f
	change(&copied)
	changed[i] = P(&copied)
	return changed
}
