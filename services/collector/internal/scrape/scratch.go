package scrape

import (
	"runtime"
	"sync"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// A scratch is what one collection needs while it runs.
type scratch struct {
	*tables // while it reads; else nil
	batch   sample.Batch

	// layout is that of this pass, when it was sent.
	layout *layout

	exposed  labels.Labels
	exemplar exemplar.Exemplar

	// charged is what the batch's histograms and exemplars have of the budget.
	charged int64

	// Counts of the running pass.
	samples, dropped, added, duplicates, ahead, badExemplars int
}

// tables are what reading an exposition takes beside its samples: as much as its
// series take for good, when all of them are new.
type tables struct {
	texts   *texts // the scraper's
	fresh   []fresh
	visited []*spelling // of this pass, in its order

	// places are where spellings are in the cache, fresh ones behind those; empty
	// unless placed. index is the cache's, empty unless indexed.
	places  map[string]int
	placed  bool
	index   map[labelKey]*track
	indexed bool

	split   labels.ScratchBuilder
	builder *labels.Builder
}

// A desk is where answers are read. A fleet that begins all at once has hundreds of
// answers in memory, and must not have the tables of as many: there are few, and
// who has one waits for nobody.
type desk struct {
	seats chan struct{}
	free  sync.Pool // of *tables
}

// desksPerProcessor lets answers that are soon read pass by one that is large.
const desksPerProcessor = 4

func newDesk() desk {
	return desk{seats: make(chan struct{}, desksPerProcessor*runtime.GOMAXPROCS(0))}
}

// sit gives a collection its tables, until rise. In between it must not wait for
// anything but the processor.
func (s *Scraper) sit(sc *scratch) {
	s.desk.seats <- struct{}{}
	t, ok := s.desk.free.Get().(*tables)
	if !ok {
		t = &tables{
			texts: &s.texts, places: map[string]int{}, index: map[labelKey]*track{},
			builder: labels.NewBuilder(labels.EmptyLabels()),
		}
	}
	sc.tables = t
}

// rise takes the tables away, if there are any.
func (s *Scraper) rise(sc *scratch) {
	if sc.tables == nil {
		return
	}
	sc.tables.reset()
	s.desk.free.Put(sc.tables)
	sc.tables = nil
	<-s.desk.seats
}

// reset drops all that a pass has left, and what it points to.
func (t *tables) reset() {
	clear(t.fresh)
	clear(t.visited)
	if t.placed {
		clear(t.places)
	}
	if t.indexed {
		clear(t.index)
	}
	t.builder.Reset(labels.EmptyLabels())
	*t = tables{
		texts:   t.texts,
		fresh:   t.fresh[:0],
		visited: t.visited[:0],
		places:  t.places,
		index:   t.index,
		builder: t.builder,
	}
}

func (s *Scraper) scratch() *scratch {
	if sc, ok := s.scratches.Get().(*scratch); ok {
		return sc
	}
	return &scratch{}
}

// release ends the use of a scratch.
func (s *Scraper) release(sc *scratch) {
	s.rise(sc)
	s.budget.give(sc.charged)
	clear(sc.batch.Samples)
	*sc = scratch{batch: sample.Batch{Samples: sc.batch.Samples[:0]}}
	s.scratches.Put(sc)
}
