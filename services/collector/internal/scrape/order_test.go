package scrape_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
)

// spellings are series by how they are written; two of them are written in two ways.
var spellings = map[string]string{
	`a`:               series("a"),
	`b{x="1",y="2"}`:  series("b", "x", "1", "y", "2"),
	`b{y="2",x="1"}`:  series("b", "x", "1", "y", "2"),
	`c{}`:             series("c"),
	`c`:               series("c"),
	`d{job="theirs"}`: series("d", "exported_job", "theirs"),
	`e`:               series("e"),
}

// A roll is what a producer is expected to have.
type roll struct {
	live  map[string]bool // owed a stale marker when they vanish
	known map[string]*sample.Series
}

// expect is what a collection of some lines stores. Of two lines of a series the
// first one counts.
func (r *roll) expect(text []string) (want []string) {
	seen := map[string]bool{}
	for i, line := range text {
		if s := spellings[line]; !seen[s] {
			seen[s] = true
			want = append(want, fmt.Sprintf("%s %d", s, i))
		}
	}
	for s := range r.live {
		if !seen[s] {
			want = append(want, s+" stale")
		}
	}
	r.live = seen
	return want
}

// A telling is an answer of a producer: lines, the status, and whether the
// assignment changes before, by which all is forgotten but what is owed.
type telling struct {
	lines  []string
	status int
	update bool
}

// drawTellings draws answers of which many are nearly those before.
func drawTellings(t *rapid.T) (all []telling) {
	texts := slices.Sorted(maps.Keys(spellings))
	for range rapid.IntRange(2, 12).Draw(t, "tellings") {
		one := telling{status: http.StatusOK, update: rapid.IntRange(0, 5).Draw(t, "update") == 0}
		switch n := len(all); {
		case rapid.IntRange(0, 7).Draw(t, "fault") == 0:
			one.status = http.StatusBadGateway
		case n > 0 && rapid.Bool().Draw(t, "like before"):
			one.lines = slices.Clone(all[n-1].lines)
			if rapid.Bool().Draw(t, "shuffled") {
				one.lines = rapid.Permutation(one.lines).Draw(t, "order")
			}
		default:
			one.lines = rapid.Permutation(texts).Draw(t, "lines")[:rapid.IntRange(0, len(texts)).Draw(t, "count")]
		}
		if n := len(one.lines); n > 0 && rapid.IntRange(0, 3).Draw(t, "one less") == 0 {
			i := rapid.IntRange(0, n-1).Draw(t, "which")
			one.lines = slices.Delete(one.lines, i, i+1)
		}
		if len(one.lines) > 0 && rapid.IntRange(0, 3).Draw(t, "one again") == 0 {
			one.lines = append(one.lines, rapid.SampledFrom(one.lines).Draw(t, "again"))
		}
		all = append(all, one)
	}
	return all
}

// A producer may tell its series in any order, and spell them in any way: each is
// followed from one collection to the next, and handed out as the same pointer.
func TestSeriesAreFoundInAnyOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		all := drawTellings(rt)
		var wrong []string
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, nil)
			c := r.open(producer())
			expected := &roll{known: map[string]*sample.Series{}}
			for i, one := range all {
				for _, what := range expected.play(r, c, i, one) {
					wrong = append(wrong, fmt.Sprintf("telling %d: %s", i, what))
				}
			}
		})
		if wrong != nil {
			rt.Fatalf("%+v\n%s", all, strings.Join(wrong, "\n"))
		}
	})
}

// play lets the producer tell, and says what is not as expected.
func (r *roll) play(rig *rig, c schedule.Collection, i int, one telling) (wrong []string) {
	if one.update {
		a := producer()
		a.Limits.MaxSamples = int32(1000 + i)
		if err := c.Update(a); err != nil {
			return []string{err.Error()}
		}
	}
	rig.answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = []string{"text/plain; version=0.0.4"}
		w.WriteHeader(one.status)
		for n, line := range one.lines {
			_, _ = fmt.Fprintf(w, "%s %d\n", line, n)
		}
	})
	samples, at, result := rig.collect(c)
	if (result.Reason == schedule.ReasonNone) != (one.status == http.StatusOK) {
		wrong = append(wrong, fmt.Sprintf("%+v", result))
	}
	before := r.live
	want := r.expect(one.lines)
	slices.Sort(want)
	if got := exposed(samples, at); !slices.Equal(got, want) {
		wrong = append(wrong, fmt.Sprintf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  ")))
	}
	for _, s := range samples {
		name := s.Series.Labels().String()
		if before[name] && r.known[name] != s.Series {
			wrong = append(wrong, "another Series for "+name)
		}
		r.known[name] = s.Series
	}
	return wrong
}
