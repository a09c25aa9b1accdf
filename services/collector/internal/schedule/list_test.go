package schedule_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A generation is the set that TestAtomicApply applies at one time, all at the
// version of that number. It shares most producers with the one before, and for
// some of these it is other work.
type generation map[assignment.ProducerID]*assignment.Assignment

const generationSize = 900

func generationOf(number int) generation {
	set := generation{}
	for i := range generationSize + number%3 {
		if (i+number)%5 == 0 {
			continue
		}
		a := newAssignment(assignment.ProducerID(fmt.Sprintf("p%04d", i)), time.Hour)
		a.Version = assignment.Version(number)
		a.HonorLabels = (i+number)%7 == 0
		set[a.ProducerID] = a
	}
	return set
}

func (g generation) changeFrom(before generation) schedule.Change {
	c := schedule.Change{Upserts: slices.Collect(maps.Values(g))}
	for id := range before {
		if g[id] == nil {
			c.Removals = append(c.Removals, schedule.Removal{ProducerID: id})
		}
	}
	return c
}

// readGeneration reads the whole set slowly, fails unless it is one generation,
// and returns its number.
func readGeneration(t *testing.T, s *schedule.Schedule) int {
	t.Helper()
	var list []schedule.Status
	s.List("", 2*generationSize, func(status *schedule.Status) bool {
		runtime.Gosched() // let a change in between two of them
		list = append(list, *status)
		return false
	})
	version := list[0].Assignment.Version
	want := generationOf(int(version))
	if len(list) != len(want) {
		t.Errorf("generation %d: %d listed, want %d", version, len(list), len(want))
	}
	for _, status := range list {
		if status.Assignment.Version != version || want[status.Assignment.ProducerID] == nil {
			t.Errorf("generation %d has %s of %d", version, status.Assignment.ProducerID, status.Assignment.Version)
		}
	}
	if n := s.Len(); n < generationSize*4/5 || n > generationSize*4/5+2 {
		t.Errorf("%d applied", n)
	}
	return int(version)
}

// AtomicApply: whoever reads while changes are made sees one of the sets, never
// a mixture.
func TestAtomicApply(t *testing.T) {
	const generations, readers = 60, 2
	f := &fleet{inRealTime: true}
	s := schedule.New(schedule.Config{Opener: f, StartRate: 1_000_000})
	s.Apply(generationOf(0).changeFrom(nil))
	stop := startForReal(t, s)
	var group sync.WaitGroup
	group.Go(func() {
		for i := range generations {
			s.Apply(generationOf(i + 1).changeFrom(generationOf(i)))
		}
	})
	for range readers {
		group.Go(func() {
			for last := 0; last < generations; {
				next := readGeneration(t, s)
				if next < last {
					t.Errorf("generation %d after %d", next, last)
				}
				last = next
			}
		})
	}
	group.Wait()
	stop()
	f.sound(t)
}

func TestListPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{}
		s, stop := run(t, f, schedule.Config{})
		var change schedule.Change
		for _, i := range rand.Perm(1000) {
			change.Upserts = append(change.Upserts, newAssignment(assignment.ProducerID(fmt.Sprintf("p%04d", i)), time.Hour))
		}
		s.Apply(change)
		after, n := assignment.ProducerID(""), 0
		for {
			page := s.List(after, 77, nil)
			for _, status := range page {
				if want := assignment.ProducerID(fmt.Sprintf("p%04d", n)); status.Assignment.ProducerID != want {
					t.Fatalf("%s, want %s", status.Assignment.ProducerID, want)
				}
				n++
				after = status.Assignment.ProducerID
			}
			if len(page) < 77 {
				break
			}
		}
		if n != 1000 {
			t.Errorf("%d in all pages", n)
		}
		odd := s.List("p0100x", 5, func(status *schedule.Status) bool {
			_, ok := s.Find(status.Assignment.ProducerID) // no lock is held
			return ok && status.Assignment.ProducerID[4] == '7'
		})
		var ids []assignment.ProducerID
		for _, status := range odd {
			ids = append(ids, status.Assignment.ProducerID)
		}
		if want := []assignment.ProducerID{"p0107", "p0117", "p0127", "p0137", "p0147"}; !slices.Equal(ids, want) {
			t.Errorf("%v, want %v", ids, want)
		}
		if list := s.List("", 0, nil); len(list) != 0 {
			t.Errorf("%d listed with limit 0", len(list))
		}
		if list := s.List("p9", 10, nil); len(list) != 0 {
			t.Errorf("%d listed behind the end", len(list))
		}
		if list := s.List("", -1, nil); len(list) != 0 {
			t.Errorf("%d listed with limit -1", len(list))
		}
		stop()
	})
}

