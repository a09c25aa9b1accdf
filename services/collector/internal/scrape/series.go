package scrape

import (
	"slices"

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

	lost bool // the cache has it among those without a spelling
	seen uint32
	last int64
}

// dropped is the track of all series that relabeling drops: it is not one, and
// is never written to.
var dropped = &track{} //nolint:gochecknoglobals // never changed, only compared with

// A spelling is one way in which a producer writes a series. The first one of a
// series holds its track; others (labels in another order) refer to that. There
// are as many as series: it has 48 bytes.
type spelling struct {
	text string
	own  track // without a series when this is not the first one

	seen    uint32
	dropped bool // by relabeling
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
//
// Producers tell their series in one order. So the spellings are a list, and
// mostly that is all there is of them between passes: a map is made, for one
// pass, by the first spelling that is not where the pass before had it. It is
// kept where the order changes each time.
type cache struct {
	// spellings are those of the last accepted pass, in its order.
	spellings []*spelling
	next      int // where the next one is expected

	// unsteady says that the last passes were in one order and another. Then places
	// keeps where spellings are, which stay where they are.
	unsteady bool
	places   map[string]int

	// aliases are the tracks of spellings that are not the first ones.
	aliases map[*spelling]*track

	// tongue is what the spellings are in.
	tongue tongue

	// layout is that of the last accepted pass in columns, nil when there is none
	// or something of it is forgotten.
	layout *layout

	// series is how many spellings have a track, lost are tracks whose spelling is
	// gone: live ones, and those of aliases.
	series int
	lost   []*track

	pass uint32
	hits int // spellings seen in this pass
}

// A fresh spelling can still be rejected.
type fresh struct {
	spelling *spelling

	// from is the track of a gone spelling that it takes over, or nil.
	from *track
}

func (c *cache) begin() {
	c.pass++
	c.hits, c.next = 0, 0
}

// tracks ranges over all tracks.
func (c *cache) tracks(yield func(*track) bool) {
	for _, sp := range c.spellings {
		if sp.own.series != nil && !yield(&sp.own) {
			return
		}
	}
	for _, tr := range c.lost {
		if !yield(tr) {
			return
		}
	}
}

// count is how many tracks there are.
func (c *cache) count() int { return c.series + len(c.lost) }

// speak forgets spellings in another tongue. Their series are found again by
// their labels.
func (c *cache) speak(t tongue) {
	if c.tongue != t {
		c.tongue = t
		c.unlearn()
	}
}

// unlearn forgets all spellings, and no track.
func (c *cache) unlearn() {
	for _, sp := range c.spellings {
		c.lose(sp)
	}
	c.spellings, c.places, c.aliases, c.layout, c.series = nil, nil, nil, nil, 0
}

// find returns the track of a spelling, nil when it is not known.
func (c *cache) find(raw []byte, sc *scratch) *track {
	sp := c.look(raw, sc)
	if sp == nil {
		return nil
	}
	if sp.seen != c.pass {
		sp.seen = c.pass
		c.see(sp, sc)
	}
	switch {
	case sp.dropped:
		return dropped
	case sp.own.series == nil:
		return c.aliases[sp]
	default:
		return &sp.own
	}
}

func (c *cache) see(sp *spelling, sc *scratch) {
	c.hits++
	sc.visited = append(sc.visited, sp)
}

// look finds a spelling: where it is expected, or anywhere.
func (c *cache) look(raw []byte, sc *scratch) *spelling {
	if c.next < len(c.spellings) && c.spellings[c.next].text == string(raw) {
		c.next++
		return c.spellings[c.next-1]
	}
	i, known := c.place(raw, sc)
	switch n := len(c.spellings); {
	case !known:
		return nil
	case i >= n:
		return sc.fresh[i-n].spelling
	default:
		c.next = i + 1
		return c.spellings[i]
	}
}

// place is where a spelling is: in the list, or behind it among the fresh ones.
func (c *cache) place(raw []byte, sc *scratch) (i int, known bool) {
	if i, known = c.places[string(raw)]; known {
		return i, true
	}
	if c.places == nil && !sc.placed {
		sc.placed = true
		for i, sp := range c.spellings {
			sc.places[sp.text] = i
		}
	}
	i, known = sc.places[string(raw)]
	return i, known
}

// drop makes a spelling known whose series relabeling drops, so that it is not
// relabeled again.
func (c *cache) drop(raw []byte, sc *scratch) *track {
	c.learn(raw, &spelling{dropped: true}, nil, sc)
	return dropped
}

// add makes a spelling known, and its series unless that has another one.
func (c *cache) add(raw []byte, set labels.Labels, t *target, reserved []*track, sc *scratch) (tr *track, added bool) {
	own, common := t.common.Split(set, &sc.split)
	sp := &spelling{}
	tr = c.index(t, reserved, sc)[labelKey{own, common}]
	switch {
	case tr == nil:
		tr, added = &sp.own, true
		if common != nil {
			own = sc.texts.shareLabels(own)
		}
		tr.series = &sample.Series{Own: own, Common: common}
		sc.index[labelKey{own, common}] = tr
		c.learn(raw, sp, nil, sc)
	case tr.lost && len(c.aliases) == 0: // which might refer to it
		sp.own = *tr
		sp.own.lost = false
		c.learn(raw, sp, tr, sc)
		tr = &sp.own
		sc.index[labelKey{own, common}] = tr
	default:
		if c.aliases == nil {
			c.aliases = map[*spelling]*track{}
		}
		c.aliases[sp] = tr
		c.learn(raw, sp, nil, sc)
	}
	return tr, added
}

func (c *cache) learn(raw []byte, sp *spelling, from *track, sc *scratch) {
	sp.text, sp.seen = sc.texts.share(raw), c.pass
	sc.places[sp.text], sc.placed = len(c.spellings)+len(sc.fresh), true
	sc.fresh = append(sc.fresh, fresh{sp, from})
	c.see(sp, sc)
}

// A labelKey is the labels of a series: those of one target are equal when their
// keys are.
type labelKey struct {
	own    labels.Labels
	common *sample.Common
}

// index finds tracks by their labels. It is built by the first new spelling of
// a pass: idle producers do not pay for it. Labels are strings, and so a key;
// their unseeded Hash would be one that producers can make collide.
func (c *cache) index(t *target, reserved []*track, sc *scratch) map[labelKey]*track {
	if sc.indexed {
		return sc.index
	}
	sc.indexed = true
	put := func(tr *track) {
		s := tr.series
		id := labelKey{s.Own, s.Common}
		if s.Common != t.common {
			id.own, id.common = t.common.Split(s.MakeLabels(&sc.split), &sc.split)
		}
		sc.index[id] = tr
	}
	for tr := range c.tracks {
		put(tr)
	}
	for _, tr := range reserved {
		put(tr)
	}
	return sc.index
}

// accept keeps the fresh spellings and forgets those that were not used. An
// empty exposition forgets nothing: it may be a hiccup.
func (c *cache) accept(sc *scratch) {
	if sc.layout != nil {
		c.layout = sc.layout
	}
	// None are visited, either, in columns of a layout that is known.
	if len(sc.visited) == 0 || c.ordered(sc) {
		return
	}
	c.places = nil
	for _, sp := range c.spellings {
		if sp.seen != c.pass {
			c.lose(sp)
		}
	}
	for _, f := range sc.fresh {
		if f.from != nil {
			f.from.series = nil
		}
	}
	c.keep(func(tr *track) bool { return tr.series != nil })
	c.spellings, c.series = slices.Clone(sc.visited), 0
	for _, sp := range c.spellings {
		if sp.own.series != nil {
			c.series++
		}
	}
}

// retry is after how many passes it is looked again whether there is an order.
const retry = 32

// ordered reports whether the list can stay as it is: its spellings came in that
// order, or the producer has none.
func (c *cache) ordered(sc *scratch) bool {
	switch {
	case slices.Equal(sc.visited, c.spellings):
		c.unsteady, c.places = false, nil
		return true
	case len(sc.fresh) > 0 || len(sc.visited) != len(c.spellings):
		return false
	case !c.unsteady || c.pass%retry == 0:
		c.unsteady = true
		return false
	case c.places == nil:
		c.places, sc.places, sc.placed = sc.places, map[string]int{}, false
	}
	return true
}

// lose forgets a spelling, and not its track.
func (c *cache) lose(sp *spelling) {
	delete(c.aliases, sp)
	if sp.own.series != nil {
		sp.own.lost = true
		c.lost = append(c.lost, &sp.own)
	}
}

// reject forgets the fresh spellings.
func (c *cache) reject(sc *scratch) {
	for _, f := range sc.fresh {
		delete(c.aliases, f.spelling)
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
	for tr := range c.tracks {
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
	c.unlearn()
	c.keep(func(tr *track) bool { return tr.live })
}

// keep drops lost tracks that are not wanted.
func (c *cache) keep(wanted func(*track) bool) {
	kept := c.lost[:0]
	for _, tr := range c.lost {
		if wanted(tr) {
			kept = append(kept, tr)
		}
	}
	clear(c.lost[len(kept):])
	c.lost = kept
	if len(kept) == 0 {
		c.lost = nil
	}
}
