package deliver

import (
	"math/bits"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// laneCount is the number of lanes: sources share one evenly enough, and a set
// of lanes fits in a word.
const laneCount = 64

// A laneSet has bit l for lane l.
type laneSet uint64

// shareOf are the lanes of one of n shares.
func shareOf(share, n int) laneSet {
	var set laneSet
	for l := share; l < laneCount; l += n {
		set |= 1 << l
	}
	return set
}

// cost is what the entry counts in the window.
func (e *entry) cost() int { return e.samples + recordCost + extraCost*e.extras }

// What a record counts in the window beyond its samples.
const (
	recordCost = 4
	extraCost  = 32
)

// full reports whether there is room for no other entry, of limit. Where tables
// are short, as in a queue that drops its oldest part, it is their series that
// take the memory, and not the samples.
func (w *window) full(limit int) bool {
	return w.cost >= limit || w.series >= max(limit/seriesShare, 1)
}

// seriesShare is which part of the window may be series that are new in their
// table: as many as fill all requests that may be at work, by the default.
const seriesShare = windowRounds

// An entry is a record that has been read and is not committed.
type entry struct {
	lane    int
	seq     uint64 // rising in the order of the log
	table   *table
	samples int    // that items were
	items   []Item // nil when settled
	block   *block // that items is in
	extras  int    // items that have an Extra
	fresh   int    // series that were compiled for it
	read    time.Time
	end     sample.Position
	settled bool

	behind *entry // in its lane
	later  *entry // in the window
}

// A lane has the entries of some sources that no request has.
type lane struct {
	first, last *entry
	samples     int
}

// A window is what has been read and is not committed. It is not safe for
// concurrent use.
type window struct {
	lanes [laneCount]lane
	busy  laneSet // in a request

	samples int    // in lanes
	cost    int    // of all entries
	series  int    // that were compiled for all entries
	table   *table // of the newest entry

	first, last *entry // in the order of the log
	seq         uint64
	taken       uint64 // the highest in a request so far
	free        *entry // not used, linked by later

	blocks blocks
}

// fresh is an empty entry.
func (w *window) fresh() *entry {
	e := w.free
	if e == nil {
		return &entry{}
	}
	w.free = e.later
	*e = entry{}
	return e
}

// push adds an entry at the end of the window. One without items is settled.
func (w *window) push(e *entry) {
	w.seq++
	e.seq = w.seq
	w.table = e.table
	w.cost += e.cost()
	w.series += e.fresh
	if w.last == nil {
		w.first = e
	} else {
		w.last.later = e
	}
	w.last = e
	if len(e.items) == 0 {
		e.settled = true
		return
	}
	e.block.used++
	w.samples += len(e.items)
	l := &w.lanes[e.lane]
	l.samples += len(e.items)
	if l.last == nil {
		l.first = e
	} else {
		l.last.behind = e
	}
	l.last = e
}

// waiting counts the samples in the lanes of a set that are in no request, and
// names the lane with the oldest of them, or -1.
func (w *window) waiting(set laneSet) (samples, oldest int) {
	oldest = -1
	for set &^= w.busy; set != 0; set &= set - 1 {
		i := bits.TrailingZeros64(uint64(set))
		l := &w.lanes[i]
		if l.first == nil {
			continue
		}
		samples += l.samples
		if oldest < 0 || l.first.seq < w.lanes[oldest].first.seq {
			oldest = i
		}
	}
	return samples, oldest
}

// take moves the oldest entries of the lanes of a set that are in no request to
// j: at least one, if there is one up to an end, and then as many as are of the
// same table and not more than limit samples. Their lanes are busy until release.
func (w *window) take(j *job, set laneSet, limit int, end uint64) {
	set &^= w.busy
	for {
		_, i := w.waiting(set)
		if i < 0 {
			break
		}
		l := &w.lanes[i]
		e := l.first
		if e.seq > end || len(j.entries) > 0 && (e.table != j.entries[0].table || j.samples+len(e.items) > limit) {
			break
		}
		if len(j.entries) == 0 {
			j.seq = e.seq
		}
		l.first = e.behind
		if l.first == nil {
			l.last = nil
		}
		e.behind = nil
		l.samples -= len(e.items)
		w.samples -= len(e.items)
		j.entries = append(j.entries, e)
		j.samples += len(e.items)
		j.lanes |= 1 << i
		j.extras = j.extras || e.extras > 0
	}
	w.busy |= j.lanes
	if n := len(j.entries); n > 0 {
		w.taken = max(w.taken, j.entries[n-1].seq)
	}
}

// release makes the lanes of a request free.
func (w *window) release(j *job) { w.busy &^= j.lanes }

// settle says that the samples of an entry are dealt with.
func (w *window) settle(e *entry) {
	e.settled = true
	w.blocks.release(e.block)
	e.items, e.block, e.table = nil, nil, nil
}

// commit takes the settled entries off the front of the window, and answers up
// to where the log is dealt with, if that has moved.
func (w *window) commit() (end sample.Position, moved bool) {
	for e := w.first; e != nil && e.settled; e = w.first {
		end, moved = e.end, true
		w.cost -= e.cost()
		w.series -= e.fresh
		w.first = e.later
		if w.first == nil {
			w.last = nil
		}
		e.later, e.table = w.free, nil
		w.free = e
	}
	return end, moved
}
