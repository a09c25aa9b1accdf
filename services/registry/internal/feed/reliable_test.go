package feed_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/feed"
	"pgregory.net/rapid"
)

// A world is a feed, what it should hold, and subscribers that take what they
// are given sooner or later.
type world struct {
	feed     *feed.Feed
	revision assignment.Revision
	sets     map[assignment.CollectorID]versions
	causes   map[assignment.CollectorID]map[assignment.ProducerID]assignment.Removal // of what is gone
	subs     []*subscriber
}

type subscriber struct {
	*mirror
	collector assignment.CollectorID
}

var collectors = []assignment.CollectorID{"c1", "c2"}

// newWorld makes a feed whose heartbeats are due at once: Next never waits.
func newWorld() *world {
	w := &world{
		feed: feed.New(0), sets: map[assignment.CollectorID]versions{},
		causes: map[assignment.CollectorID]map[assignment.ProducerID]assignment.Removal{},
	}
	for _, c := range collectors {
		w.sets[c] = versions{}
		w.causes[c] = map[assignment.ProducerID]assignment.Removal{}
	}
	w.feed.Load("e", 0, nothing, nil)
	return w
}

func nothing(func(assignment.CollectorID, *feed.Item) bool) {}

func (w *world) apply(t *rapid.T) {
	w.revision += assignment.Revision(rapid.IntRange(1, 3).Draw(t, "gap"))
	var changes []feed.Change
	for range rapid.IntRange(0, 5).Draw(t, "changes") {
		c := rapid.SampledFrom(collectors).Draw(t, "collector")
		id := producer(rapid.IntRange(0, 9).Draw(t, "producer"))
		if rapid.Bool().Draw(t, "put") {
			v := assignment.Version(rapid.IntRange(1, 3).Draw(t, "version"))
			changes = append(changes, put(c, id, v))
			w.sets[c][id] = v
			delete(w.causes[c], id)
			continue
		}
		cause := assignment.Cause(rapid.IntRange(0, 3).Draw(t, "cause"))
		changes = append(changes, remove(c, id, cause))
		if _, had := w.sets[c][id]; had {
			w.causes[c][id] = assignment.Removal{ProducerID: id, Cause: cause, Revision: w.revision}
		}
		delete(w.sets[c], id)
	}
	w.feed.Apply(w.revision, changes)
}

func (w *world) subscribe(t *rapid.T) {
	if len(w.subs) == 6 {
		return
	}
	c := rapid.SampledFrom(collectors).Draw(t, "collector")
	w.subs = append(w.subs, &subscriber{follow(w.feed, feed.Request{Collector: c, ID: fmt.Sprint(len(w.subs))}), c})
}

func (w *world) unsubscribe(t *rapid.T) {
	if len(w.subs) == 0 {
		return
	}
	at := rapid.IntRange(0, len(w.subs)-1).Draw(t, "subscriber")
	w.subs[at].sub.Close()
	w.subs = slices.Delete(w.subs, at, at+1)
}

func (w *world) take(t *rapid.T) {
	if len(w.subs) == 0 {
		return
	}
	s := w.subs[rapid.IntRange(0, len(w.subs)-1).Draw(t, "subscriber")]
	before, waiting := maps.Clone(s.set), s.sub.Pending()
	d, err := s.step(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.at != w.revision {
		t.Fatalf("%T at revision %d, the feed is at %d", d, s.at, w.revision)
	}
	if diff := cmp.Diff(w.sets[s.collector], s.set); diff != "" {
		t.Fatalf("%s at revision %d (-feed +subscriber):\n%s", s.collector, s.at, diff)
	}
	switch d := d.(type) {
	case *feed.Beat:
		if waiting > 0 {
			t.Fatalf("a heartbeat with %d changes pending", waiting)
		}
	case *feed.Snapshot:
		for _, r := range d.Removals {
			if want := w.causes[s.collector][r.ProducerID]; r != want {
				t.Fatalf("removal %+v, want %+v", r, want)
			}
		}
		if n := len(d.Items) + len(d.Removals); n > len(before)+len(s.set) {
			t.Fatalf("%d changes lead from %d members to %d", n, len(before), len(s.set))
		}
	}
}

// bounded fails unless what waits for each subscriber is bounded by the sets.
func (w *world) bounded(t *rapid.T) {
	for _, s := range w.subs {
		if n := s.sub.Pending(); n > len(s.set)+len(w.sets[s.collector]) {
			t.Fatalf("%d changes wait for a subscriber with %d members, of now %d", n, len(s.set), len(w.sets[s.collector]))
		}
	}
	if w.feed.Subscribers() != len(w.subs) {
		t.Fatalf("%d subscribers, want %d", w.feed.Subscribers(), len(w.subs))
	}
}

// TestReliable interleaves any changes with deliveries to several subscribers:
// after each delivery a subscriber's set is the feed's at the revision told,
// exactly, and no heartbeat is ahead of a pending change.
func TestReliable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"apply", "apply", "apply", "take", "take", "take", "subscribe", "unsubscribe"}).Draw(t, "do") {
			case "apply":
				w.apply(t)
			case "take":
				w.take(t)
			case "subscribe":
				w.subscribe(t)
			case "unsubscribe":
				w.unsubscribe(t)
			}
			w.bounded(t)
		}
		for len(w.subs) > 0 {
			w.unsubscribe(t)
		}
		kept := 0
		for _, set := range w.sets {
			if len(set) > 0 {
				kept++
			}
		}
		if w.feed.Sets() != kept {
			t.Fatalf("%d sets are kept, %d have members", w.feed.Sets(), kept)
		}
	})
}

