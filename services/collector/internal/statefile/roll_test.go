package statefile_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/guard"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/snapshot"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/statefile"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

const collectorID assignment.CollectorID = "collector-a"

// A roll is a registry and the collector that follows it, without the wire: it
// makes entries, and knows the state that they lead to. Use newRoll.
type roll struct {
	tb       testing.TB
	accepted *snapshot.Accepted
	held     map[assignment.ProducerID]guard.Held
	epoch    assignment.Epoch
	revision assignment.Revision
}

type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

func newRoll(tb testing.TB) *roll {
	return &roll{
		tb:       tb,
		accepted: &snapshot.Accepted{},
		held:     map[assignment.ProducerID]guard.Held{},
		epoch:    "e1",
		revision: 10,
	}
}

// member is small: the exhaustive tests go through each of its bytes.
func member(n, version int) *assignment.Assignment {
	m := &assignment.Assignment{
		ProducerID: assignment.ProducerID(fmt.Sprintf("p%d", n)),
		Version:    assignment.Version(version),
		Role:       assignment.RoleOwner,
		Endpoint:   fmt.Sprintf("http://h%d/", n),
		Interval:   15 * time.Second,
	}
	if n == 2 {
		m.Labels = []assignment.Label{{Name: "job", Value: "node"}}
		m.Timeout = 1500 * time.Millisecond
	}
	return m
}

func members(from, to, version int) []*assignment.Assignment {
	var ms []*assignment.Assignment
	for n := from; n < to; n++ {
		ms = append(ms, member(n, version))
	}
	return ms
}

func id(n int) assignment.ProducerID { return member(n, 0).ProducerID }

// seal makes the frames of a snapshot and lets an assembler take them.
func (r *roll) seal(begin assignment.Begin, upserts []*assignment.Assignment, removals ...assignment.ProducerID) statefile.Entry {
	r.tb.Helper()
	r.revision += 2
	begin.SnapshotID, begin.SubscriptionID = uint64(r.revision), "s"
	begin.Epoch, begin.Revision, begin.BaseRevision = r.epoch, r.revision, r.accepted.Revision
	begin.ExpectedUpserts, begin.AssignmentFormat = int64(len(upserts)), assignment.AssignmentFormat
	staged := r.accepted.Set.Clone()
	for producer := range r.accepted.Set.All() {
		if begin.Scope == assignment.ScopeAll ||
			slices.Contains(begin.ReplacedBuckets, assignment.Bucket(producer, begin.BucketBits)) && begin.Scope == assignment.ScopeBuckets {
			staged.Remove(producer)
		}
	}
	for _, m := range upserts {
		staged.Put(m)
	}
	end := &assignment.End{
		SnapshotID: begin.SnapshotID, Epoch: begin.Epoch, Revision: begin.Revision,
		Upserts: int64(len(upserts)), Removals: int64(len(removals)),
	}
	frames := []assignment.Frame{&begin}
	for part := range slices.Chunk(upserts, 3) {
		frames = append(frames, &assignment.Chunk{SnapshotID: begin.SnapshotID, Sequence: end.Chunks, Assignments: part})
		end.Chunks++
	}
	if len(removals) > 0 {
		chunk := &assignment.Chunk{SnapshotID: begin.SnapshotID, Sequence: end.Chunks}
		for _, producer := range removals {
			staged.Remove(producer)
			chunk.Removals = append(chunk.Removals, assignment.Removal{
				ProducerID: producer, Cause: assignment.CauseDeregistered, Revision: r.revision,
			})
		}
		frames = append(frames, chunk)
		end.Chunks++
	}
	end.SetCount, end.SetDigest = int64(staged.Len()), staged.Digest()
	return statefile.Entry{Frames: r.assemble(append(frames, end))}
}

func (r *roll) assemble(frames []assignment.Frame) []assignment.Frame {
	r.tb.Helper()
	a := snapshot.NewAssembler(r.accepted, 1_000_000)
	for i, frame := range frames {
		sealed, err := a.Add(frame)
		if err != nil {
			r.tb.Fatal(err)
		}
		if sealed != nil && i == len(frames)-1 {
			return sealed.Frames
		}
	}
	r.tb.Fatal("not sealed")
	return nil
}

