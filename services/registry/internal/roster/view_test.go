package roster_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"pgregory.net/rapid"
)

// checkCauses fails unless each removal is named by what is true after the
// batch.
func checkCauses(t *rapid.T, changes []roster.Change, after model, named map[assignment.ProducerID]assignment.Cause) {
	for _, c := range changes {
		if c.Entry != nil {
			if c.Cause != assignment.CauseUnspecified {
				t.Fatalf("an upsert of %s has cause %d", c.ID, c.Cause)
			}
			continue
		}
		want := named[c.ID]
		if p, ok := after[roster.ProducerKey(c.ID)].Record.(*roster.Producer); ok {
			want = assignment.CauseUnspecified
			if p.Collector != "" {
				want = assignment.CauseHandedOff
			}
		}
		if c.Cause != want {
			t.Fatalf("%s left %s with cause %d, want %d", c.ID, c.Collector, c.Cause, want)
		}
	}
}

// checkView fails unless the view shows what the model does.
func checkView(t *rapid.T, v *roster.View, m model) {
	want := m.sets()
	if diff := cmp.Diff(want, setsOf(v)); diff != "" {
		t.Fatalf("sets (-model +view):\n%s", diff)
	}
	orphans := []assignment.ProducerID{}
	for _, e := range v.Orphans(100) {
		orphans = append(orphans, e.ID)
	}
	slices.Sort(orphans)
	if diff := cmp.Diff(m.unassigned(), orphans); diff != "" {
		t.Fatalf("orphans (-model +view):\n%s", diff)
	}
	if v.Unassigned() != len(orphans) || len(v.Orphans(2)) > 2 {
		t.Fatalf("%d unassigned, %d orphans, %d of at most 2", v.Unassigned(), len(orphans), len(v.Orphans(2)))
	}
	handoffs := 0
	for e := range v.Handoffs {
		handoffs++
		if e.HandoffFrom == "" {
			t.Fatalf("%s is in no handoff", e.ID)
		}
	}
	if handoffs != m.handoffs() || v.Handing() != handoffs {
		t.Fatalf("%d handoffs, %d told, want %d", handoffs, v.Handing(), m.handoffs())
	}
	producers, known := 0, 0
	for key, f := range m {
		switch key.Kind {
		case roster.KindProducer:
			producers++
			if e := v.Producer(assignment.ProducerID(key.ID)); e == nil || e.Revision != f.Revision {
				t.Fatalf("producer %s: %+v, want revision %d", key.ID, e, f.Revision)
			}
		case roster.KindCollector:
			known++
		default:
		}
	}
	if v.Producers() != producers {
		t.Fatalf("%d producers, want %d", v.Producers(), producers)
	}
	checkOwned(t, v)
	seen := 0
	for c := range v.Collectors {
		seen++
		id := c.Collector.ID
		if c.Assigned != want.count(id, false) || c.Leaving != want.count(id, true) {
			t.Fatalf("%s has %d assigned and %d leaving, want %d and %d", id, c.Assigned, c.Leaving, want.count(id, false), want.count(id, true))
		}
		if _, live := m[roster.SessionKey(id)]; c.Live() != live {
			t.Fatalf("%s is live: %v, want %v", id, c.Live(), live)
		}
	}
	if seen != known {
		t.Fatalf("%d collectors, want %d", seen, known)
	}
}

// TestViewIsTheFold feeds any batches to a view: after each one it is what the
// plain fold is, and what it says has changed leads from the sets before to
// those after.
func TestViewIsTheFold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v, m, followed := roster.NewView(), model{}, sets{}
		revision := assignment.Revision(1)
		for range rapid.IntRange(1, 25).Draw(t, "batches") {
			b := drawBatch(t, revision)
			revision += assignment.Revision(rapid.IntRange(1, 3).Draw(t, "gap"))
			named := map[assignment.ProducerID]assignment.Cause{}
			for _, e := range b.Events {
				if r, ok := e.Record.(*roster.Removed); ok {
					named[r.ID] = r.Cause
				}
			}
			m.apply(b)
			effects := v.Apply(b)
			followed.take(effects.Changes)
			if v.Revision() != b.Revision {
				t.Fatalf("revision %d after batch %d", v.Revision(), b.Revision)
			}
			checkView(t, v, m)
			checkCauses(t, effects.Changes, m, named)
			if diff := cmp.Diff(m.sets(), followed); diff != "" {
				t.Fatalf("sets by following the changes (-model +followed):\n%s", diff)
			}
			for _, e := range b.Events {
				if e.Key.Kind == roster.KindSession && !slices.Contains(effects.Sessions, assignment.CollectorID(e.Key.ID)) {
					t.Fatalf("the session of %s changed and is not told", e.Key.ID)
				}
			}
		}
		checkView(t, m.load(revision), m)
	})
}

