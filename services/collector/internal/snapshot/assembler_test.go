package snapshot_test

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/snapshot"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

var scopes = []assignment.Scope{assignment.ScopeAll, assignment.ScopeBuckets, assignment.ScopeChanges}

// SealExact: a snapshot of any scope makes the set the registry's own.
func TestSealExact(t *testing.T) {
	for _, scope := range scopes {
		for _, n := range []int{3, 64, 65, 300} {
			t.Run(fmt.Sprintf("scope %d of %d", scope, n), func(t *testing.T) {
				r, accepted := follow(t, n)
				sealed := seal(t, accepted, step(r, accepted)[scope]...)
				if after := observe(accepted); !sameSet(after.members, r.members) || after.Revision != r.revision || after.Epoch != r.epoch {
					t.Fatalf("%v at %v, want %v at %d", after.members, after.Position, r.members, r.revision)
				}
				if len(sealed.Upserts) != 3 || len(sealed.Removed)+len(sealed.Absent) != 1 {
					t.Errorf("%d upserts, removed %v, absent %v", len(sealed.Upserts), sealed.Removed, sealed.Absent)
				}
				if named := scope == assignment.ScopeChanges; named != (len(sealed.Removed) == 1) {
					t.Errorf("removed %v", sealed.Removed)
				}
				if !accepted.Agrees(r.heartbeat()) {
					t.Error("the registry's heartbeat does not agree")
				}
			})
		}
	}
}

// Nothing differs: a snapshot without bucket or chunk proves it.
func TestSealWithoutDifference(t *testing.T) {
	r, accepted := follow(t, 300)
	before := observe(accepted)
	r.revision += 5
	frames := r.buckets(accepted.Describe())
	if len(frames) != 2 {
		t.Fatalf("%d frames", len(frames))
	}
	sealed := seal(t, accepted, frames...)
	if len(sealed.Upserts)+len(sealed.Removed)+len(sealed.Absent) != 0 || accepted.Revision != r.revision {
		t.Errorf("%+v at %d", sealed, accepted.Revision)
	}
	if !maps.Equal(observe(accepted).members, before.members) {
		t.Error("members were exchanged")
	}
	sealed = seal(t, accepted, r.all()...)
	if len(sealed.Upserts)+len(sealed.Removed)+len(sealed.Absent) != 0 {
		t.Errorf("%+v", sealed)
	}
}

// An empty set is sealed as any other: who is absent is told, and holding them
// is the guard's part.
func TestSealOfAnEmptySetTellsWhoIsAbsent(t *testing.T) {
	_, accepted := follow(t, 100)
	empty := newRegistry(0)
	empty.epoch = "epoch-2"
	sealed := seal(t, accepted, empty.all()...)
	if len(sealed.Absent) != 100 || len(sealed.Removed) != 0 || !sealed.EpochChanged {
		t.Errorf("%d absent, %d removed, epoch changed %v", len(sealed.Absent), len(sealed.Removed), sealed.EpochChanged)
	}
	if accepted.Set.Len() != 0 || accepted.Describe() == nil {
		t.Errorf("%d members, described as %v", accepted.Set.Len(), accepted.Describe())
	}
}

// AtomicApply: nothing shows before the end frame, and then everything does.
func TestAtomicApply(t *testing.T) {
	for _, scope := range scopes {
		t.Run(fmt.Sprintf("scope %d", scope), func(t *testing.T) {
			r, accepted := follow(t, 300)
			frames := step(r, accepted)[scope]
			if len(frames) < 4 {
				t.Fatalf("only %d frames", len(frames))
			}
			before := observe(accepted)
			a := snapshot.NewAssembler(accepted, maxCount)
			for _, frame := range frames[:len(frames)-1] {
				sealed, err := a.Add(frame)
				if sealed != nil || err != nil || !a.Open() {
					t.Fatalf("%T: %v, %v, open %v", frame, sealed, err, a.Open())
				}
				checkUntouched(t, accepted, before)
			}
			sealed, err := a.Add(frames[len(frames)-1])
			if err != nil || sealed == nil || a.Open() {
				t.Fatalf("%v, %v", sealed, err)
			}
			checkSealed(t, before, sealed, accepted)
			if !slices.Equal(sealed.Frames, frames) {
				t.Error("the frames are not told as they came")
			}
		})
	}
}

// NoImplicitEnd: no frame but an end seals, however complete everything is.
func TestNoImplicitEnd(t *testing.T) {
	for _, scope := range scopes {
		r, accepted := follow(t, 100)
		frames := step(r, accepted)[scope]
		complete := frames[:len(frames)-1]
		before := observe(accepted)
		for reason, next := range map[string]assignment.Frame{
			"":                       &assignment.Unknown{},
			snapshot.ReasonHeartbeat: r.heartbeat(), // it even tells the digest
			snapshot.ReasonNested:    r.all()[0],
			snapshot.ReasonSequence:  complete[1],
		} {
			a := snapshot.NewAssembler(accepted, maxCount)
			sealed, err := add(t, a, accepted, append(slices.Clone(complete), next)...)
			if sealed != nil {
				t.Fatalf("%T seals", next)
			}
			if reason != "" {
				checkFault(t, err, reason)
			} else if err != nil || !a.Open() {
				t.Errorf("%v, open %v", err, a.Open())
			}
			checkUntouched(t, accepted, before)
		}
	}
}

