package remotewrite

import "github.com/prometheus/prometheus/model/labels"

func newLabels(names ...string) labels.Labels {
	b := labels.NewScratchBuilder(len(names))
	for _, name := range names {
		b.Add(name, "value of "+name)
	}
	b.Sort()
	return b.Labels()
}
