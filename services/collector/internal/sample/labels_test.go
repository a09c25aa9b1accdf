package sample_test

import (
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"pgregory.net/rapid"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// drawLabels draws some of few labels, so that sets have much in common.
func drawLabels(t *rapid.T, name string) labels.Labels {
	return labels.FromMap(rapid.MapOf(
		rapid.SampledFrom([]string{"A", "__name__", "a", "aa", "b", "job", "z"}), rapid.SampledFrom([]string{"1", "2", "12"}),
	).Draw(t, name))
}

func split(common *sample.Common, ls labels.Labels) *sample.Series {
	var b labels.ScratchBuilder
	s := &sample.Series{}
	s.Own, s.Common = common.Split(ls, &b)
	return s
}

// A series that is split has the labels that it had.
func TestSplitLosesNothing(t *testing.T) {
	shared := 0
	rapid.Check(t, func(t *rapid.T) {
		var all []labels.Label
		drawLabels(t, "common").Range(func(l labels.Label) { all = append(all, l) })
		ls := drawLabels(t, "labels")
		if rapid.Bool().Draw(t, "has them") {
			b := labels.NewBuilder(ls)
			for _, l := range all {
				b.Set(l.Name, l.Value)
			}
			ls = b.Labels()
		}
		s := split(sample.NewCommon(all), ls)
		if s.Common != nil {
			shared++
		}
		if got := s.Labels(); !labels.Equal(got, ls) {
			t.Fatalf("labels %s, want %s", got, ls)
		}
		if s.Len() != ls.Len() {
			t.Fatalf("%d labels, want %d", s.Len(), ls.Len())
		}
		for _, name := range []string{"A", "__name__", "a", "aa", "b", "job", "z", "none"} {
			if got := s.Get(name); got != ls.Get(name) {
				t.Fatalf("%s is %q, want %q", name, got, ls.Get(name))
			}
		}
	})
	if shared == 0 {
		t.Error("no series had the common labels")
	}
}

// Split by one and the same, series are equal in both parts when their labels are
// equal, and only then.
func TestSplitTellsSeriesApart(t *testing.T) {
	equal := 0
	rapid.Check(t, func(t *rapid.T) {
		var all []labels.Label
		drawLabels(t, "common").Range(func(l labels.Label) { all = append(all, l) })
		common := sample.NewCommon(all)
		a, b := drawLabels(t, "a"), drawLabels(t, "b")
		if rapid.Bool().Draw(t, "same") {
			b = a.Copy()
		}
		one, other := split(common, a), split(common, b)
		same := one.Own == other.Own && one.Common == other.Common
		if same != labels.Equal(a, b) {
			t.Fatalf("%s and %s: same is %v", a, b, same)
		}
		if same {
			equal++
		}
	})
	if equal == 0 {
		t.Error("no two were equal")
	}
}
