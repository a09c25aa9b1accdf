package snapshot_test

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/snapshot"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// harmless is the reason of a change that refuses nothing.
const harmless = ""

type mutation[F any] struct {
	what   string
	change func(*F)

	// reasons of the refusal, by scope.
	reasons map[assignment.Scope]string
}

func always(reason string) map[assignment.Scope]string {
	return map[assignment.Scope]string{
		assignment.ScopeAll: reason, assignment.ScopeBuckets: reason, assignment.ScopeChanges: reason,
	}
}

func only(scope assignment.Scope, reason, otherwise string) map[assignment.Scope]string {
	reasons := always(otherwise)
	reasons[scope] = reason
	return reasons
}

var begins = map[string][]mutation[assignment.Begin]{
	"SnapshotID":     {{"+1", func(b *assignment.Begin) { b.SnapshotID++ }, always(snapshot.ReasonSnapshotID)}},
	"SubscriptionID": {{"another", func(b *assignment.Begin) { b.SubscriptionID += "x" }, always(harmless)}},
	"Epoch": {
		{"another", func(b *assignment.Begin) { b.Epoch += "x" }, only(assignment.ScopeChanges, snapshot.ReasonScope, snapshot.ReasonEpoch)},
		{"none", func(b *assignment.Begin) { b.Epoch = "" }, always(snapshot.ReasonRevision)},
	},
	"Revision": {
		{"+1", func(b *assignment.Begin) { b.Revision++ }, always(snapshot.ReasonRevision)},
		{"-1", func(b *assignment.Begin) { b.Revision-- }, always(snapshot.ReasonRevision)},
		{"older than accepted", func(b *assignment.Begin) { b.Revision = 9 }, always(snapshot.ReasonRevision)},
		{"none", func(b *assignment.Begin) { b.Revision = 0 }, always(snapshot.ReasonRevision)},
		{"negative", func(b *assignment.Begin) { b.Revision = math.MinInt64 }, always(snapshot.ReasonRevision)},
	},
	"BaseRevision": {
		{"+1", func(b *assignment.Begin) { b.BaseRevision++ }, only(assignment.ScopeChanges, snapshot.ReasonScope, harmless)},
		{"-1", func(b *assignment.Begin) { b.BaseRevision-- }, always(harmless)}, // heartbeats advance the accepted one
	},
	"Scope": {
		{"none", func(b *assignment.Begin) { b.Scope = 0 }, always(snapshot.ReasonScope)},
		{"unknown", func(b *assignment.Begin) { b.Scope = 4 }, always(snapshot.ReasonScope)},
		{"negative", func(b *assignment.Begin) { b.Scope = -1 }, always(snapshot.ReasonScope)},
		{"ALL", func(b *assignment.Begin) { b.Scope = assignment.ScopeAll }, map[assignment.Scope]string{
			assignment.ScopeBuckets: snapshot.ReasonBuckets, assignment.ScopeChanges: snapshot.ReasonRemoval,
		}},
		{"CHANGES", func(b *assignment.Begin) { b.Scope = assignment.ScopeChanges }, map[assignment.Scope]string{
			assignment.ScopeAll: snapshot.ReasonCount, assignment.ScopeBuckets: snapshot.ReasonBuckets,
		}},
	},
	"BucketBits": {
		{"+1", func(b *assignment.Begin) { b.BucketBits++ }, only(assignment.ScopeBuckets, snapshot.ReasonBuckets, harmless)},
		{"17", func(b *assignment.Begin) { b.BucketBits = 17 }, only(assignment.ScopeBuckets, snapshot.ReasonBuckets, harmless)},
		{"255", func(b *assignment.Begin) { b.BucketBits = 255 }, only(assignment.ScopeBuckets, snapshot.ReasonBuckets, harmless)},
	},
	"ReplacedBuckets": {
		{"none", func(b *assignment.Begin) { b.ReplacedBuckets = nil }, only(assignment.ScopeBuckets, snapshot.ReasonBuckets, harmless)},
		{"one less", func(b *assignment.Begin) { b.ReplacedBuckets = b.ReplacedBuckets[1:] }, map[assignment.Scope]string{assignment.ScopeBuckets: snapshot.ReasonBuckets}},
		{"out of range", func(b *assignment.Begin) { b.ReplacedBuckets = []uint32{1 << b.BucketBits} }, always(snapshot.ReasonBuckets)},
		{"far out of range", func(b *assignment.Begin) { b.ReplacedBuckets = []uint32{math.MaxUint32} }, always(snapshot.ReasonBuckets)},
		{"unsorted", func(b *assignment.Begin) { b.ReplacedBuckets = []uint32{1, 0} }, always(snapshot.ReasonBuckets)},
		{"repeated", func(b *assignment.Begin) { b.ReplacedBuckets = []uint32{0, 1, 1} }, always(snapshot.ReasonBuckets)},
	},
	"Reason": {{"another", func(b *assignment.Begin) { b.Reason = 99 }, always(harmless)}},
	"ExpectedUpserts": {
		{"+1", func(b *assignment.Begin) { b.ExpectedUpserts++ }, always(snapshot.ReasonCount)},
		{"-1", func(b *assignment.Begin) { b.ExpectedUpserts-- }, always(snapshot.ReasonTooLarge)},
		{"none", func(b *assignment.Begin) { b.ExpectedUpserts = 0 }, always(snapshot.ReasonTooLarge)},
		{"negative", func(b *assignment.Begin) { b.ExpectedUpserts = -1 }, always(snapshot.ReasonTooLarge)},
		{"over the limit", func(b *assignment.Begin) { b.ExpectedUpserts = maxCount + 1 }, always(snapshot.ReasonTooLarge)},
		{"most", func(b *assignment.Begin) { b.ExpectedUpserts = math.MaxInt64 }, always(snapshot.ReasonTooLarge)},
	},
	"HeartbeatInterval":  {{"another", func(b *assignment.Begin) { b.HeartbeatInterval += time.Second }, always(harmless)}},
	"AssignmentFormat":   {{"+1", func(b *assignment.Begin) { b.AssignmentFormat++ }, only(assignment.ScopeAll, harmless, snapshot.ReasonScope)}},
	"RegistryInstanceID": {{"another", func(b *assignment.Begin) { b.RegistryInstanceID += "x" }, always(harmless)}},
}

