package scrape

import (
	"github.com/prometheus/prometheus/model/labels"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// A track follows one series of a producer.
type track struct {
	series *sample.Series

	// reserved is a series of the collection's own: exposed ones do not get in.
	reserved bool

	// live says that a value without a time stamp of its own is the last thing
	// stored: a stale marker is owed when it vanishes.
	live bool

	// Of the pass in which the series was seen last: whether it came without a
	// time stamp, and its last time.
	plain bool
	seen  uint32
	last  int64
}

// dropped is the track of all series that relabeling drops: it is not one, and
// is never written to.
var dropped = &track{} //nolint:gochecknoglobals // never changed, only compared with

// A spelling is one way in which a producer writes a series. The first one of a
// series holds its track; others (labels in another order) refer to that.
type spelling struct {
	of   *track
	seen uint32
	own  track
}

// A tongue is a way to spell series. The names of protobuf can be any text: the
// name a{b="c"} there is spelled as the series a with a label is in the text
// formats. Columns are spelled otherwise again.
type tongue uint8

const (
	tongueText tongue = iota
	tongueProtobuf
	tongueColumns
)

// A cache knows the series of one producer by their spelling, so that a steady
// exposition makes no labels. Its passes are expositions that are read: begin,
// any number of find, then accept or reject. What was seen in a pass becomes
// live only when the sink has it.
type cache struct {
	spellings map[string]*spelling

	// tongue is what the spellings are in.
	tongue tongue

	// layout is that of the last accepted pass in columns, nil when there is none
	// or something of it is forgotten.
	layout *layout

	// tracks are those of all spellings, and live ones whose spelling is gone.
	tracks []*track

	pass uint32
	hits int // spellings seen in this pass
}

// A fresh spelling can still be rejected.
type fresh struct {
	raw      string
	spelling *spelling
}

func (c *cache) begin() {
	c.pass++
	c.hits = 0
}

// speak forgets spellings in another tongue. Their series are found again by
// their labels.
func (c *cache) speak(t tongue) {
	if c.tongue != t {
		c.tongue, c.spellings, c.layout = t, nil, nil
	}
}

// find returns the track of a spelling, nil when it is not known.
func (c *cache) find(raw []byte) *track {
	sp, ok := c.spellings[string(raw)]
	if !ok {
		return nil
	}
	if sp.seen != c.pass {
		sp.seen = c.pass
		c.hits++
	}
	return sp.of
}

// drop makes a spelling known whose series relabeling drops, so that it is not
// relabeled again.
func (c *cache) drop(raw []byte, sc *scratch) *track {
	c.learn(raw, &spelling{of: dropped, seen: c.pass}, sc)
	return dropped
}

// add makes a spelling known, and its series unless that has another one.
func (c *cache) add(raw []byte, set labels.Labels, reserved []*track, sc *scratch) (tr *track, added bool) {
	sp := &spelling{seen: c.pass}
	if tr = c.index(reserved, sc)[set]; tr == nil {
		tr, added = &sp.own, true
		tr.series = &sample.Series{Labels: set, Hash: set.Hash()}
		sc.index[set] = tr
	}
	sp.of = tr
	c.learn(raw, sp, sc)
	return tr, added
}

func (c *cache) learn(raw []byte, sp *spelling, sc *scratch) {
	if c.spellings == nil {
		c.spellings = map[string]*spelling{}
	}
	key := sc.texts.share(raw)
	c.spellings[key] = sp
	c.hits++
	sc.fresh = append(sc.fresh, fresh{key, sp})
}

// index finds tracks by their labels. It is built by the first new spelling of
// a pass: idle producers do not pay for it. Labels are strings, and so a key;
// their unseeded Hash would be one that producers can make collide.
func (c *cache) index(reserved []*track, sc *scratch) map[labels.Labels]*track {
	if sc.indexed {
		return sc.index
	}
	sc.indexed = true
	for _, tr := range c.tracks {
		sc.index[tr.series.Labels] = tr
	}
	for _, tr := range reserved {
		sc.index[tr.series.Labels] = tr
	}
	return sc.index
}

// accept keeps the fresh spellings and forgets those that were not used. An
// empty exposition forgets nothing: it may be a hiccup.
func (c *cache) accept(sc *scratch) {
	if sc.layout != nil {
		c.layout = sc.layout
	}
	for _, f := range sc.fresh {
		if f.spelling.of == &f.spelling.own {
			c.tracks = append(c.tracks, f.spelling.of)
		}
	}
	if c.hits == 0 || c.hits == len(c.spellings) {
		return
	}
	for raw, sp := range c.spellings {
		if sp.seen != c.pass {
			delete(c.spellings, raw)
		}
	}
}

// reject forgets the fresh spellings.
func (c *cache) reject(sc *scratch) {
	for _, f := range sc.fresh {
		delete(c.spellings, f.raw)
	}
}

// vanished reports whether a series is owed a stale marker at that time, in a
// batch with the samples of this pass or in one without samples.
func (c *cache) vanished(tr *track, seen bool, at int64) bool {
	if !tr.live || !seen || tr.seen != c.pass {
		return tr.live
	}
	// From now on it brings its own time stamps: the marker ends the values
	// without, unless it would hide those that came with it.
	return !tr.plain && tr.last < at
}

// stored notes that the sink has this pass's batch, with its samples or without.
func (c *cache) stored(seen bool) {
	for _, tr := range c.tracks {
		tr.live = seen && tr.seen == c.pass && tr.plain
	}
}

// compact drops tracks that no spelling of this pass refers to and that owe
// nothing.
func (c *cache) compact() {
	if c.hits == 0 {
		return
	}
	c.keep(func(tr *track) bool { return tr.live || tr.seen == c.pass })
}

// forget drops all but what owes a stale marker.
func (c *cache) forget() {
	c.spellings, c.layout = nil, nil
	c.keep(func(tr *track) bool { return tr.live })
}

func (c *cache) keep(wanted func(*track) bool) {
	kept := c.tracks[:0]
	for _, tr := range c.tracks {
		if wanted(tr) {
			kept = append(kept, tr)
		}
	}
	clear(c.tracks[len(kept):])
	c.tracks = kept
	if len(kept) == 0 {
		c.tracks = nil
	}
}
