package containers_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// A sample is one of the series up: the instant of the grid that a collection is
// stored under, and whether the producer answered.
type sample struct {
	at int64 // Unix time in ms
	up bool
}

// samples are those of one producer, by collector.
type samples map[string][]sample

// A verdict is about the union of what all collectors have stored.
type verdict struct {
	producers int
	points    int // instants of the grids within the window
	missed    int // points that no collector has
	failed    int // points that a collector has, but of a collection that failed
	excused   int // as failed, while the producers were late for the test, too
	overlaid  int // points that nobody has because a collection that failed was still under way
	twice     int // points that more than one collector has
	strayed   int // samples beside the producer's grid
	longest   time.Duration
	examples  []string // of what is missed, failed or strayed, some
}

// maxExamples bounds them.
const maxExamples = 8

// judge looks for every instant of every producer's grid between from and to, both
// included. The grid of a producer is that of most of its samples: all collectors
// are to have the same. late tells when the producers answered nobody in time.
func judge(ids []string, all map[string]samples, interval time.Duration, from, to time.Time, late lateness) verdict {
	v := verdict{producers: len(ids)}
	for _, id := range ids {
		v.judge(id, all[id], interval.Milliseconds(), from.UnixMilli(), to.UnixMilli(), late)
	}
	return v
}

// lateness are the instants at which the test itself asked the producers, and had to
// wait for the answer, or for its turn to ask: the machine stood still, which is
// nobody's fault. Unix times in ms, ascending.
type lateness []int64

// lateAround is how far from such an instant a collection may be that failed with it.
const lateAround = 1000 // ms

func (l lateness) excuses(at int64) bool {
	n, _ := slices.BinarySearch(l, at-lateAround)
	return n < len(l) && l[n] <= at+lateAround
}

// A point is what the collectors have of one instant.
type point struct {
	holders int
	up      bool
}

func (v *verdict) judge(id string, of samples, interval, from, to int64, late lateness) {
	points, phases := map[int64]point{}, map[int64]int{}
	for _, collector := range slices.Sorted(maps.Keys(of)) {
		for _, s := range of[collector] {
			p := points[s.at]
			points[s.at] = point{holders: p.holders + 1, up: p.up || s.up}
			phases[s.at%interval]++
		}
	}
	phase := mostly(phases)
	for _, at := range slices.Sorted(maps.Keys(points)) {
		if at%interval != phase && from <= at && at <= to {
			v.strayed++
			v.example("%s has a sample at %s, %d ms beside its grid", id, clock(at), (at-phase)%interval)
		}
	}
	last, failing := from, false
	for at := from + ((phase-from)%interval+interval)%interval; at <= to; at += interval {
		v.points++
		p, there := points[at]
		switch {
		case !there && failing:
			v.overlaid++
			failing = false // once: it ends with the interval
			continue
		case !there:
			v.missed++
			v.example("%s was missed at %s", id, clock(at))
			v.longest = max(v.longest, time.Duration(at+interval-last)*time.Millisecond)
			continue
		case !p.up && late.excuses(at):
			v.excused++
		case !p.up:
			v.failed++
			v.example("%s failed at %s", id, clock(at))
		case p.holders > 1:
			v.twice++
		}
		v.longest = max(v.longest, time.Duration(at-last)*time.Millisecond)
		last, failing = at, there && !p.up
	}
}

// mostly is the phase that occurs most often, the smallest of several.
func mostly(phases map[int64]int) int64 {
	if len(phases) == 0 {
		return 0
	}
	return slices.MinFunc(slices.Collect(maps.Keys(phases)), func(a, b int64) int {
		return cmp.Or(cmp.Compare(phases[b], phases[a]), cmp.Compare(a, b))
	})
}

func (v *verdict) example(format string, args ...any) {
	if len(v.examples) < maxExamples {
		v.examples = append(v.examples, fmt.Sprintf(format, args...))
	}
}

// One in maxFailed points may be of a producer that did not answer in time, or once
// one in maxStalled producers, which is what a collector's process meets that stands
// still for a moment: a busy machine is nobody's fault. One that was struck off does
// not fail, it is missed.
const (
	maxFailed  = 100
	maxStalled = 5
)

// maxExcused is one in how many points may be excused: of a machine that stands still
// for longer, nothing can be said.
const maxExcused = 4

// clean is whether every point was collected by somebody.
func (v *verdict) clean() bool { return v.whole() && v.strayed == 0 }

// whole is clean, but for samples beside the grid: a collector that is given a
// producer with a long interval collects it once at once.
func (v *verdict) whole() bool {
	return v.producers > 0 && v.points > 0 && v.missed == 0 && v.answered()
}

// answered is whether collections failed only as far as a busy machine explains.
func (v *verdict) answered() bool {
	return v.failed <= max(v.points/maxFailed, v.producers/maxStalled) && v.excused*maxExcused <= v.points
}

func (v *verdict) String() string {
	text := fmt.Sprintf("%d producers, %d points: missed %d, failed %d (and %d excused, %d overlaid), twice %d, strayed %d, longest gap %v",
		v.producers, v.points, v.missed, v.failed, v.excused, v.overlaid, v.twice, v.strayed, v.longest)
	return strings.Join(append([]string{text}, v.examples...), "\n\t")
}

func clock(ms int64) string { return time.UnixMilli(ms).UTC().Format("15:04:05.000") }

// A witness is what a producer saw: when it was pulled.
type witness struct {
	pulls   int
	longest time.Duration // between two pulls, and from the window's ends to the next one
	worst   string        // whose that is
}

// hear puts together what all producers saw between from and to.
func hear(ids []string, pulls map[string][]int64, from, to time.Time) witness {
	var w witness
	for _, id := range ids {
		times := slices.Sorted(slices.Values(pulls[id]))
		last := from.UnixMilli()
		note := func(at int64) {
			if gap := time.Duration(at-last) * time.Millisecond; gap > w.longest {
				w.longest, w.worst = gap, id+" from "+clock(last)
			}
			last = at
		}
		for _, at := range times {
			if at < from.UnixMilli() || at > to.UnixMilli() {
				continue
			}
			w.pulls++
			note(at)
		}
		note(to.UnixMilli())
	}
	return w
}

func (w witness) String() string {
	return fmt.Sprintf("producers saw %d pulls, longest gap %v (%s)", w.pulls, w.longest, w.worst)
}