// The chunk that is changed is the first, and the first to hold an assignment.
var chunks = map[string][]mutation[assignment.Chunk]{
	"SnapshotID": {
		{"+1", func(c *assignment.Chunk) { c.SnapshotID++ }, always(snapshot.ReasonSnapshotID)},
		{"-1", func(c *assignment.Chunk) { c.SnapshotID-- }, always(snapshot.ReasonSnapshotID)},
	},
	"Sequence": {
		{"+1", func(c *assignment.Chunk) { c.Sequence++ }, always(snapshot.ReasonSequence)},
		{"-1", func(c *assignment.Chunk) { c.Sequence-- }, always(snapshot.ReasonSequence)},
	},
	"Assignments": {
		{"one less", func(c *assignment.Chunk) { c.Assignments = c.Assignments[1:] }, always(snapshot.ReasonCount)},
		{"none", func(c *assignment.Chunk) { c.Assignments = nil }, always(snapshot.ReasonCount)},
		{"another id", item(func(m *assignment.Assignment) { m.ProducerID = sameBucket(m.ProducerID) }), always(snapshot.ReasonDigest)},
		{"version +1", item(func(m *assignment.Assignment) { m.Version++ }), always(snapshot.ReasonDigest)},
		{"role +1", item(func(m *assignment.Assignment) { m.Role++ }), always(snapshot.ReasonDigest)},
		// The version stands for the rest; the digest does not cover it again.
		{"another endpoint", item(func(m *assignment.Assignment) { m.Endpoint += "x" }), always(harmless)},
	},
	"Removals": {
		{"of a stranger", func(c *assignment.Chunk) { c.Removals = append(c.Removals, assignment.Removal{ProducerID: "x"}) }, only(assignment.ScopeChanges, snapshot.ReasonCount, snapshot.ReasonRemoval)},
		{"of a member", func(c *assignment.Chunk) {
			c.Removals = append(c.Removals, assignment.Removal{ProducerID: producer(9)})
		}, only(assignment.ScopeChanges, snapshot.ReasonCount, snapshot.ReasonRemoval)},
		{"none", func(c *assignment.Chunk) { c.Removals = nil }, only(assignment.ScopeChanges, snapshot.ReasonCount, harmless)},
		{"of another member", removal(func(r *assignment.Removal) { r.ProducerID = producer(9) }), map[assignment.Scope]string{assignment.ScopeChanges: snapshot.ReasonDigest}},
		{"of another stranger", removal(func(r *assignment.Removal) { r.ProducerID = "x" }), map[assignment.Scope]string{assignment.ScopeChanges: snapshot.ReasonCount}},
		{"another cause", removal(func(r *assignment.Removal) { r.Cause = 99 }), map[assignment.Scope]string{assignment.ScopeChanges: harmless}},
		{"another revision", removal(func(r *assignment.Removal) { r.Revision++ }), map[assignment.Scope]string{assignment.ScopeChanges: harmless}},
	},
}

func item(change func(*assignment.Assignment)) func(*assignment.Chunk) {
	return func(c *assignment.Chunk) {
		m := *c.Assignments[0]
		change(&m)
		c.Assignments = append([]*assignment.Assignment{&m}, c.Assignments[1:]...)
	}
}

func removal(change func(*assignment.Removal)) func(*assignment.Chunk) {
	return func(c *assignment.Chunk) {
		c.Removals = slices.Clone(c.Removals)
		change(&c.Removals[0])
	}
}

// sameBucket finds an id that no producer has, in the bucket of one.
func sameBucket(id assignment.ProducerID) assignment.ProducerID {
	for i := 0; ; i++ {
		other := assignment.ProducerID(fmt.Sprintf("other-%d", i))
		if assignment.Bucket(other, 8) == assignment.Bucket(id, 8) {
			return other
		}
	}
}

