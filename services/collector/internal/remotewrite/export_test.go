package remotewrite

import (
	"github.com/prometheus/prometheus/model/labels"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
)

// RawSize is how much is written of a request before it is compressed, in bytes, and
// whether that is too much.
func RawSize(p Protocol, r *deliver.Request) (size int, refused bool) {
	s := new(scratch)
	_, _, err := s.encode(nil, p, r, options{exemplars: true, histograms: true})
	return len(s.table) + len(s.series), err != nil
}

func newLabels(names ...string) labels.Labels {
	b := labels.NewScratchBuilder(len(names))
	for _, name := range names {
		b.Add(name, "value of "+name)
	}
	b.Sort()
	return b.Labels()
}
