package store_test

import (
	"errors"
	"fmt"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
)

// A model is what a store is to be: a map, and its former states.
type model struct {
	memory    *store.Memory
	store     *store.Store
	revision  assignment.Revision
	compacted assignment.Revision
	stands    map[roster.Key]roster.Found
	was       map[assignment.Revision]map[roster.Key]roster.Found
	text      int
}

// TestMemoryIsAMap does anything with a memory store and with the model.
func TestMemoryIsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		memory := store.NewMemory()
		m := &model{
			memory: memory, store: memory.Open(), revision: 1,
			stands: map[roster.Key]roster.Found{},
			was:    map[assignment.Revision]map[roster.Key]roster.Found{1: {}},
		}
		defer func() { _ = m.store.Close() }()
		t.Repeat(map[string]func(*rapid.T){
			"commit":  m.commit,
			"load":    m.load,
			"watch":   m.watch,
			"compact": m.compact,
			"reopen": func(*rapid.T) {
				_ = m.store.Close()
				m.store = m.memory.Open()
			},
		})
	})
}

func (m *model) drawTxn(t *rapid.T) roster.Txn {
	var txn roster.Txn
	ids := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "a/b", "b", "c", "z"}), 1, 3, rapid.ID).Draw(t, "keys")
	for _, id := range ids {
		m.text++
		w := roster.Write{Key: roster.ProducerKey(assignment.ProducerID(id)), Record: record(id, fmt.Sprint(m.text))}
		w.Expect = m.stands[w.Key].Revision
		switch rapid.IntRange(0, 9).Draw(t, "expect") {
		case 0:
			w.Expect = 0
		case 1:
			w.Expect = assignment.Revision(rapid.Int64Range(0, int64(m.revision)).Draw(t, "revision"))
		}
		switch rapid.IntRange(0, 5).Draw(t, "write") {
		case 0, 1:
			w.Record = nil
		case 2:
			w.Record, w.Check = nil, len(txn) > 0 // there is a write before it
		}
		txn = append(txn, w)
	}
	return txn
}

// TestCallIsAsIfInOrder gives a memory store many transactions in one call, and
// the model one after the other.
func TestCallIsAsIfInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		memory := store.NewMemory()
		m := &model{
			memory: memory, store: memory.Open(), revision: 1,
			stands: map[roster.Key]roster.Found{},
			was:    map[assignment.Revision]map[roster.Key]roster.Found{},
		}
		defer func() { _ = m.store.Close() }()
		for range rapid.IntRange(0, 4).Draw(t, "before") {
			m.commit(t)
		}
		txns := rapid.SliceOfN(rapid.Custom(m.drawTxn), 1, 12).Draw(t, "call")
		outcomes, err := m.store.Commit(t.Context(), txns)
		if err != nil {
			t.Fatal(err)
		}
		// The order of what has nothing to do with each other is not given, so
		// nothing is known of the revisions.
		m.revision += 1000
		type happened struct {
			Committed bool
			Found     []roster.Record
		}
		var want, got []happened
		for i, txn := range txns {
			h, g := happened{Committed: m.holds(txn)}, happened{Committed: outcomes[i].Committed}
			if h.Committed {
				m.apply(txn)
			} else {
				for _, w := range txn {
					h.Found = append(h.Found, m.stands[w.Key].Record)
				}
			}
			for _, found := range outcomes[i].Found {
				g.Found = append(g.Found, found.Record)
			}
			want, got = append(want, h), append(got, g)
		}
		if diff := cmp.Diff(want, got, ignoreVersion()); diff != "" {
			t.Fatalf("outcomes of %+v (-want +got):\n%s", txns, diff)
		}
		m.stand(t)
	})
}

// stand compares what stands, but for the revisions.
func (m *model) stand(t *rapid.T) {
	want, got := map[roster.Key]roster.Record{}, map[roster.Key]roster.Record{}
	for key, found := range m.stands {
		want[key] = found.Record
	}
	_, err := m.store.Load(t.Context(), func(found roster.Found) error {
		got[found.Record.Key()] = found.Record
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, ignoreVersion()); diff != "" {
		t.Fatalf("stands (-want +got):\n%s", diff)
	}
}

func (m *model) holds(txn roster.Txn) bool {
	for _, w := range txn {
		if m.stands[w.Key].Revision != w.Expect {
			return false
		}
	}
	return true
}

// commit has one Txn a call, so that the model knows the order.
func (m *model) commit(t *rapid.T) {
	txn := m.drawTxn(t)
	outcomes, err := m.store.Commit(t.Context(), []roster.Txn{txn})
	if err != nil {
		t.Fatal(err)
	}
	want := roster.Outcome{Committed: m.holds(txn), Revision: m.revision}
	if !want.Committed {
		for _, w := range txn {
			want.Found = append(want.Found, m.stands[w.Key])
		}
	} else if m.apply(txn) {
		want.Revision = m.revision
	}
	if diff := cmp.Diff(want, outcomes[0], ignoreVersion()); diff != "" {
		t.Fatalf("outcome of %+v (-want +got):\n%s", txn, diff)
	}
}

func (m *model) apply(txn roster.Txn) (changed bool) {
	next := maps.Clone(m.stands)
	for _, w := range txn {
		if w.Check {
			continue
		}
		if w.Record != nil {
			next[w.Key] = roster.Found{Record: w.Record, Revision: m.revision + 1}
			changed = true
		} else if _, stood := next[w.Key]; stood {
			delete(next, w.Key)
			changed = true
		}
	}
	if changed {
		m.revision++
		m.stands = next
		m.was[m.revision] = next
	}
	return changed
}

func (m *model) load(t *rapid.T) {
	all := map[roster.Key]roster.Found{}
	revision, err := m.store.Load(t.Context(), func(found roster.Found) error {
		all[found.Record.Key()] = found
		return nil
	})
	if err != nil || revision != m.revision {
		t.Fatalf("loaded at revision %d, %v; want %d", revision, err, m.revision)
	}
	if diff := cmp.Diff(m.stands, all, ignoreVersion()); diff != "" {
		t.Fatalf("loaded (-want +got):\n%s", diff)
	}
}

// watch begins at any revision and compares the state after each batch.
func (m *model) watch(t *rapid.T) {
	after := assignment.Revision(rapid.Int64Range(1, int64(m.revision)).Draw(t, "after"))
	state := maps.Clone(m.was[after])
	err := m.store.Watch(t.Context(), after, func(batch roster.Batch) error {
		for _, event := range batch.Events {
			if event.Record == nil {
				delete(state, event.Key)
			} else {
				state[event.Key] = roster.Found{Record: event.Record, Revision: batch.Revision}
			}
		}
		if diff := cmp.Diff(m.was[batch.Revision], state, ignoreVersion()); diff != "" {
			return fmt.Errorf("at revision %d (-want +got):\n%s", batch.Revision, diff)
		}
		if batch.Revision == m.revision {
			return errStop
		}
		return nil
	})
	want := errStop
	if after+1 < m.compacted {
		want = registrar.ErrCompacted
	}
	if !errors.Is(err, want) {
		t.Fatalf("watch after %d: %v, want %v", after, err, want)
	}
}

func (m *model) compact(t *rapid.T) {
	at := assignment.Revision(rapid.Int64Range(1, int64(m.revision)).Draw(t, "at"))
	m.memory.Compact(at)
	m.compacted = max(m.compacted, at)
}

var errStop = errors.New("enough")

// ignoreVersion is for records that were written without their version.
func ignoreVersion() cmp.Option {
	return cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Version" }, cmp.Ignore())
}