// OneBadItemRefusesAll: wherever one item is bad, no other is applied.
func TestOneBadItemRefusesAll(t *testing.T) {
	for _, scope := range scopes {
		r, accepted := follow(t, 20)
		frames := step(r, accepted)[scope]
		for i, frame := range frames {
			chunk, ok := frame.(*assignment.Chunk)
			if !ok {
				continue
			}
			for j, m := range chunk.Assignments {
				for name, bad := range map[string]*assignment.Assignment{
					snapshot.ReasonMalformed: nil,
					"no id":                  {},
					snapshot.ReasonDigest:    {ProducerID: m.ProducerID, Version: m.Version + 1, Role: m.Role},
					"another role":           {ProducerID: m.ProducerID, Version: m.Version, Role: m.Role + 1},
				} {
					changed := with(frames, i, func(c *assignment.Chunk) {
						c.Assignments = slices.Clone(c.Assignments)
						c.Assignments[j] = bad
					})
					before := observe(accepted)
					sealed, err := add(t, snapshot.NewAssembler(accepted, maxCount), accepted, changed...)
					reason := snapshot.ReasonDigest
					if bad == nil || bad.ProducerID == "" {
						reason = snapshot.ReasonMalformed
					}
					if fault := faultOf(t, err, reason); sealed != nil || fault.Revision != r.revision {
						t.Fatalf("%s: sealed %v, fault %+v", name, sealed, fault)
					}
					checkUntouched(t, accepted, before)
				}
			}
		}
		seal(t, accepted, frames...)
	}
}

// NestedBeginRefused: a begin inside an open snapshot refuses that one, and is
// none itself.
func TestNestedBeginRefused(t *testing.T) {
	for _, scope := range scopes {
		r, accepted := follow(t, 100)
		frames := step(r, accepted)[scope]
		all := r.all()
		for cut := 1; cut < len(frames); cut++ {
			for _, begin := range []assignment.Frame{frames[0], all[0]} {
				a := snapshot.NewAssembler(accepted, maxCount)
				_, err := add(t, a, accepted, append(slices.Clone(frames[:cut]), begin)...)
				checkFault(t, err, snapshot.ReasonNested)
				_, err = add(t, a, accepted, frames[cut:]...)
				checkFault(t, err, snapshot.ReasonOutside)
			}
		}
	}
}

// NoTimeTravel: no snapshot leads back within an epoch; those of different
// epochs are not compared.
func TestNoTimeTravel(t *testing.T) {
	for _, scope := range scopes {
		t.Run(fmt.Sprintf("scope %d", scope), func(t *testing.T) {
			r, accepted := follow(t, 100)
			revision := accepted.Revision
			frames := step(r, accepted)[scope]
			at := func(epoch assignment.Epoch, revision assignment.Revision) []assignment.Frame {
				fs := with(frames, 0, func(b *assignment.Begin) { b.Epoch, b.Revision = epoch, revision })
				return with(fs, len(fs)-1, func(e *assignment.End) { e.Epoch, e.Revision = epoch, revision })
			}
			for _, old := range []assignment.Revision{revision - 1, 1, 0, -1, math.MinInt64} {
				_, err := add(t, snapshot.NewAssembler(accepted, maxCount), accepted, at(r.epoch, old)...)
				if fault := faultOf(t, err, snapshot.ReasonRevision); fault.Revision != old {
					t.Errorf("the fault tells revision %d, want %d", fault.Revision, old)
				}
			}
			for _, none := range []assignment.Revision{0, -1} {
				_, err := add(t, snapshot.NewAssembler(accepted, maxCount), accepted, at("epoch-2", none)...)
				checkFault(t, err, snapshot.ReasonRevision)
			}
			_, err := add(t, snapshot.NewAssembler(accepted, maxCount), accepted, at("", revision+1)...)
			checkFault(t, err, snapshot.ReasonRevision)

			other := &snapshot.Accepted{}
			seal(t, other, newRegistry(100).all()...)
			_, err = add(t, snapshot.NewAssembler(other, maxCount), other, at("epoch-2", 1)...)
			if scope == assignment.ScopeChanges {
				checkFault(t, err, snapshot.ReasonScope) // changes build on a set of their own epoch
			} else if err != nil || other.Revision != 1 || other.Epoch != "epoch-2" {
				t.Errorf("another epoch: %v at %v", err, other.Position)
			}
			seal(t, accepted, at(r.epoch, revision)...) // the same revision is no step back
		})
	}
}