// A change in the middle of a List is not seen by it, not even in the reasons.
func TestListIsOfOneSet(t *testing.T) {
	s := schedule.New(schedule.Config{Opener: &fleet{}})
	var change schedule.Change
	for i := range 300 {
		change.Upserts = append(change.Upserts, newAssignment(assignment.ProducerID(fmt.Sprintf("p%03d", i)), time.Hour))
	}
	s.Apply(change)
	n := 0
	s.List("", 1000, func(status *schedule.Status) bool {
		if n == 0 {
			s.Apply(schedule.Change{
				Upserts:  []*assignment.Assignment{newAssignment("p200", 0), newAssignment("p2005", time.Hour)},
				Removals: []schedule.Removal{{ProducerID: "p250"}, {ProducerID: "p002"}},
			})
		}
		if status.Assignment != change.Upserts[n] || status.UnrunnableReason != "" {
			t.Errorf("the %d. is %+v", n, status)
		}
		n++
		return false
	})
	if n != 300 {
		t.Errorf("%d listed, want 300", n)
	}
	if s.Len() != 299 || find(t, s, "p200").UnrunnableReason == "" {
		t.Error("the change was not applied")
	}
}

func TestUnrunnableIsCapped(t *testing.T) {
	s := schedule.New(schedule.Config{Opener: &fleet{}})
	var change schedule.Change
	for i := range 1500 {
		change.Upserts = append(change.Upserts, newAssignment(assignment.ProducerID(fmt.Sprintf("p%04d", i)), 0))
	}
	s.Apply(change)
	count, first := s.Unrunnable()
	if count != 1500 || len(first) != 1000 || first[999].ProducerID != "p0999" || first[0].Reason == "" {
		t.Errorf("%d, %d listed", count, len(first))
	}
}

// Large random changes: the order is kept whatever chunks are split and joined.
func TestLargeSetsAreListedInOrder(t *testing.T) {
	for seed := range uint64(5) {
		random := rand.New(rand.NewPCG(seed, 0))
		s := schedule.New(schedule.Config{Opener: &fleet{}})
		want := map[assignment.ProducerID]*assignment.Assignment{}
		for range 40 {
			var c schedule.Change
			size := []int{1, 10, 500, 3000}[random.IntN(4)]
			for range random.IntN(size) + 1 {
				id := assignment.ProducerID(fmt.Sprintf("p%d", random.IntN(5000)))
				if random.IntN(5) < 2 || size == 3000 && random.IntN(3) == 0 {
					c.Removals = append(c.Removals, schedule.Removal{ProducerID: id})
				} else {
					c.Upserts = append(c.Upserts, newAssignment(id, time.Hour))
				}
			}
			for _, a := range c.Upserts {
				want[a.ProducerID] = a
			}
			for _, r := range c.Removals {
				delete(want, r.ProducerID)
			}
			s.Apply(c)
			list := s.List("", len(want)+1, nil)
			if len(list) != len(want) || s.Len() != len(want) {
				t.Fatalf("seed %d: %d listed and %d applied, want %d", seed, len(list), s.Len(), len(want))
			}
			for i, id := range slices.Sorted(maps.Keys(want)) {
				if list[i].Assignment != want[id] {
					t.Fatalf("seed %d: %s stands where %s should", seed, list[i].Assignment.ProducerID, id)
				}
			}
			for range 20 {
				id := assignment.ProducerID(fmt.Sprintf("p%d", random.IntN(5000)))
				if status, ok := s.Find(id); ok != (want[id] != nil) || status.Assignment != want[id] {
					t.Fatalf("seed %d: Find(%s) = %v", seed, id, ok)
				}
			}
		}
	}
}