// TestDiffLeadsFromOneViewToAnother compares a view with what it becomes any
// number of batches later.
func TestDiffLeadsFromOneViewToAnother(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, before := model{}, model{}
		split := rapid.IntRange(1, 10).Draw(t, "before")
		total := split + rapid.IntRange(0, 10).Draw(t, "after")
		epochAt := assignment.Revision(rapid.IntRange(1, total+1).Draw(t, "epoch"))
		for i := range total {
			if i == split {
				before = maps.Clone(m)
			}
			m.apply(drawBatch(t, assignment.Revision(i+1)))
		}
		if split == total {
			before = maps.Clone(m)
		}
		epoch := &roster.Epoch{Epoch: "e"}
		m[epoch.Key()] = roster.Found{Record: epoch, Revision: epochAt}
		from, to := before.load(assignment.Revision(split)), m.load(assignment.Revision(total))

		changes := roster.Diff(from, to)
		followed := before.sets().clone()
		followed.take(changes)
		if diff := cmp.Diff(m.sets(), followed); diff != "" {
			t.Fatalf("sets by following the difference (-later view +followed):\n%s", diff)
		}
		named := map[assignment.ProducerID]assignment.Cause{}
		for _, f := range m {
			if r, ok := f.Record.(*roster.Removed); ok && f.Revision > max(epochAt, from.Revision()) {
				named[r.ID] = r.Cause
			}
		}
		checkCauses(t, changes, m, named)
		for _, c := range changes {
			if c.Entry != nil && before.sets()[c.Collector][c.ID] == (member{c.Entry.Version, c.Role}) {
				if _, had := before.sets()[c.Collector][c.ID]; had {
					t.Fatalf("%s is told to %s again, and is the same", c.ID, c.Collector)
				}
			}
		}
	})
}

// TestStaleNamesAreNotBelieved: what was removed before the epoch began names
// nothing in it, neither after a reload nor when a collector asks.
func TestStaleNamesAreNotBelieved(t *testing.T) {
	producer := &roster.Producer{ID: "p", Stored: []byte("x"), Collector: "c1"}
	gone := &roster.Removed{ID: "p", Cause: assignment.CauseDeregistered, Collector: "c1"}
	epoch := &roster.Epoch{Epoch: "e"}
	for name, test := range map[string]struct {
		epochAt assignment.Revision
		want    assignment.Cause
	}{
		"removed before the epoch":      {epochAt: 7, want: assignment.CauseUnspecified},
		"removed as the epoch began":    {epochAt: 5, want: assignment.CauseUnspecified},
		"removed in the epoch":          {epochAt: 3, want: assignment.CauseDeregistered},
		"removed just after its begin ": {epochAt: 4, want: assignment.CauseDeregistered},
	} {
		t.Run(name, func(t *testing.T) {
			from, to := roster.NewView(), roster.NewView()
			from.Put(producer, 2)
			to.Put(gone, 5)
			to.Put(epoch, test.epochAt)
			want := []roster.Change{{Collector: "c1", ID: "p", Cause: test.want}}
			if diff := cmp.Diff(want, roster.Diff(from, to)); diff != "" {
				t.Errorf("difference (-want +got):\n%s", diff)
			}
			explained := to.Explain("c1", []assignment.ProducerID{"p"})
			if test.want == assignment.CauseUnspecified {
				if len(explained) > 0 {
					t.Errorf("explained %+v from before the epoch", explained)
				}
				return
			}
			if diff := cmp.Diff([]assignment.Removal{{ProducerID: "p", Cause: test.want, Revision: 5}}, explained); diff != "" {
				t.Errorf("explained (-want +got):\n%s", diff)
			}
		})
	}
}