var ends = map[string][]mutation[assignment.End]{
	"SnapshotID": {
		{"+1", func(e *assignment.End) { e.SnapshotID++ }, always(snapshot.ReasonSnapshotID)},
		{"-1", func(e *assignment.End) { e.SnapshotID-- }, always(snapshot.ReasonSnapshotID)},
	},
	"Epoch": {
		{"another", func(e *assignment.End) { e.Epoch += "x" }, always(snapshot.ReasonEpoch)},
		{"none", func(e *assignment.End) { e.Epoch = "" }, always(snapshot.ReasonEpoch)},
	},
	"Revision": {
		{"+1", func(e *assignment.End) { e.Revision++ }, always(snapshot.ReasonRevision)},
		{"-1", func(e *assignment.End) { e.Revision-- }, always(snapshot.ReasonRevision)},
		{"none", func(e *assignment.End) { e.Revision = 0 }, always(snapshot.ReasonRevision)},
	},
	"Chunks": {
		{"+1", func(e *assignment.End) { e.Chunks++ }, always(snapshot.ReasonCount)},
		{"-1", func(e *assignment.End) { e.Chunks-- }, always(snapshot.ReasonCount)},
		{"most", func(e *assignment.End) { e.Chunks = math.MaxUint64 }, always(snapshot.ReasonCount)},
	},
	"Upserts": {
		{"+1", func(e *assignment.End) { e.Upserts++ }, always(snapshot.ReasonCount)},
		{"-1", func(e *assignment.End) { e.Upserts-- }, always(snapshot.ReasonCount)},
		{"none", func(e *assignment.End) { e.Upserts = 0 }, always(snapshot.ReasonCount)},
	},
	"Removals": {
		{"+1", func(e *assignment.End) { e.Removals++ }, always(snapshot.ReasonCount)},
		{"-1", func(e *assignment.End) { e.Removals-- }, always(snapshot.ReasonCount)},
	},
	"SetCount": {
		{"+1", func(e *assignment.End) { e.SetCount++ }, always(snapshot.ReasonCount)},
		{"-1", func(e *assignment.End) { e.SetCount-- }, always(snapshot.ReasonCount)},
		{"none", func(e *assignment.End) { e.SetCount = 0 }, always(snapshot.ReasonCount)},
		{"negative", func(e *assignment.End) { e.SetCount = -e.SetCount }, always(snapshot.ReasonCount)},
	},
	"SetDigest": {
		{"+1", func(e *assignment.End) { e.SetDigest++ }, always(snapshot.ReasonDigest)},
		{"-1", func(e *assignment.End) { e.SetDigest-- }, always(snapshot.ReasonDigest)},
		{"high bit", func(e *assignment.End) { e.SetDigest ^= 1 << 63 }, always(snapshot.ReasonDigest)},
		{"none", func(e *assignment.End) { e.SetDigest = 0 }, always(snapshot.ReasonDigest)},
	},
}

// Every field of every frame of a snapshot, changed alone, has the effect that
// the tables say; a field that is added some day must be put there.
func TestEveryFieldIsVerified(t *testing.T) {
	for _, scope := range scopes {
		t.Run(fmt.Sprintf("scope %d", scope), func(t *testing.T) {
			verify(t, scope, begins, func(assignment.Frame) bool { return true })
			verify(t, scope, chunks, func(f assignment.Frame) bool {
				c, ok := f.(*assignment.Chunk)
				return ok && len(c.Assignments) > 0
			})
			verify(t, scope, ends, func(f assignment.Frame) bool {
				_, ok := f.(*assignment.End)
				return ok
			})
		})
	}
}

func verify[F any, P interface {
	*F
	assignment.Frame
}](t *testing.T, scope assignment.Scope, table map[string][]mutation[F], which func(assignment.Frame) bool) {
	t.Helper()
	for field := range reflect.TypeFor[F]().Fields() {
		if len(table[field.Name]) == 0 {
			t.Errorf("nothing is said about %s.%s", reflect.TypeFor[F]().Name(), field.Name)
		}
		for _, m := range table[field.Name] {
			reason, ok := m.reasons[scope]
			if !ok {
				continue
			}
			t.Run(fmt.Sprintf("%T.%s %s", *new(F), field.Name, m.what), func(t *testing.T) {
				r, accepted := follow(t, 300)
				frames := step(r, accepted)[scope]
				changed := with[F, P](frames, slices.IndexFunc(frames, which), func(p P) { m.change(p) })
				before := observe(accepted)
				sealed, err := add(t, snapshot.NewAssembler(accepted, maxCount), accepted, changed...)
				if reason != harmless {
					checkFault(t, err, reason)
					checkUntouched(t, accepted, before)
				} else if err != nil || sealed == nil {
					t.Errorf("sealed %v, %v; want it harmless", sealed, err)
				}
				// What was refused can be sent again, on a new stream.
				if reason != harmless {
					seal(t, accepted, frames...)
				}
			})
		}
	}
}
