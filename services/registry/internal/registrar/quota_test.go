package registrar

import (
	"maps"
	"slices"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"pgregory.net/rapid"
)

// A crossing is a write that is under way: what it is of, and what became of it.
type crossing struct {
	*arrival

	committed bool
	beaten    bool // another one of the same producer was committed, which it did not see
}

// A harbour is the arrivals of a registrar beside what is under way, in the store,
// and in the view.
type harbour struct {
	arrivals

	under       []*crossing
	unshown     map[assignment.ProducerID]*crossing
	store, view map[assignment.ProducerID]roster.Owner
}

// pick draws one that is under way.
func (h *harbour) pick(t *rapid.T, want func(*crossing) bool) *crossing {
	some := slices.DeleteFunc(slices.Clone(h.under), func(c *crossing) bool { return !want(c) })
	if len(some) == 0 {
		t.Skip("there is none")
	}
	return rapid.SampledFrom(some).Draw(t, "which")
}

// decide is a registration that is being written.
func (h *harbour) decide(t *rapid.T) {
	id := rapid.SampledFrom([]assignment.ProducerID{"a", "b", "c"}).Draw(t, "id")
	owner := roster.Owner(rapid.IntRange(1, 2).Draw(t, "owner"))
	if h.view[id] == owner {
		t.Skip("it counts for that one already")
	}
	h.under = append(h.under, &crossing{arrival: h.note(id, owner), beaten: h.unshown[id] != nil})
}

func (h *harbour) commit(t *rapid.T) {
	c := h.pick(t, func(c *crossing) bool { return !c.committed && !c.beaten })
	c.committed, h.unshown[c.id], h.store[c.id] = true, c, c.owner
	for _, other := range h.under {
		other.beaten = other.beaten || other.id == c.id
	}
}

func (h *harbour) answer(c *crossing) {
	h.leave(c.arrival, c.committed, c.committed && h.unshown[c.id] != c)
	h.under = slices.DeleteFunc(h.under, func(other *crossing) bool { return other == c })
}

func (h *harbour) showSome(t *rapid.T) {
	for _, id := range slices.Sorted(maps.Keys(h.unshown)) {
		if rapid.Bool().Draw(t, "show "+string(id)) {
			h.show(id)
			delete(h.unshown, id)
			h.view[id] = h.store[id]
		}
	}
}

func (h *harbour) loadAnew(*rapid.T) {
	loaded := roster.NewView()
	for id, owner := range h.store {
		loaded.Put(&roster.Producer{ID: id, Stored: []byte("x"), Owner: owner}, 1)
	}
	h.reload(loaded)
	clear(h.unshown)
	h.view = maps.Clone(h.store)
}

func (h *harbour) stands(one *arrival) bool { return slices.Contains(h.of[one.id], one) }

func (h *harbour) check(t *rapid.T) {
	count := map[roster.Owner]int{}
	for id, some := range h.of {
		for _, one := range some {
			count[one.owner]++
			if h.view[id] == one.owner {
				t.Fatalf("%s counts twice for %d", id, one.owner)
			}
		}
	}
	if !maps.Equal(count, h.counts) {
		t.Fatalf("%v arrive, want %v", h.counts, count)
	}
	for id, c := range h.unshown {
		if !h.stands(c.arrival) {
			t.Fatalf("%s is in the store and not in the view, and does not count", id)
		}
	}
	for _, c := range h.under {
		if !c.committed && !c.beaten && !h.stands(c.arrival) {
			t.Fatalf("%s may be committed, and does not count", c.id)
		}
	}
}

// TestArrivals: whatever the order in which writes are committed, answered and
// shown, what may be committed and what is in the store and not in the view counts,
// and nothing is left when all is told.
func TestArrivals(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := &harbour{
			arrivals: newArrivals(), unshown: map[assignment.ProducerID]*crossing{},
			store: map[assignment.ProducerID]roster.Owner{}, view: map[assignment.ProducerID]roster.Owner{},
		}
		t.Repeat(map[string]func(*rapid.T){
			"decide": h.decide,
			"commit": h.commit,
			"answer": func(t *rapid.T) { h.answer(h.pick(t, func(*crossing) bool { return true })) },
			"show":   h.showSome,
			"reload": h.loadAnew,
			"":       h.check,
		})
		for len(h.under) > 0 {
			h.answer(h.under[0])
		}
		for id := range h.unshown {
			h.show(id)
		}
		if len(h.of) > 0 || len(h.counts) > 0 {
			t.Fatalf("left behind: %v, %v", h.of, h.counts)
		}
	})
}
