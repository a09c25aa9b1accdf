package containers_test

import (
	"testing"
	"time"
)

// TestLateness: what failed while the producers were late for the test, too, is
// excused, and no more than that.
func TestLateness(t *testing.T) {
	t.Parallel()
	from := time.UnixMilli(1_000_000)
	all := map[string]samples{"a": {"c": nil}}
	for n := range int64(10) {
		all["a"]["c"] = append(all["a"]["c"], sample{at: from.UnixMilli() + n*1000, up: n != 1 && n != 4})
	}
	at := func(ms int64) int64 { return from.UnixMilli() + ms }
	for _, c := range []struct {
		late            lateness
		failed, excused int
	}{
		{nil, 2, 0},
		{lateness{at(-1), at(5000)}, 1, 1},
		{lateness{at(0), at(2500), at(5001)}, 1, 1},
		{lateness{at(2000), at(3000)}, 0, 2},
	} {
		v := judge([]string{"a"}, all, time.Second, from, from.Add(9*time.Second), c.late)
		if v.failed != c.failed || v.excused != c.excused || v.missed != 0 {
			t.Errorf("%v: %v", c.late, &v)
		}
	}
	for _, c := range []struct {
		verdict
		want bool
	}{
		{verdict{points: 100, excused: 25}, true},
		{verdict{points: 100, excused: 26}, false}, // the machine stood still for a quarter of the time
		{verdict{points: 1000, failed: 10}, true},
		{verdict{points: 1000, failed: 11}, false},
		{verdict{producers: 60, points: 300, failed: 12}, true},
		{verdict{producers: 60, points: 300, failed: 13}, false},
	} {
		if got := c.answered(); got != c.want {
			t.Errorf("%v: answered is %v", &c.verdict, got)
		}
	}
}

// TestJudge hands the judge answers that are wrong in one way each: who cannot be
// failed has judged nothing.
func TestJudge(t *testing.T) {
	t.Parallel()
	from := time.UnixMilli(1_000_000)
	to := from.Add(9 * time.Second)
	ids := []string{"a", "b"}
	whole := func() map[string]samples {
		all := map[string]samples{}
		for i, id := range ids {
			all[id] = samples{}
			for n := range int64(10) {
				at := from.UnixMilli() + n*1000 + int64(i)*250
				collector := []string{"c1", "c2"}[n/5]
				all[id][collector] = append(all[id][collector], sample{at: at, up: true})
			}
		}
		return all
	}
	for _, c := range []struct {
		name  string
		spoil func(map[string]samples)
		want  verdict
	}{
		{"whole", func(map[string]samples) {}, verdict{points: 19, longest: time.Second}},
		{"missed", func(all map[string]samples) { all["a"]["c1"] = all["a"]["c1"][:3] }, verdict{points: 19, missed: 2, longest: 3 * time.Second}},
		{"one is never collected", func(all map[string]samples) { delete(all, "b") }, verdict{points: 20, missed: 10, longest: 10 * time.Second}},
		{"twice", func(all map[string]samples) {
			all["a"]["c2"] = append(all["a"]["c2"], all["a"]["c1"]...)
		}, verdict{points: 19, twice: 5, longest: time.Second}},
		{"failed", func(all map[string]samples) { all["a"]["c1"][1].up = false }, verdict{points: 19, failed: 1, longest: time.Second}},
		{"failed, and under way still at the next one", func(all map[string]samples) {
			all["a"]["c1"] = append(all["a"]["c1"][:3], all["a"]["c1"][4])
			all["a"]["c1"][2].up = false
		}, verdict{points: 19, failed: 1, overlaid: 1, longest: 2 * time.Second}},
		{"failed, then gone", func(all map[string]samples) {
			all["a"]["c1"] = all["a"]["c1"][:3]
			all["a"]["c1"][2].up = false
		}, verdict{points: 19, failed: 1, overlaid: 1, missed: 1, longest: 3 * time.Second}},
		{"failed at one, answered the other", func(all map[string]samples) {
			all["a"]["c1"][1].up = false
			all["a"]["c2"] = append(all["a"]["c2"], sample{at: all["a"]["c1"][1].at, up: true})
		}, verdict{points: 19, twice: 1, longest: time.Second}},
		{"beside the grid", func(all map[string]samples) { all["a"]["c2"][4].at -= 7 }, verdict{points: 19, missed: 1, strayed: 1, longest: 2 * time.Second}},
	} {
		all := whole()
		c.spoil(all)
		got := judge(ids, all, time.Second, from, to, nil)
		c.want.producers = len(ids)
		examples := got.examples
		got.examples = nil
		if got.String() != c.want.String() {
			t.Errorf("%s:\ngot  %v\nwant %v", c.name, &got, &c.want)
		}
		if bad := c.want.missed+c.want.failed+c.want.strayed > 0; got.clean() == bad || bad != (len(examples) > 0) {
			t.Errorf("%s: clean is %v, examples %q", c.name, got.clean(), examples)
		}
	}
	if v := judge(nil, nil, time.Second, from, to, nil); v.clean() {
		t.Error("a fleet of nobody is no success")
	}
}

func TestHear(t *testing.T) {
	t.Parallel()
	from := time.UnixMilli(1_000_000)
	to := from.Add(4 * time.Second)
	pulls := map[string][]int64{
		"a": {1_004_000, 1_001_000, 1_000_000, 1_003_000, 999_000, 1_005_000},
		"b": {1_000_000, 1_000_900, 1_002_000},
	}
	w := hear([]string{"a", "b"}, pulls, from, to)
	if w.pulls != 7 || w.longest != 2*time.Second {
		t.Errorf("got %v, want 7 pulls and 2 s", w)
	}
	if w := hear([]string{"c"}, pulls, from, to); w.longest != 4*time.Second {
		t.Errorf("got %v for one that was never pulled, want 4 s", w)
	}
}
