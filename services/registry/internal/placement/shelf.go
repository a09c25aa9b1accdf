package placement

import (
	"cmp"
	"container/heap"
	"math"
	"slices"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A bin is a collector in the making of a plan.
type bin struct {
	id       assignment.CollectorID
	zone     string
	capacity float64 // units
	load     int64   // units
	relative float64 // load over capacity

	// on is the shelves that the bin stands on, and at its place on each: among
	// all, and in its zone.
	on [2]*shelf
	at [2]int
}

// add changes the load and puts the bin in its new place on its shelves.
func (b *bin) add(units int64) {
	b.load += units
	b.relative = float64(b.load) / b.capacity
	for kind, s := range b.on {
		if s != nil {
			heap.Fix(s, b.at[kind])
		}
	}
}

// with is the relative load that the bin would have with so much more.
func (b *bin) with(units int64) float64 { return float64(b.load+units) / b.capacity }

// compare orders bins by relative load, and equals by id.
func compare(a, b *bin) int {
	return cmp.Or(cmp.Compare(a.relative, b.relative), cmp.Compare(a.id, b.id))
}

// A shelf is a heap of bins whose capacities are of one size, with the
// relatively least loaded on top.
type shelf struct {
	kind int // which of a bin's places is the one on this shelf
	size int // the binary exponent of the capacities
	bins []*bin
}

// first is the least loaded bin that is not avoided, or nil. A nil avoid avoids
// none.
func (s *shelf) first(avoid func(*bin) bool) *bin {
	if avoid == nil || len(s.bins) == 0 || !avoid(s.bins[0]) {
		return s.top()
	}
	var aside []*bin
	for len(s.bins) > 0 && avoid(s.bins[0]) {
		aside = append(aside, s.bins[0])
		heap.Pop(s)
	}
	found := s.top()
	for _, b := range aside {
		heap.Push(s, b)
	}
	return found
}

func (s *shelf) top() *bin {
	if len(s.bins) == 0 {
		return nil
	}
	return s.bins[0]
}

// Len is how many bins stand on the shelf.
func (s *shelf) Len() int { return len(s.bins) }

// Less orders the shelf by relative load.
func (s *shelf) Less(i, j int) bool { return compare(s.bins[i], s.bins[j]) < 0 }

// Swap keeps the bins' places right.
func (s *shelf) Swap(i, j int) {
	s.bins[i], s.bins[j] = s.bins[j], s.bins[i]
	s.bins[i].at[s.kind], s.bins[j].at[s.kind] = i, j
}

// Push puts a bin at the end, for heap.
func (s *shelf) Push(x any) {
	b := x.(*bin) //nolint:errcheck,forcetypeassert // demanded by heap.Interface
	b.at[s.kind] = len(s.bins)
	s.bins = append(s.bins, b)
}

// Pop takes the bin at the end, for heap.
func (s *shelf) Pop() any {
	last := s.bins[len(s.bins)-1]
	s.bins = s.bins[:len(s.bins)-1]
	return last
}

// A rack is the shelves of some bins, one for each size of capacity. What a
// producer does to a collector depends on the collector's size: the idle small
// one may be the worse place for a heavy producer. Among bins of one size the
// least loaded one is the best, and so the best of all is among the tops.
type rack []*shelf

// newRack puts bins on shelves.
func newRack(bins []*bin, kind int) rack {
	var r rack
	for _, b := range bins {
		_, size := math.Frexp(b.capacity)
		i := slices.IndexFunc(r, func(s *shelf) bool { return s.size == size })
		if i < 0 {
			i = len(r)
			r = append(r, &shelf{kind: kind, size: size})
		}
		b.on[kind], b.at[kind] = r[i], len(r[i].bins)
		r[i].bins = append(r[i].bins, b)
	}
	for _, s := range r {
		heap.Init(s)
	}
	return r
}

// best is the bin that is relatively least loaded once it has so much more, or
// nil when all are avoided.
func (r rack) best(units int64, avoid func(*bin) bool) *bin {
	var best *bin
	for _, s := range r {
		b := s.first(avoid)
		if b == nil {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(b.with(units), best.with(units)), cmp.Compare(b.id, best.id)) < 0 {
			best = b
		}
	}
	return best
}