func (r *roll) all(ms []*assignment.Assignment) statefile.Entry {
	r.tb.Helper()
	return r.seal(assignment.Begin{Scope: assignment.ScopeAll}, ms)
}

func (r *roll) change(upserts []*assignment.Assignment, removals ...assignment.ProducerID) statefile.Entry {
	r.tb.Helper()
	return r.seal(assignment.Begin{Scope: assignment.ScopeChanges}, upserts, removals...)
}

// rebucket replaces one of two buckets by those of the members that fall in it.
func (r *roll) rebucket(bucket uint32, ms []*assignment.Assignment) statefile.Entry {
	r.tb.Helper()
	ms = slices.DeleteFunc(slices.Clone(ms), func(m *assignment.Assignment) bool {
		return assignment.Bucket(m.ProducerID, 1) != bucket
	})
	return r.seal(assignment.Begin{Scope: assignment.ScopeBuckets, BucketBits: 1, ReplacedBuckets: []uint32{bucket}}, ms)
}

// beat is an equal heartbeat.
func (r *roll) beat() statefile.Entry {
	r.revision += 3
	r.accepted.Revision = r.revision
	return statefile.Entry{Position: &snapshot.Position{Epoch: r.epoch, Revision: r.revision}}
}

// hold adds a held producer to an entry.
func (r *roll) hold(entry statefile.Entry, n int, confirmed time.Duration) statefile.Entry {
	h := guard.Held{
		Assignment: member(n, 7),
		Epoch:      r.epoch,
		Revision:   r.revision,
		Since:      time.Date(2026, 3, 1, 12, 0, n, 17, time.UTC),
		Confirmed:  confirmed,
	}
	r.held[id(n)] = h
	entry.Held = append(entry.Held, h)
	return entry
}

func (r *roll) release(entry statefile.Entry, n int) statefile.Entry {
	delete(r.held, id(n))
	entry.Released = append(entry.Released, id(n))
	return entry
}

// state is what an owner would give to Append.
func (r *roll) state() statefile.State {
	s := statefile.State{Accepted: r.accepted}
	for _, producer := range slices.Sorted(maps.Keys(r.held)) {
		s.Held = append(s.Held, r.held[producer])
	}
	return s
}

// show tells everything about a state but its revision, which an entry that
// was left out may have advanced.
func show(s *statefile.State) string {
	var b strings.Builder
	a := s.Accepted
	fmt.Fprintf(&b, "epoch %q format %d digest %x\n", a.Epoch, a.Format, a.Set.Digest())
	ms := maps.Collect(a.Set.All())
	for _, producer := range slices.Sorted(maps.Keys(ms)) {
		fmt.Fprintf(&b, "%+v\n", *ms[producer])
	}
	for _, h := range s.Held {
		fmt.Fprintf(&b, "held %+v %q %d %v %v\n", *h.Assignment, h.Epoch, h.Revision, h.Since.UTC().Format(time.RFC3339Nano), h.Confirmed)
	}
	return b.String()
}

// A mark is a state as it was at some time.
type mark struct {
	shown    string
	revision assignment.Revision
}

func (r *roll) mark() mark {
	s := r.state()
	return mark{show(&s), s.Accepted.Revision}
}

// checkOneOf fails unless the state is one of these, at a revision not above
// it.
func checkOneOf(t failer, s *statefile.State, marks []mark) {
	t.Helper()
	got := show(s)
	for _, m := range marks {
		if m.shown == got && s.Accepted.Revision <= m.revision {
			return
		}
	}
	t.Fatalf("loaded a state that is none of the %d possible ones:\n%srevision %d, want\n%s%d",
		len(marks), got, s.Accepted.Revision, marks[len(marks)-1].shown, marks[len(marks)-1].revision)
}

func open(t failer, cfg statefile.Config) (*statefile.File, *statefile.State) {
	t.Helper()
	if cfg.Collector == "" {
		cfg.Collector = collectorID
	}
	if cfg.MaxProducers == 0 {
		cfg.MaxProducers = 1000
	}
	file, state, err := statefile.Open(cfg)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return file, state
}
