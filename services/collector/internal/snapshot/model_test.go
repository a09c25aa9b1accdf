package snapshot_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/snapshot"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"pgregory.net/rapid"
)

// A subscription is a model of both ends of a stream and of what may happen to
// them.
type subscription struct {
	registry  *registry
	accepted  *snapshot.Accepted
	assembler *snapshot.Assembler

	// sent are the sets of all snapshots that were sent, sealed or not, and
	// frames their frames; told is what the collector has told, some day.
	sent   []members
	frames []assignment.Frame
	told   []*assignment.Accepted

	// past are registries of former days, to be restored.
	past []registry
}

func newSubscription(t *rapid.T) *subscription {
	n := rapid.SampledFrom([]int{0, 3, 70, 150}).Draw(t, "producers")
	s := &subscription{registry: newRegistry(n), accepted: &snapshot.Accepted{}, sent: []members{{}}}
	s.resubscribe(t)
	return s
}

func (s *subscription) resubscribe(*rapid.T) {
	s.assembler = snapshot.NewAssembler(s.accepted, maxCount)
}

// change changes the roll at random.
func (s *subscription) change(t *rapid.T) {
	s.registry.perChunk = rapid.SampledFrom([]int{1, 7, 50}).Draw(t, "per chunk")
	for range rapid.IntRange(1, 5).Draw(t, "changes") {
		id := producer(rapid.IntRange(0, 200).Draw(t, "producer"))
		if rapid.Bool().Draw(t, "remove") {
			s.registry.remove(id)
		} else {
			role := assignment.Role(rapid.Uint8Range(0, 2).Draw(t, "role"))
			s.registry.put(id, assignment.Version(rapid.Uint64().Draw(t, "version")), role)
		}
	}
}

// backUp and restore lead the registry back in time, with a new epoch or, which
// is worse, without one.
func (s *subscription) backUp(*rapid.T) {
	backup := *s.registry
	backup.members = maps.Clone(backup.members)
	s.past = append(s.past, backup)
}

func (s *subscription) restore(t *rapid.T) {
	if len(s.past) == 0 {
		return
	}
	snapshots := s.registry.snapshots
	*s.registry = rapid.SampledFrom(s.past).Draw(t, "backup")
	s.registry.members = maps.Clone(s.registry.members)
	s.registry.snapshots = snapshots
	if rapid.Bool().Draw(t, "new epoch") {
		s.registry.epoch += "'"
	}
}

// send sends a snapshot of any scope, possibly made for another position than
// the collector's, possibly corrupted.
func (s *subscription) send(t *rapid.T) {
	frames, sound := s.draw(t)
	if rapid.Bool().Draw(t, "corrupt") {
		for range rapid.IntRange(1, 3).Draw(t, "corruptions") {
			frames = s.corrupt(t, frames)
		}
		sound = false
	}
	seals := 0
	for _, frame := range frames {
		before := observe(s.accepted)
		sealed, err := s.assembler.Add(frame)
		if sealed != nil {
			seals++
			checkSealed(t, before, sealed, s.accepted)
			after := observe(s.accepted)
			if !slices.ContainsFunc(s.sent, func(sent members) bool { return sameSet(sent, after.members) }) {
				t.Fatalf("sealed a set that no registry has sent: %v", after.members)
			}
			if after.Epoch == before.Epoch && after.Revision < before.Revision {
				t.Fatalf("sealed revision %d after %d", after.Revision, before.Revision)
			}
			continue
		}
		checkUntouched(t, s.accepted, before)
		if err != nil {
			if sound {
				t.Fatalf("a sound snapshot is refused: %v", err)
			}
			if rapid.Bool().Draw(t, "reads on") {
				continue // a reader should not, but it does no harm
			}
			break
		}
	}
	if sound && (seals != 1 || !sameSet(observe(s.accepted).members, s.registry.members) || !s.accepted.Agrees(s.registry.heartbeat())) {
		t.Fatalf("a sound snapshot of scope %v sealed %d times", frames[0], seals)
	}
	if s.assembler.Open() || rapid.Bool().Draw(t, "resubscribe") {
		s.resubscribe(t)
	}
	if d := s.accepted.Describe(); d != nil {
		s.told = append(s.told, d)
	}
}

// draw makes a snapshot, and tells whether it must be sealed.
func (s *subscription) draw(t *rapid.T) (frames []assignment.Frame, sound bool) {
	base, revision := maps.Collect(s.accepted.Set.All()), s.accepted.Revision
	told := s.accepted.Describe()
	sound = s.registry.epoch != s.accepted.Epoch || s.registry.revision >= s.accepted.Revision
	resumable := s.accepted.Epoch != "" && s.accepted.Format == 1
	switch rapid.IntRange(0, 5).Draw(t, "snapshot") {
	case 0:
		frames = s.registry.all()
	case 1, 2:
		sound = sound && resumable
		if told == nil || rapid.Bool().Draw(t, "wrong buckets") {
			told, sound = s.misremember(t), false
		}
		frames = s.registry.buckets(told)
	default:
		sound = sound && resumable && s.accepted.Epoch == s.registry.epoch
		if rapid.Bool().Draw(t, "wrong base") {
			base, sound = rapid.SampledFrom(s.sent).Draw(t, "base"), false
			revision += assignment.Revision(rapid.IntRange(-1, 1).Draw(t, "off"))
		}
		frames = s.registry.changes(base, revision, "stranger")
	}
	s.sent, s.frames = append(s.sent, maps.Clone(s.registry.members)), append(s.frames, frames...)
	return frames, sound
}

