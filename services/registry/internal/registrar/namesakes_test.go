package registrar

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"pgregory.net/rapid"
)

// marksOf reads marks written as series|address; anything else has none.
func marksOf(stored []byte) Marks {
	s, a, _ := strings.Cut(string(stored), "|")
	return Marks{s, a}
}

func entry(id, stored string) *roster.Entry {
	return &roster.Entry{Producer: roster.Producer{ID: assignment.ProducerID(id), Stored: []byte(stored), Version: assignment.VersionOf([]byte(stored))}}
}

// allOthers asks for the others of every producer, by a mark.
func (n *namesakes) allOthers(s *sharing, all map[string]*roster.Entry) map[string][]assignment.ProducerID {
	others := map[string][]assignment.ProducerID{}
	for id, e := range all {
		if found := n.others(s, s.of(n.marks(e)), e.ID, 1000); len(found) > 0 {
			others[id] = found
		}
	}
	return others
}

// TestNamesakesAreExact: whatever changes, and however many hashes meet, those are
// found who have the same mark, and nobody else; at the end nothing is left.
func TestNamesakesAreExact(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := newNamesakes(marksOf)
		hash, mask := n.hash, rapid.SampledFrom([]uint32{0, 1, 3, 1<<32 - 1}).Draw(rt, "mask")
		n.hash = func(mark string) uint32 { return hash(mark) & mask }
		all := map[string]*roster.Entry{}
		set := func(id, stored string) {
			var next *roster.Entry
			if stored != "gone" {
				next = entry(id, stored)
			}
			n.change(all[id], next)
			if all[id] = next; next == nil {
				delete(all, id)
			}
		}
		check := func() {
			t.Helper()
			for _, s := range []*sharing{&n.series, &n.addresses} {
				want, count := map[string][]assignment.ProducerID{}, 0
				for id, e := range all {
					for other, o := range all {
						if other != id && s.of(n.marks(o)) == s.of(n.marks(e)) && s.of(n.marks(e)) != "" {
							want[id] = append(want[id], o.ID)
						}
					}
					slices.Sort(want[id])
					if len(want[id]) == 0 {
						delete(want, id)
					} else {
						count++
					}
				}
				if diff := cmp.Diff(want, n.allOthers(s, all)); diff != "" || count != s.count {
					rt.Fatalf("%d counted, want %d (-want +got):\n%s", s.count, count, diff)
				}
			}
		}
		// A stranger is told of all that have a mark.
		ask := func(mark string) {
			t.Helper()
			for _, s := range []*sharing{&n.series, &n.addresses} {
				var want []assignment.ProducerID
				for _, e := range all {
					if s.of(n.marks(e)) == mark {
						want = append(want, e.ID)
					}
				}
				slices.Sort(want)
				if got := n.others(s, mark, "stranger", 1000); !slices.Equal(got, want) {
					rt.Fatalf("with the mark %q: %v, want %v", mark, got, want)
				}
			}
		}
		ids := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f", "g"})
		marks := rapid.SampledFrom([]string{"x|1", "y|1", "z|1", "x|2", "y|2", "z|3", "|3", "x|", "", "gone"})
		for range rapid.IntRange(1, 60).Draw(rt, "changes") {
			set(ids.Draw(rt, "id"), marks.Draw(rt, "marks"))
			check()
			for _, mark := range []string{"x", "y", "z", "1", "2", "3", "unknown"} {
				ask(mark)
			}
		}
		for id := range all {
			set(id, "gone")
		}
		for _, s := range []*sharing{&n.series, &n.addresses} {
			if len(s.alone)+len(s.parties)+s.count > 0 {
				rt.Fatalf("left behind: %+v", s)
			}
		}
		if len(n.unused) != len(n.entries)-1 {
			rt.Fatalf("%d of %d numbers are free", len(n.unused), len(n.entries)-1)
		}
	})
}

// TestHostileNamesakes: fifty thousand ids with the same labels, at the same
// address, come, change and go for not much more than those that have nothing in
// common. If each looked at all others, they would take a thousand times as long.
func TestHostileNamesakes(t *testing.T) {
	const flood = 50_000
	apart := floodNamesakes(t, flood, func(i int) string { return fmt.Sprintf("%d|%d", i, i) })
	same := floodNamesakes(t, flood, func(int) string { return "same|same" })
	if same > 100*max(apart, 10*time.Millisecond) {
		t.Errorf("%v, and %v for those that have nothing in common", same, apart)
	}
}

// floodNamesakes lets ids come, change and go, and tells how long that took.
func floodNamesakes(t *testing.T, flood int, marks func(int) string) time.Duration {
	t.Helper()
	n := newNamesakes(marksOf)
	all := make([]*roster.Entry, flood)
	order := rand.Perm(flood)
	begin := time.Now()
	for i, at := range order {
		all[i] = entry(fmt.Sprint(at), marks(at))
		n.change(nil, all[i])
	}
	mark, _, _ := strings.Cut(marks(7), "|")
	for range 1000 {
		got := n.others(&n.series, mark, "7", 4)
		if want := min(4, n.series.count); len(got) != want || slices.Contains(got, "7") {
			t.Fatalf("%v, want %d others", got, want)
		}
	}
	for i, e := range all {
		next := entry(string(e.ID), marks(order[i])+"-another")
		n.change(e, next)
		all[i] = next
	}
	for _, e := range all {
		n.change(e, nil)
	}
	took := time.Since(begin)
	if len(n.series.parties)+len(n.addresses.parties)+n.series.count+n.addresses.count > 0 {
		t.Error("something is left")
	}
	return took
}

// BenchmarkNamesakes tells what a million producers without a namesake cost.
func BenchmarkNamesakes(b *testing.B) {
	const fleet = 1_000_000
	all := make([]*roster.Entry, fleet)
	for i := range all {
		all[i] = entry(fmt.Sprint("p", i), fmt.Sprintf("job=%d|10.%d.%d.%d:80", i, i>>16, i>>8&255, i&255))
	}
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		n := newNamesakes(marksOf)
		for _, e := range all {
			n.change(nil, e)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/fleet, "bytes/producer")
		b.ReportMetric(float64(n.series.count), "false")
		runtime.KeepAlive(n)
	}
}