// Unique: an empty or repeated id refuses the snapshot, wherever its twin is.
func TestUnique(t *testing.T) {
	m := func(id assignment.ProducerID) *assignment.Assignment {
		return &assignment.Assignment{ProducerID: id, Version: 1}
	}
	ms := func(ids ...assignment.ProducerID) (out []*assignment.Assignment) {
		for _, id := range ids {
			out = append(out, m(id))
		}
		return out
	}
	rs := func(ids ...assignment.ProducerID) (out []assignment.Removal) {
		for _, id := range ids {
			out = append(out, assignment.Removal{ProducerID: id})
		}
		return out
	}
	for _, tc := range []struct {
		name   string
		chunks []assignment.Chunk
		reason string
		about  assignment.ProducerID
	}{
		{"no id", []assignment.Chunk{{Assignments: ms("a", "")}}, snapshot.ReasonMalformed, ""},
		{"no assignment", []assignment.Chunk{{Assignments: []*assignment.Assignment{nil}}}, snapshot.ReasonMalformed, ""},
		{"no id in a removal", []assignment.Chunk{{Removals: rs("")}}, snapshot.ReasonMalformed, ""},
		{"twice in a chunk", []assignment.Chunk{{Assignments: ms("a", "b", "a")}}, snapshot.ReasonRepeated, "a"},
		{"twice in two chunks", []assignment.Chunk{{Assignments: ms("a")}, {Assignments: ms("b", "a")}}, snapshot.ReasonRepeated, "a"},
		{"removed twice", []assignment.Chunk{{Removals: rs("a", "a")}}, snapshot.ReasonRepeated, "a"},
		{"removed twice in two chunks", []assignment.Chunk{{Removals: rs("a")}, {Removals: rs("a")}}, snapshot.ReasonRepeated, "a"},
		{"assigned and removed", []assignment.Chunk{{Assignments: ms("a"), Removals: rs("a")}}, snapshot.ReasonRepeated, "a"},
		{"assigned, then removed", []assignment.Chunk{{Assignments: ms("a")}, {Removals: rs("a")}}, snapshot.ReasonRepeated, "a"},
		{"removed, then assigned", []assignment.Chunk{{Removals: rs("a")}, {Assignments: ms("a")}}, snapshot.ReasonRepeated, "a"},
		{"a member assigned and removed", []assignment.Chunk{{Removals: rs(producer(5))}, {Assignments: ms(producer(5))}}, snapshot.ReasonRepeated, producer(5)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, accepted := follow(t, 10)
			begin := step(r, accepted)[assignment.ScopeChanges][0]
			frames := with([]assignment.Frame{begin}, 0, func(b *assignment.Begin) { b.SnapshotID, b.ExpectedUpserts = 1, 100 })
			for i := range tc.chunks {
				tc.chunks[i].SnapshotID, tc.chunks[i].Sequence = 1, uint64(i)
				frames = append(frames, &tc.chunks[i])
			}
			_, err := add(t, snapshot.NewAssembler(accepted, maxCount), accepted, frames...)
			if fault := faultOf(t, err, tc.reason); fault.ProducerID != tc.about {
				t.Errorf("the fault is about %q, want %q", fault.ProducerID, tc.about)
			}
		})
	}
}

// Ordered: chunks out of order, missing or repeated refuse the snapshot.
func TestOrdered(t *testing.T) {
	for _, scope := range scopes {
		r, accepted := follow(t, 40)
		frames := step(r, accepted)[scope]
		end := len(frames) - 1
		for i := 1; i < end; i++ {
			missing := slices.Delete(slices.Clone(frames), i, i+1)
			reason := snapshot.ReasonSequence
			if i == end-1 {
				reason = snapshot.ReasonCount // the last one is missed at the end
			}
			_, err := add(t, snapshot.NewAssembler(accepted, maxCount), accepted, missing...)
			checkFault(t, err, reason)

			repeated := slices.Insert(slices.Clone(frames), i, frames[i])
			_, err = add(t, snapshot.NewAssembler(accepted, maxCount), accepted, repeated...)
			checkFault(t, err, snapshot.ReasonSequence)

			if i+1 < end {
				swapped := slices.Clone(frames)
				swapped[i], swapped[i+1] = swapped[i+1], swapped[i]
				_, err = add(t, snapshot.NewAssembler(accepted, maxCount), accepted, swapped...)
				checkFault(t, err, snapshot.ReasonSequence)
			}
		}
		// Outside of a snapshot nothing but a begin has a place.
		for _, frame := range frames[1:] {
			_, err := add(t, snapshot.NewAssembler(accepted, maxCount), accepted, frame)
			checkFault(t, err, snapshot.ReasonOutside)
		}
		_, err := add(t, snapshot.NewAssembler(accepted, maxCount), accepted, append(slices.Clone(frames), frames[end])...)
		checkFault(t, err, snapshot.ReasonOutside)
	}
}