// misremember gives a description that was true some day, or never.
func (s *subscription) misremember(t *rapid.T) *assignment.Accepted {
	if len(s.told) > 0 && rapid.Bool().Draw(t, "stale") {
		return rapid.SampledFrom(s.told).Draw(t, "told")
	}
	bucketBits := rapid.Uint8Range(0, 5).Draw(t, "bits")
	digests := s.accepted.Set.BucketDigests(bucketBits)
	digests[rapid.IntRange(0, len(digests)-1).Draw(t, "bucket")]++
	return &assignment.Accepted{BucketBits: bucketBits, BucketDigests: digests}
}

// corrupt does one thing to the frames that a bug or a bad network might.
func (s *subscription) corrupt(t *rapid.T, frames []assignment.Frame) []assignment.Frame {
	frames = slices.Clone(frames)
	if len(frames) == 0 {
		return frames
	}
	i := rapid.IntRange(0, len(frames)-1).Draw(t, "at")
	switch rapid.IntRange(0, 6).Draw(t, "corruption") {
	case 0:
		return slices.Delete(frames, i, i+1)
	case 1:
		return slices.Insert(frames, i, frames[i])
	case 2:
		j := rapid.IntRange(0, len(frames)-1).Draw(t, "and")
		frames[i], frames[j] = frames[j], frames[i]
		return frames
	case 3:
		return frames[:i]
	case 4:
		return slices.Insert(frames, i, rapid.SampledFrom(s.frames).Draw(t, "of former days"))
	case 5:
		return slices.Insert[[]assignment.Frame, assignment.Frame](frames, i, s.registry.heartbeat())
	default:
		return garble(t, frames, i)
	}
}

// garble changes a field of a frame.
func garble(t *rapid.T, frames []assignment.Frame, i int) []assignment.Frame {
	switch frames[i].(type) {
	case *assignment.Begin:
		return with(frames, i, rapid.SampledFrom(changesOf(begins, "BucketBits", "ReplacedBuckets")).Draw(t, "begin's field"))
	case *assignment.Chunk:
		return with(frames, i, func(c *assignment.Chunk) { garbleItem(t, c) })
	case *assignment.End:
		return with(frames, i, rapid.SampledFrom(changesOf(ends)).Draw(t, "end's field"))
	default:
		return frames
	}
}

func garbleItem(t *rapid.T, c *assignment.Chunk) {
	n := len(c.Assignments)
	if n == 0 {
		victim := producer(rapid.IntRange(0, 200).Draw(t, "victim"))
		c.Removals = append(slices.Clone(c.Removals), assignment.Removal{ProducerID: victim})
		return
	}
	i := rapid.IntRange(0, n-1).Draw(t, "item")
	m := *c.Assignments[i]
	m.Version ^= 1 << rapid.IntRange(0, 63).Draw(t, "bit")
	c.Assignments = slices.Clone(c.Assignments)
	c.Assignments[i] = &m
}

// changesOf are the changes of a table, but those of some fields.
func changesOf[F any](table map[string][]mutation[F], but ...string) (changes []func(*F)) {
	for _, field := range slices.Sorted(maps.Keys(table)) {
		for _, m := range table[field] {
			if !slices.Contains(but, field) {
				changes = append(changes, m.change)
			}
		}
	}
	return changes
}

// Whatever frames come, they make the collector's set exactly the registry's,
// or they change nothing at all.
func TestTheRegistrysSetOrNone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSubscription(t)
		t.Repeat(map[string]func(*rapid.T){
			"change":      s.change,
			"send":        s.send,
			"send again":  s.send,
			"back up":     s.backUp,
			"restore":     s.restore,
			"resubscribe": s.resubscribe,
		})
	})
}

// NoRemovalWithoutSeal: any prefix of any valid stream, and then nothing,
// leaves the set of the last end frame in it.
func TestNoRemovalWithoutSeal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSubscription(t)
		var stream []assignment.Frame
		var expected []members // after each frame
		for range rapid.IntRange(1, 4).Draw(t, "snapshots") {
			s.change(t)
			frames := s.registry.all()
			if told := s.accepted.Describe(); told != nil {
				frames = rapid.SampledFrom([][]assignment.Frame{
					frames, s.registry.buckets(told), s.registry.changes(maps.Collect(s.accepted.Set.All()), s.accepted.Revision),
				}).Draw(t, "snapshot")
			}
			before := maps.Collect(s.accepted.Set.All())
			seal(t, s.accepted, frames...)
			stream = append(append(stream, frames...), s.registry.heartbeat())
			expected = append(expected, slices.Repeat([]members{before}, len(frames)-1)...)
			expected = append(expected, slices.Repeat([]members{maps.Clone(s.registry.members)}, 2)...)
		}
		cut := rapid.IntRange(0, len(stream)).Draw(t, "cut")
		accepted := &snapshot.Accepted{}
		if _, err := add(t, snapshot.NewAssembler(accepted, maxCount), accepted, stream[:cut]...); err != nil {
			t.Fatal(err)
		}
		want := members{}
		if cut > 0 {
			want = expected[cut-1]
		}
		got := observe(accepted)
		if !sameSet(got.members, want) || got.count != len(want) || got.digest != digestOf(want) {
			t.Fatalf("after %d of %d frames: %d members, want %d", cut, len(stream), got.count, len(want))
		}
		if accepted.Describe() == nil {
			return
		}
		// What was cut off comes with the next stream.
		seal(t, accepted, s.registry.buckets(accepted.Describe())...)
		if !sameSet(observe(accepted).members, s.registry.members) {
			t.Fatal("the next stream does not make the set whole")
		}
	})
}
