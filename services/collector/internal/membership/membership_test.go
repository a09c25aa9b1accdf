package membership_test

import (
	"cmp"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/guard"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/membership"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/snapshot"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// rig is a membership on a log that can fail and a runner that only notes.
type rig struct {
	*membership.Membership
	t *testing.T

	// mu guards all below, which a membership that runs by itself uses while the
	// test looks on.
	mu      sync.Mutex
	fail    error
	entries []membership.Entry
	applied map[assignment.ProducerID]bool
	stale   map[assignment.ProducerID]bool
	serial  uint64

	// interval is that of heartbeats as the registry says it; zero: a minute.
	interval time.Duration
	survey   guard.Survey
	logged   strings.Builder
}

func newRig(t *testing.T, resume membership.State) *rig {
	t.Helper()
	r := &rig{t: t, applied: map[assignment.ProducerID]bool{}, stale: map[assignment.ProducerID]bool{}}
	r.Membership = membership.New(membership.Config{
		Log: r, Runner: r, Witness: r, MaxProducers: 100, Logger: slog.New(slog.NewTextHandler(&r.logged, nil)), Metrics: membership.NewMetrics(),
	}, resume)
	r.Begin()
	return r
}

// Append is the log's.
func (r *rig) Append(e membership.Entry, _ func() membership.State) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail == nil {
		r.entries = append(r.entries, e)
	}
	return r.fail
}

// Change is the runner's.
func (r *rig) Change(upserts []*assignment.Assignment, released []guard.Release) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range upserts {
		r.applied[a.ProducerID] = true
	}
	for _, one := range released {
		delete(r.applied, one.ProducerID)
		r.stale[one.ProducerID] = one.Stale
	}
}

// Evidence and Survey are the witness's.
func (r *rig) Evidence(id assignment.ProducerID) guard.Evidence { return r.Survey(nil).Failing[id] }

func (r *rig) Survey(func(assignment.ProducerID) bool) guard.Survey {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.survey
}

// look looks at what the rig has noted, or changes it.
func (r *rig) look(at func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at()
}

// collects are the applied producers.
func (r *rig) collects() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ids []string
	for id := range r.applied {
		ids = append(ids, string(id))
	}
	slices.Sort(ids)
	return ids
}

// all plays a whole snapshot of scope ALL.
func (r *rig) all(epoch assignment.Epoch, revision assignment.Revision, ids ...string) {
	r.t.Helper()
	var set assignment.Set[*assignment.Assignment]
	chunk := &assignment.Chunk{}
	for _, id := range ids {
		a := &assignment.Assignment{ProducerID: assignment.ProducerID(id), Version: 1, Role: assignment.RoleOwner}
		chunk.Assignments = append(chunk.Assignments, a)
		set.Put(a)
	}
	r.play(assignment.ScopeAll, epoch, revision, chunk, set.Len(), set.Digest())
}

// remove plays a snapshot of scope CHANGES that takes one producer off the set.
func (r *rig) remove(epoch assignment.Epoch, revision assignment.Revision, cause assignment.Cause, id string, left ...string) {
	r.t.Helper()
	var set assignment.Set[*assignment.Assignment]
	for _, id := range left {
		set.Put(&assignment.Assignment{ProducerID: assignment.ProducerID(id), Version: 1, Role: assignment.RoleOwner})
	}
	removal := assignment.Removal{ProducerID: assignment.ProducerID(id), Cause: cause, Revision: revision}
	r.play(assignment.ScopeChanges, epoch, revision, &assignment.Chunk{Removals: []assignment.Removal{removal}}, set.Len(), set.Digest())
}

