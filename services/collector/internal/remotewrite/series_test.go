package remotewrite

import (
	"fmt"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
)

// told is a series as an encoder sees it.
func told(l *lists, index uint32) (ls labels.Labels, help string) {
	var b labels.ScratchBuilder
	refs, m := l.at(index)
	for i := 0; i < len(refs); {
		var number uint32
		number, i = ref(refs, i)
		p := l.pairs[number]
		b.Add(l.symbols[p.name], l.symbols[p.value])
	}
	return b.Labels(), l.symbols[l.metas[m].help]
}

// What an encoder has taken stays as it was while more are added, and all of it is
// there, over many pages.
func TestSeriesArePaged(t *testing.T) {
	const count = 3*pageSeries + 10
	s := NewSeries()
	var want []labels.Labels
	var help []string
	views := map[int]lists{0: s.lists()}
	for i := range count {
		pairs := []string{"__name__", fmt.Sprint("m", i%7), "i", fmt.Sprint(i)}
		for n := range i % 5 {
			pairs = append(pairs, fmt.Sprint("l", n), fmt.Sprint(i*n))
		}
		ls := labels.FromStrings(pairs...)
		m := &metadata.Metadata{Help: fmt.Sprint("help ", i%300)}
		s.Add(ls, m)
		want, help = append(want, ls), append(help, m.Help)
		if n := i + 1; n%500 == 0 || n%pageSeries < 2 || n == count {
			views[n] = s.lists()
		}
	}
	for n, l := range views {
		if got := len(l.pages)*pageSeries + len(l.last.series); got != n {
			t.Errorf("%d series, want %d", got, n)
		}
		for i := range n {
			if ls, h := told(&l, uint32(i)); !labels.Equal(ls, want[i]) || h != help[i] {
				t.Fatalf("of %d, series %d is %s %q, want %s %q", n, i, ls, h, want[i], help[i])
			}
		}
	}
}
