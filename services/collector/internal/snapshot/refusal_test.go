package snapshot_test

import (
	"maps"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/snapshot"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// Without a set there is nothing that a part could be a part of.
func TestPartsNeedAWhole(t *testing.T) {
	r, accepted := follow(t, 100)
	snapshots := step(r, accepted)
	empty := &snapshot.Accepted{}
	for _, scope := range []assignment.Scope{assignment.ScopeBuckets, assignment.ScopeChanges} {
		for _, format := range []int32{0, 1} {
			begin := with(snapshots[scope][:1], 0, func(b *assignment.Begin) { b.AssignmentFormat = format })
			_, err := add(t, snapshot.NewAssembler(empty, maxCount), empty, begin...)
			checkFault(t, err, snapshot.ReasonScope)
		}
	}
	seal(t, empty, snapshots[assignment.ScopeAll]...)
}

// Two formats in one set would hide which fields are missing where.
func TestPartsAreOfTheSetsFormat(t *testing.T) {
	for _, scope := range scopes {
		r, accepted := follow(t, 100)
		accepted.Format = 0
		sealed, err := add(t, snapshot.NewAssembler(accepted, maxCount), accepted, step(r, accepted)[scope]...)
		if scope != assignment.ScopeAll {
			checkFault(t, err, snapshot.ReasonScope)
			continue
		}
		if err != nil || len(sealed.Upserts) != len(r.members) || accepted.Format != 1 {
			t.Errorf("%v; all members have new fields: %+v", err, sealed)
		}
	}
}

// A list of buckets that makes no sense is refused as it comes, also when
// nothing is in them.
func TestBucketsOutOfRangeOrOrder(t *testing.T) {
	r, accepted := follow(t, 100)
	begin := func(bucketBits uint8, buckets ...uint32) (*snapshot.Assembler, error) {
		frames := with(r.buckets(accepted.Describe())[:1], 0, func(b *assignment.Begin) {
			b.BucketBits, b.ReplacedBuckets = bucketBits, buckets
		})
		a := snapshot.NewAssembler(accepted, maxCount)
		_, err := add(t, a, accepted, frames...)
		return a, err
	}
	for _, buckets := range [][]uint32{{4}, {0, 4}, {math.MaxUint32}, {0, 0}, {1, 2, 2}, {1, 0}, {0, 2, 1, 3}} {
		_, err := begin(2, buckets...)
		checkFault(t, err, snapshot.ReasonBuckets)
	}
	for _, bucketBits := range []uint8{17, 31, 32, 33, 64, 255} {
		_, err := begin(bucketBits)
		checkFault(t, err, snapshot.ReasonBuckets)
	}
	_, err := begin(0, 1)
	checkFault(t, err, snapshot.ReasonBuckets)
	every := make([]uint32, 1<<16)
	for i := range every {
		every[i] = uint32(i)
	}
	for bucketBits, buckets := range map[uint8][]uint32{0: {0}, 1: {0, 1}, 2: {0, 1, 2, 3}, 16: every} {
		if a, err := begin(bucketBits, buckets...); err != nil || !a.Open() {
			t.Errorf("buckets %d of %d bits: %v", len(buckets), bucketBits, err)
		}
	}
}

// An assignment that is as before changes neither count nor digest of the set.
// It is missed all the same.
func TestLostAssignmentThatChangesNothing(t *testing.T) {
	r, accepted := follow(t, 10)
	known := maps.Collect(accepted.Set.All())
	delete(known, producer(3)) // so that it is sent again
	r.revision++
	frames := r.changes(known, accepted.Revision)
	lost := with(frames, 1, func(c *assignment.Chunk) { c.Assignments = nil })
	_, err := add(t, snapshot.NewAssembler(accepted, maxCount), accepted, lost...)
	checkFault(t, err, snapshot.ReasonCount)
	if sealed := seal(t, accepted, frames...); len(sealed.Upserts) != 0 {
		t.Errorf("upserts %v", sealed.Upserts)
	}
}

func TestTooLarge(t *testing.T) {
	r, accepted := follow(t, 100)
	frames := step(r, accepted)
	for _, scope := range scopes {
		_, err := add(t, snapshot.NewAssembler(accepted, len(r.members)-1), accepted, frames[scope]...)
		checkFault(t, err, snapshot.ReasonTooLarge)
	}
	sealed, err := add(t, snapshot.NewAssembler(accepted, len(r.members)), accepted, frames[assignment.ScopeChanges]...)
	if err != nil || sealed == nil {
		t.Errorf("a set of the largest size: %v", err)
	}
}

// A snapshot that never ends is refused before it fills the memory.
func TestEndlessSnapshots(t *testing.T) {
	begin := func(r *registry, accepted *snapshot.Accepted) []assignment.Frame {
		return with(step(r, accepted)[assignment.ScopeChanges][:1], 0, func(b *assignment.Begin) { b.ExpectedUpserts = 3 })
	}
	for name, chunk := range map[string]func(i int) assignment.Chunk{
		"of empty chunks": func(int) assignment.Chunk { return assignment.Chunk{} },
		"of removals": func(i int) (c assignment.Chunk) {
			for j := range 1000 {
				c.Removals = append(c.Removals, assignment.Removal{ProducerID: producer(1000*i + j)})
			}
			return c
		},
		"of assignments": func(i int) assignment.Chunk {
			return assignment.Chunk{Assignments: []*assignment.Assignment{{ProducerID: producer(i)}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, accepted := follow(t, 10)
			a := snapshot.NewAssembler(accepted, maxCount)
			fs := begin(r, accepted)
			if _, err := a.Add(fs[0]); err != nil {
				t.Fatal(err)
			}
			for i := range 10_000 {
				c := chunk(i)
				c.SnapshotID, c.Sequence = r.snapshots, uint64(i)
				if _, err := a.Add(&c); err != nil {
					checkFault(t, err, snapshot.ReasonTooLarge)
					return
				}
			}
			t.Error("it was never refused")
		})
	}
}

// A removal of a stranger has no effect: the registry may name one that it had
// not sent yet.
func TestRemovalOfAStranger(t *testing.T) {
	r, accepted := follow(t, 10)
	base := maps.Collect(accepted.Set.All())
	r.revision++
	sealed := seal(t, accepted, r.changes(base, accepted.Revision, "x", "y")...)
	if len(sealed.Removed) != 0 || accepted.Set.Len() != 10 {
		t.Errorf("removed %v of %d", sealed.Removed, accepted.Set.Len())
	}
}

// Frames of a newer registry and go_aways mean nothing, wherever they stand.
func TestHarmlessFrames(t *testing.T) {
	for _, scope := range scopes {
		r, accepted := follow(t, 100)
		frames := step(r, accepted)[scope]
		spiced := []assignment.Frame{r.heartbeat()}
		for _, frame := range frames {
			spiced = append(spiced, &assignment.Unknown{}, &assignment.GoAway{}, nil, frame)
		}
		spiced = append(spiced, &assignment.GoAway{}, r.heartbeat(), &assignment.Unknown{}, &assignment.Heartbeat{})
		sealed := seal(t, accepted, spiced...)
		if !slices.Equal(sealed.Frames, frames) {
			t.Errorf("the snapshot's frames are told as %v", sealed.Frames)
		}
		if !sameSet(observe(accepted).members, r.members) {
			t.Error("it is another set")
		}
	}
}

// A heartbeat inside a snapshot tells the set before it, or after it: who can
// say? It is refused, equal or not.
func TestHeartbeatInsideRefused(t *testing.T) {
	for _, scope := range scopes {
		r, accepted := follow(t, 100)
		before := r.heartbeat()
		frames := step(r, accepted)[scope]
		for cut := 1; cut < len(frames); cut++ {
			for _, h := range []*assignment.Heartbeat{before, r.heartbeat(), {}} {
				_, err := add(t, snapshot.NewAssembler(accepted, maxCount), accepted, append(slices.Clone(frames[:cut]), h)...)
				checkFault(t, err, snapshot.ReasonHeartbeat)
			}
		}
	}
}

// After a fault the assembler remembers nothing of what was refused: the next
// snapshot is sealed as if it were the first.
func TestCleanAfterAFault(t *testing.T) {
	for _, scope := range scopes {
		for _, next := range scopes {
			r, accepted := follow(t, 100)
			snapshots := step(r, accepted)
			frames := snapshots[scope]
			for cut := 1; cut < len(frames); cut++ {
				own := &snapshot.Accepted{}
				seal(t, own, newRegistry(100).all()...)
				a := snapshot.NewAssembler(own, maxCount)
				_, err := add(t, a, own, append(slices.Clone(frames[:cut]), &assignment.Heartbeat{})...)
				checkFault(t, err, snapshot.ReasonHeartbeat)
				sealed, err := add(t, a, own, snapshots[next]...)
				if err != nil || sealed == nil || !slices.Equal(sealed.Frames, snapshots[next]) {
					t.Fatalf("after a fault: %v, %v", sealed, err)
				}
			}
		}
	}
}

func TestAgrees(t *testing.T) {
	r, accepted := follow(t, 10)
	for _, tc := range []struct {
		what   string
		change func(*assignment.Heartbeat)
		want   bool
	}{
		{"equal", func(*assignment.Heartbeat) {}, true},
		{"later", func(h *assignment.Heartbeat) { h.Revision++ }, true},
		{"earlier", func(h *assignment.Heartbeat) { h.Revision-- }, false},
		{"another epoch", func(h *assignment.Heartbeat) { h.Epoch = "epoch-2" }, false},
		{"another count", func(h *assignment.Heartbeat) { h.SetCount++ }, false},
		{"another digest", func(h *assignment.Heartbeat) { h.SetDigest++ }, false},
		{"an empty set", func(h *assignment.Heartbeat) { h.SetCount, h.SetDigest = 0, 0 }, false},
		{"another server time", func(h *assignment.Heartbeat) { h.ServerTime = time.Unix(1, 0) }, true},
		{"another acknowledgement", func(h *assignment.Heartbeat) { h.AcknowledgedRevision = 1 }, true},
	} {
		h := r.heartbeat()
		tc.change(h)
		if got := accepted.Agrees(h); got != tc.want {
			t.Errorf("%s: %v", tc.what, got)
		}
	}
	// Before the first seal there is nothing to agree with.
	if (&snapshot.Accepted{}).Agrees(&assignment.Heartbeat{}) {
		t.Error("nothing agrees with nothing")
	}
}

func TestDescribe(t *testing.T) {
	if d := (&snapshot.Accepted{}).Describe(); d != nil {
		t.Errorf("before the first seal: %+v", d)
	}
	for n, bits := range map[int]uint8{0: 0, 64: 0, 65: 1, 300: 3} {
		r, accepted := follow(t, n)
		d := accepted.Describe()
		if d.Epoch != r.epoch || d.Revision != r.revision || d.SetCount != int64(n) || d.SetDigest != digestOf(r.members) ||
			d.BucketBits != bits || len(d.BucketDigests) != 1<<bits || d.AssignmentFormat != 1 {
			t.Errorf("%d members are described as %+v", n, d)
		}
		if frames := r.buckets(d); len(frames) != 2 {
			t.Errorf("%d members: the registry finds a difference: %+v", n, frames[0])
		}
	}
}