// TestABackupNamesNothing: a view that was loaded names by what was written since
// the one before. Older removals and moves come out of a store that was set back
// and has overtaken, in revisions, what was seen.
func TestABackupNamesNothing(t *testing.T) {
	at := func(revision assignment.Revision, records map[roster.Record]assignment.Revision) *roster.View {
		v := roster.NewView()
		v.Put(&roster.Epoch{Epoch: "e"}, 1)
		for r, written := range records {
			v.Put(r, written)
		}
		v.Loaded(revision)
		return v
	}
	from := at(7, map[roster.Record]assignment.Revision{
		&roster.Producer{ID: "back", Stored: []byte("x"), Collector: "c1"}:  6,
		&roster.Producer{ID: "moved", Stored: []byte("x"), Collector: "c1"}: 6,
		&roster.Producer{ID: "gone", Stored: []byte("x"), Collector: "c1"}:  6,
		&roster.Producer{ID: "given", Stored: []byte("x"), Collector: "c1"}: 6,
	})
	to := at(9, map[roster.Record]assignment.Revision{
		&roster.Removed{ID: "back", Cause: assignment.CauseDeregistered, Collector: "c1"}: 5,
		&roster.Producer{ID: "moved", Stored: []byte("x"), Collector: "c2"}:               5,
		&roster.Removed{ID: "gone", Cause: assignment.CauseDeregistered, Collector: "c1"}: 8,
		&roster.Producer{ID: "given", Stored: []byte("x"), Collector: "c2"}:               8,
	})
	got := map[assignment.ProducerID]assignment.Cause{}
	for _, c := range roster.Diff(from, to) {
		if c.Collector == "c1" {
			got[c.ID] = c.Cause
		}
	}
	want := map[assignment.ProducerID]assignment.Cause{
		"back": assignment.CauseUnspecified, "moved": assignment.CauseUnspecified,
		"gone": assignment.CauseDeregistered, "given": assignment.CauseHandedOff,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestUnassignedIsNotHandedOff: a producer that nobody has must not be named as
// one that another collector collects.
func TestUnassignedIsNotHandedOff(t *testing.T) {
	v := roster.NewView()
	v.Put(&roster.Producer{ID: "p", Stored: []byte("x"), Collector: "c1"}, 1)
	old := roster.NewView()
	old.Put(&roster.Producer{ID: "p", Stored: []byte("x"), Collector: "c1"}, 1)
	orphan := &roster.Producer{ID: "p", Stored: []byte("x")}
	effects := v.Apply(roster.Batch{Revision: 2, Events: []roster.Event{{Key: orphan.Key(), Record: orphan}}})
	want := []roster.Change{{Collector: "c1", ID: "p", Cause: assignment.CauseUnspecified}}
	if diff := cmp.Diff(want, effects.Changes); diff != "" {
		t.Errorf("by the event (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, roster.Diff(old, v)); diff != "" {
		t.Errorf("by comparing views (-want +got):\n%s", diff)
	}
}

// TestEpochChangeIsTold: the first epoch of a view is no change, another one is.
func TestEpochChangeIsTold(t *testing.T) {
	v := roster.NewView()
	for i, step := range []struct {
		epoch assignment.Epoch
		told  bool
	}{{"e1", false}, {"e1", false}, {"e2", true}} {
		r := &roster.Epoch{Epoch: step.epoch}
		at := assignment.Revision(i + 1)
		effects := v.Apply(roster.Batch{Revision: at, Events: []roster.Event{{Key: r.Key(), Record: r}}})
		if effects.Epoch != step.told || v.Epoch() != step.epoch || v.EpochRevision() != at {
			t.Errorf("step %d: told %v, epoch %s at %d", i, effects.Epoch, v.Epoch(), v.EpochRevision())
		}
	}
}