func (r *rig) play(scope assignment.Scope, epoch assignment.Epoch, revision assignment.Revision, chunk *assignment.Chunk, count int, digest assignment.Digest) {
	r.t.Helper()
	r.serial++
	chunk.SnapshotID = r.serial
	frames := []assignment.Frame{
		&assignment.Begin{
			SnapshotID: r.serial, SubscriptionID: "s", Epoch: epoch, Revision: revision, Scope: scope, HeartbeatInterval: cmp.Or(r.interval, time.Minute),
			ExpectedUpserts: int64(len(chunk.Assignments)), AssignmentFormat: assignment.AssignmentFormat,
		},
		chunk,
		&assignment.End{
			SnapshotID: r.serial, Epoch: epoch, Revision: revision, Chunks: 1, Upserts: int64(len(chunk.Assignments)),
			Removals: int64(len(chunk.Removals)), SetCount: int64(count), SetDigest: digest,
		},
	}
	for _, f := range frames {
		if _, err := r.Take(r.t.Context(), f); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *rig) want(ids ...string) {
	r.t.Helper()
	if got := r.collects(); !slices.Equal(got, ids) {
		r.t.Errorf("collects %v, want %v", got, ids)
	}
}

// TestAckTruth: a set that is not on disk is applied all the same, and told as
// not persisted until an entry has made it there.
func TestAckTruth(t *testing.T) {
	r := newRig(t, membership.State{Accepted: &snapshot.Accepted{}})
	r.all("e", 1, "a", "b")
	if !r.Status().Persisted {
		t.Error("not persisted with a disk that works")
	}
	r.fail = errors.New("disk full")
	r.all("e", 2, "a", "b", "c")
	r.want("a", "b", "c")
	if s := r.Status(); s.Persisted || s.AcceptedCount != 3 || s.Revision != 2 {
		t.Errorf("with a full disk: %+v", s)
	}
	r.fail = nil
	r.all("e", 3, "a", "b", "c")
	if !r.Status().Persisted {
		t.Error("not persisted after the disk came back")
	}
}

// TestSilenceIsNotBelieved: what nobody names is held, in the log too, and let
// go by a name; what comes back is not held any more.
func TestSilenceIsNotBelieved(t *testing.T) {
	r := newRig(t, membership.State{Accepted: &snapshot.Accepted{}})
	r.all("e", 1, "a", "b", "c", "d")
	r.all("f", 1, "d") // another epoch, and it knows one
	r.want("a", "b", "c", "d")
	if held := r.entries[len(r.entries)-1].Held; len(held) != 3 || r.Status().HeldCount != 3 {
		t.Errorf("the log was told of %d held, the status tells %d", len(held), r.Status().HeldCount)
	}
	r.all("f", 2, "a", "d")
	r.want("a", "b", "c", "d")
	r.Explained(t.Context(), []assignment.Removal{
		{ProducerID: "b", Cause: assignment.CauseDeregistered},
		{ProducerID: "c", Cause: assignment.CauseUnspecified},
		{ProducerID: "a", Cause: assignment.CauseDeregistered}, // not held: not to be explained away
	})
	r.want("a", "c", "d")
	if !r.stale["b"] {
		t.Error("the series of a deregistered producer were left open")
	}
	r.remove("f", 3, assignment.CauseUnspecified, "d", "a")
	r.want("a", "c", "d")
	r.remove("f", 4, assignment.CauseHandedOff, "a")
	r.want("c", "d")
	if r.stale["a"] {
		t.Error("the series of a producer that another collector has were ended")
	}
	r.remove("f", 5, assignment.CauseDeregistered, "c") // held, and named at last
	r.want("d")
}

// TestHeartbeats: an equal one advances the position, another one diverges, and
// neither changes what is collected.
func TestHeartbeats(t *testing.T) {
	r := newRig(t, membership.State{Accepted: &snapshot.Accepted{}})
	r.all("e", 1, "a")
	digest := r.Status().Digest
	for name, beat := range map[string]struct {
		frame assignment.Heartbeat
		want  membership.Event
	}{
		"equal":    {assignment.Heartbeat{Epoch: "e", Revision: 5, SetCount: 1, SetDigest: digest, ServerTime: time.Now()}, membership.EventAgreed},
		"count":    {assignment.Heartbeat{Epoch: "e", Revision: 9, SetCount: 2, SetDigest: digest}, membership.EventDiverged},
		"digest":   {assignment.Heartbeat{Epoch: "e", Revision: 9, SetCount: 1, SetDigest: digest + 1}, membership.EventDiverged},
		"epoch":    {assignment.Heartbeat{Epoch: "x", Revision: 9, SetCount: 1, SetDigest: digest}, membership.EventDiverged},
		"older":    {assignment.Heartbeat{Epoch: "e", SetCount: 1, SetDigest: digest}, membership.EventDiverged},
		"nothing?": {assignment.Heartbeat{}, membership.EventDiverged},
	} {
		event, err := r.Take(t.Context(), &beat.frame)
		if err != nil || event != beat.want {
			t.Errorf("%s: %v, %v", name, event, err)
		}
	}
	r.want("a")
	if s := r.Status(); s.Revision != 5 {
		t.Errorf("at revision %d, want 5", s.Revision)
	}
}

// TestAcceptedAreNotTheHeld: who is held is collected, and is in no accepted set.
func TestAcceptedAreNotTheHeld(t *testing.T) {
	r := newRig(t, membership.State{Accepted: &snapshot.Accepted{}})
	if got := r.Accepted([]assignment.ProducerID{"a"}); len(got) != 0 {
		t.Errorf("before the first seal: %v", got)
	}
	r.all("e", 1, "a", "b", "c")
	r.all("e", 2, "a", "c")
	if got := r.Accepted([]assignment.ProducerID{"c", "b", "x", "a"}); !slices.Equal(got, []assignment.ProducerID{"c", "a"}) {
		t.Errorf("accepted: %v", got)
	}
	if !r.Holds("b") {
		t.Error("b is not held")
	}
}
