package main

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"pgregory.net/rapid"
)

// member makes an assignment that differs from others in id and version.
func member(id string, version uint64) *assignment.Assignment {
	return &assignment.Assignment{
		ProducerID: assignment.ProducerID(id),
		Version:    assignment.Version(version),
		Role:       assignment.RoleOwner,
		Interval:   time.Second,
	}
}

// digest is what the protocol says that a set's digest is.
func digest(members ...*assignment.Assignment) assignment.Digest {
	var sum assignment.Digest
	for _, m := range members {
		sum += assignment.Digest(assignment.HashOf(m.ProducerID, m.Version, m.Role))
	}
	return sum
}

// stream is a sound stream: two members, then one is updated and one removed,
// then a heartbeat.
func stream() []assignment.Frame {
	a, b, b2 := member("a", 1), member("b", 1), member("b", 2)
	return []assignment.Frame{
		&assignment.Begin{SnapshotID: 1, Epoch: "e", Revision: 5, Scope: assignment.ScopeAll, ExpectedUpserts: 2},
		&assignment.Chunk{SnapshotID: 1, Sequence: 0, Assignments: []*assignment.Assignment{a}},
		&assignment.Chunk{SnapshotID: 1, Sequence: 1, Assignments: []*assignment.Assignment{b}},
		&assignment.End{SnapshotID: 1, Epoch: "e", Revision: 5, Chunks: 2, Upserts: 2, SetCount: 2, SetDigest: digest(a, b)},
		&assignment.GoAway{},
		&assignment.Begin{SnapshotID: 2, Epoch: "e", Revision: 6, BaseRevision: 5, Scope: assignment.ScopeChanges, ExpectedUpserts: 1},
		&assignment.Unknown{},
		&assignment.Chunk{
			SnapshotID: 2, Assignments: []*assignment.Assignment{b2},
			Removals: []assignment.Removal{{ProducerID: "a"}, {ProducerID: "never"}},
		},
		&assignment.End{SnapshotID: 2, Epoch: "e", Revision: 6, Chunks: 1, Upserts: 1, Removals: 2, SetCount: 1, SetDigest: digest(b2)},
		&assignment.Heartbeat{Epoch: "e", Revision: 9, SetCount: 1, SetDigest: digest(b2)},
	}
}

// verify returns the number of seals before the first fault.
func verify(frames []assignment.Frame) (seals int, err error) {
	var v verifier
	for i, f := range frames {
		sealed, err := v.take(f)
		if err != nil {
			return seals, fmt.Errorf("frame %d: %w", i, err)
		}
		if sealed {
			seals++
		}
	}
	return seals, nil
}

func TestVerifierTakesASoundStream(t *testing.T) {
	if seals, err := verify(stream()); err != nil || seals != 2 {
		t.Errorf("got %d seals and %v", seals, err)
	}
}

// change changes the frame at an index, which is of type F.
func change[F assignment.Frame](i int, by func(F)) func([]assignment.Frame) []assignment.Frame {
	return func(frames []assignment.Frame) []assignment.Frame {
		frame, ok := frames[i].(F)
		if !ok {
			panic(fmt.Sprintf("frame %d is a %T", i, frames[i]))
		}
		by(frame)
		return frames
	}
}

