package scrape

import (
	"strings"
	"sync"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/metadata"
)

// A family is what a producer told about one metric family.
type family struct {
	name string

	// meta is never changed once a collection that saw it has ended; another
	// takes its place. So it can be shared with the series and with readers.
	meta *metadata.Metadata

	seen, changed uint32 // passes
}

// families are the metric families of one producer. The owning collection
// changes them under mu, readers of metadata hold it too.
type families struct {
	texts  *texts // the scraper's
	mu     sync.RWMutex
	byName map[string]*family

	// Of the running pass: how to undo it, and how many families it saw.
	undo []undoFamily
	seen int
}

type undoFamily struct {
	family *family
	meta   *metadata.Metadata // nil: the family is new
}

// keepFamilies is for how many passes a family is known that is not told again.
const keepFamilies = 10

// find returns the family of this name, made if need be, as seen in this pass.
func (f *families) find(name []byte, pass uint32) *family {
	fam, ok := f.byName[string(name)]
	if !ok {
		if f.byName == nil {
			f.byName = map[string]*family{}
		}
		fam = &family{
			name: f.texts.share(name), changed: pass,
			meta: &metadata.Metadata{Type: model.MetricTypeUnknown},
		}
		f.byName[fam.name] = fam
		f.undo = append(f.undo, undoFamily{family: fam})
	}
	if !ok {
		fam.seen = pass - 1
	}
	f.touch(fam, pass)
	return fam
}

// touch notes that a family is seen in this pass.
func (f *families) touch(fam *family, pass uint32) {
	if fam.seen != pass {
		fam.seen = pass
		f.seen++
	}
}

// edit returns the family's metadata to be changed in this pass.
func (f *families) edit(fam *family, pass uint32) *metadata.Metadata {
	if fam.changed != pass {
		fam.changed = pass
		f.undo = append(f.undo, undoFamily{family: fam, meta: fam.meta})
		meta := *fam.meta
		fam.meta = &meta
	}
	return fam.meta
}

func (f *families) setType(name []byte, typ model.MetricType, pass uint32) *family {
	fam := f.find(name, pass)
	if fam.meta.Type != typ {
		f.edit(fam, pass).Type = typ
	}
	return fam
}

func (f *families) setHelp(name, help []byte, pass uint32) *family {
	fam := f.find(name, pass)
	if fam.meta.Help != string(help) {
		f.edit(fam, pass).Help = f.texts.share(help)
	}
	return fam
}

func (f *families) setUnit(name, unit []byte, pass uint32) *family {
	fam := f.find(name, pass)
	if fam.meta.Unit != string(unit) {
		f.edit(fam, pass).Unit = string(unit)
	}
	return fam
}

// accept keeps what the pass told, and forgets what was not told for long, or
// for one pass when there are more than limit.
func (f *families) accept(pass uint32, limit int) {
	f.undo, f.seen = nil, 0
	keep := uint32(keepFamilies)
	if len(f.byName) > limit {
		keep = 0
	} else if pass%keepFamilies != 0 {
		return
	}
	for name, fam := range f.byName {
		if pass-fam.seen > keep {
			delete(f.byName, name)
		}
	}
}

// reject undoes the pass.
func (f *families) reject() {
	for _, u := range f.undo {
		if u.meta == nil {
			delete(f.byName, u.family.name)
			continue
		}
		u.family.meta = u.meta
	}
	f.undo, f.seen = nil, 0
}

// covers reports whether a metric belongs to a family. TYPE lines are optional,
// so the family told last need not be the next metric's.
func (fam *family) covers(metric string) bool {
	rest, ok := strings.CutPrefix(metric, fam.name)
	if !ok || rest == "" {
		return ok
	}
	switch fam.meta.Type {
	case model.MetricTypeCounter:
		return rest == "_total"
	case model.MetricTypeInfo:
		return rest == "_info"
	case model.MetricTypeHistogram:
		return rest == "_bucket" || rest == "_sum" || rest == "_count"
	case model.MetricTypeGaugeHistogram:
		switch rest {
		case "_bucket", "_gsum", "_gcount", "_sum", "_count": // OpenMetrics, protobuf
			return true
		default:
			return false
		}
	case model.MetricTypeSummary:
		return rest == "_sum" || rest == "_count"
	default:
		return false
	}
}

// list copies the families out, so that no reader holds the lock.
func (f *families) list() []family {
	f.mu.RLock()
	defer f.mu.RUnlock()
	all := make([]family, 0, len(f.byName))
	for _, fam := range f.byName {
		all = append(all, *fam)
	}
	return all
}

// drop forgets all families.
func (f *families) drop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.byName = nil
}