// TestResumeExact subscribes with any accepted set: the buckets that differ are
// sent, and no other.
func TestResumeExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) versions {
			v := versions{}
			for i, version := range rapid.SliceOfN(rapid.IntRange(0, 3), 0, 40).Draw(t, name) {
				if version > 0 {
					v[producer(i)] = assignment.Version(version)
				}
			}
			return v
		}
		theirs := draw("registry")
		held := maps.Clone(theirs)
		if rapid.Bool().Draw(t, "differs") {
			held = draw("held")
		}
		bits := uint8(rapid.IntRange(0, 7).Draw(t, "bits"))
		f := feed.New(0)
		f.Load("e2", 7, func(yield func(assignment.CollectorID, *feed.Item) bool) {
			for id, v := range theirs {
				if !yield("c1", item(id, v)) {
					return
				}
			}
		}, nil)
		m := follow(f, feed.Request{Collector: "c1", ID: "s", Accepted: held.accepted(bits)})
		defer m.sub.Close()
		m.set = maps.Clone(held)
		d, err := m.step(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(theirs, m.set); diff != "" {
			t.Fatalf("after the resume (-registry +subscriber):\n%s", diff)
		}
		checkResume(t, d, theirs, held, bits)
	})
}

func checkResume(t *rapid.T, d feed.Delivery, theirs, held versions, bits uint8) {
	snapshot, ok := d.(*feed.Snapshot)
	if !ok || snapshot.Scope != assignment.ScopeBuckets || snapshot.BucketBits != bits {
		t.Fatalf("first delivery %+v, want buckets of %d bits", d, bits)
	}
	var want []uint32
	mine, yours := held.accepted(bits), theirs.accepted(bits)
	items := 0
	for b := range mine.BucketDigests {
		if mine.BucketDigests[b] != yours.BucketDigests[b] {
			want = append(want, uint32(b))
		}
	}
	for id := range theirs {
		if slices.Contains(want, assignment.Bucket(id, bits)) {
			items++
		}
	}
	if !slices.Equal(want, snapshot.Replaced) || len(snapshot.Items) != items {
		t.Fatalf("buckets %v with %d items, want %v with %d", snapshot.Replaced, len(snapshot.Items), want, items)
	}
}

// TestResumeOfAnotherFormatIsWhole: a set that lacks fields is not resumed.
func TestResumeOfAnotherFormatIsWhole(t *testing.T) {
	f := feed.New(0)
	f.Load("e", 1, nothing, nil)
	f.Apply(2, []feed.Change{put("c1", "p", 1)})
	accepted := versions{"p": 1}.accepted(0)
	accepted.AssignmentFormat++
	s := f.Subscribe(feed.Request{Collector: "c1", ID: "s", Accepted: accepted})
	defer s.Close()
	if d := next[*feed.Snapshot](t, s); d.Scope != assignment.ScopeAll || len(d.Items) != 1 {
		t.Errorf("%+v, want the whole set", d)
	}
}

// TestCameAndWentLeavesNothing: what a slow subscriber never saw does not pile
// up.
func TestCameAndWentLeavesNothing(t *testing.T) {
	f := feed.New(0)
	f.Load("e", 1, nothing, nil)
	s := f.Subscribe(feed.Request{Collector: "c1", ID: "s"})
	defer s.Close()
	next[*feed.Snapshot](t, s)
	for i := range 100_000 {
		at := assignment.Revision(2 + 2*i)
		f.Apply(at, []feed.Change{put("c1", producer(i), 1)})
		f.Apply(at+1, []feed.Change{remove("c1", producer(i), assignment.CauseDeregistered)})
	}
	if n := s.Pending(); n > 0 {
		t.Errorf("%d changes wait", n)
	}
	if b := next[*feed.Beat](t, s); b.Revision != 200_001 || b.SetCount != 0 {
		t.Errorf("heartbeat %+v", b)
	}
}