func TestVerifierRefusesEachFault(t *testing.T) {
	drop := func(i int) func([]assignment.Frame) []assignment.Frame {
		return func(f []assignment.Frame) []assignment.Frame { return append(f[:i:i], f[i+1:]...) }
	}
	insert := func(i int, f assignment.Frame) func([]assignment.Frame) []assignment.Frame {
		return func(fs []assignment.Frame) []assignment.Frame {
			return append(append(fs[:i:i], f), fs[i:]...)
		}
	}
	begin, chunk, end := change[*assignment.Begin], change[*assignment.Chunk], change[*assignment.End]
	beat := func(by func(*assignment.Heartbeat)) func([]assignment.Frame) []assignment.Frame { return change(9, by) }
	for name, c := range map[string]struct {
		fault func([]assignment.Frame) []assignment.Frame
		want  string
	}{
		"no begin":               {drop(0), "outside of a snapshot"},
		"lost chunk":             {drop(1), "chunk 1 of snapshot 1 comes where 0 is due"},
		"lost last chunk":        {drop(2), "has 1 chunks, and its end counts 2"},
		"no end":                 {drop(3), "begins inside snapshot 1"},
		"end without begin":      {insert(4, &assignment.End{SnapshotID: 1}), "outside of a snapshot"},
		"early heartbeat":        {insert(0, &assignment.Heartbeat{}), "before the first snapshot"},
		"heartbeat inside":       {insert(2, &assignment.Heartbeat{}), "inside snapshot 1"},
		"chunk of another":       {chunk(1, func(c *assignment.Chunk) { c.SnapshotID = 7 }), "a chunk of snapshot 7"},
		"repeated in chunks":     {chunk(2, func(c *assignment.Chunk) { c.Assignments[0] = member("a", 1) }), `"a" stands twice`},
		"assigned and removed":   {chunk(7, func(c *assignment.Chunk) { c.Removals[0].ProducerID = "b" }), `"b" stands twice`},
		"removal in ALL":         {chunk(1, func(c *assignment.Chunk) { c.Removals = []assignment.Removal{{ProducerID: "z"}} }), "replaces the set and yet removes"},
		"another version":        {chunk(1, func(c *assignment.Chunk) { c.Assignments[0].Version++ }), "says that the digest is"},
		"another role":           {chunk(1, func(c *assignment.Chunk) { c.Assignments[0].Role = 2 }), "says that the digest is"},
		"no epoch":               {begin(0, func(b *assignment.Begin) { b.Epoch = "" }), "has epoch"},
		"no revision":            {begin(0, func(b *assignment.Begin) { b.Revision = 0 }), "revision 0"},
		"unknown scope":          {begin(0, func(b *assignment.Begin) { b.Scope = 9 }), "has scope 9"},
		"buckets":                {begin(0, func(b *assignment.Begin) { b.Scope = assignment.ScopeBuckets }), "has scope 2"},
		"changes of nothing":     {begin(0, func(b *assignment.Begin) { b.Scope = assignment.ScopeChanges }), "changes revision 0"},
		"changes of a later set": {begin(5, func(b *assignment.Begin) { b.BaseRevision = 6 }), "changes revision 6"},
		"changes of an epoch":    {begin(5, func(b *assignment.Begin) { b.Epoch = "f" }), `of epoch "f"`},
		"time travel":            {begin(5, func(b *assignment.Begin) { b.Revision = 4 }), "is of revision 4"},
		"announced otherwise":    {begin(0, func(b *assignment.Begin) { b.ExpectedUpserts = 3 }), "announced 3"},
		"end of another":         {end(3, func(e *assignment.End) { e.SnapshotID = 2 }), "ends as snapshot 2"},
		"end of another epoch":   {end(3, func(e *assignment.End) { e.Epoch = "f" }), `of "f"`},
		"end at another":         {end(3, func(e *assignment.End) { e.Revision = 6 }), "at 6"},
		"assignments miscounted": {end(3, func(e *assignment.End) { e.Upserts = 3 }), "its end counts 3"},
		"removals miscounted":    {end(8, func(e *assignment.End) { e.Removals = 1 }), "has 2 removals, and its end counts 1"},
		"set miscounted":         {end(8, func(e *assignment.End) { e.SetCount = 2 }), "counts 2 assignments, and the set has 1"},
		"digest":                 {end(8, func(e *assignment.End) { e.SetDigest++ }), "says that the digest is"},
		"heartbeat's epoch":      {beat(func(h *assignment.Heartbeat) { h.Epoch = "f" }), "a heartbeat is of revision"},
		"heartbeat's revision":   {beat(func(h *assignment.Heartbeat) { h.Revision = 5 }), "a heartbeat is of revision 5"},
		"heartbeat's count":      {beat(func(h *assignment.Heartbeat) { h.SetCount = 0 }), "a heartbeat counts 0"},
		"heartbeat's digest":     {beat(func(h *assignment.Heartbeat) { h.SetDigest = 0 }), "a heartbeat says that the digest"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := verify(c.fault(stream())); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// TestVerifierFollowsAnyHistory: whatever an honest registry sends is sealed,
// and the set is then the registry's.
func TestVerifierFollowsAnyHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var v verifier
		truth := map[string]*assignment.Assignment{}
		for n := range rapid.IntRange(1, 8).Draw(t, "snapshots") {
			revision := assignment.Revision(n + 1)
			scope := assignment.ScopeChanges
			if n == 0 || rapid.IntRange(0, 4).Draw(t, "again") == 0 {
				scope, truth = assignment.ScopeAll, map[string]*assignment.Assignment{}
			}
			upserts := map[string]*assignment.Assignment{}
			chunk := &assignment.Chunk{SnapshotID: uint64(revision)}
			for range rapid.IntRange(0, 6).Draw(t, "changes") {
				id := rapid.StringMatching("[a-e]").Draw(t, "id")
				if _, twice := upserts[id]; twice {
					continue
				}
				if scope == assignment.ScopeChanges && rapid.Bool().Draw(t, "remove") {
					upserts[id] = nil
					chunk.Removals = append(chunk.Removals, assignment.Removal{ProducerID: assignment.ProducerID(id)})
					delete(truth, id)
					continue
				}
				upserts[id] = member(id, rapid.Uint64Range(0, math.MaxUint64).Draw(t, "version"))
				chunk.Assignments = append(chunk.Assignments, upserts[id])
				truth[id] = upserts[id]
			}
			end := &assignment.End{
				SnapshotID: uint64(revision), Epoch: "e", Revision: revision, Chunks: 1,
				Upserts: int64(len(chunk.Assignments)), Removals: int64(len(chunk.Removals)), SetCount: int64(len(truth)),
			}
			for _, m := range truth {
				end.SetDigest += digest(m)
			}
			begin := &assignment.Begin{
				SnapshotID: uint64(revision), Epoch: "e", Revision: revision, BaseRevision: revision - 1,
				Scope: scope, ExpectedUpserts: end.Upserts,
			}
			for _, f := range []assignment.Frame{begin, chunk, end} {
				sealed, err := v.take(f)
				if err != nil || sealed != (f == assignment.Frame(end)) {
					t.Fatalf("%T: got %v and %v", f, sealed, err)
				}
			}
			if v.set.Len() != len(truth) || v.set.Digest() != end.SetDigest {
				t.Fatalf("the set has %d members, want %d", v.set.Len(), len(truth))
			}
		}
	})
}
