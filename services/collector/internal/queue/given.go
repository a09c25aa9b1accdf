package queue

import (
	"slices"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// A given record is one that a reader has, and has not committed. A hole is a
// part of the log behind it that the reader will not get: it can be passed only
// when all before it is committed, because that is still to be read again.
type given struct {
	end     sample.Position
	samples int64 // of the record
	read    int64 // of its segment, up to end
	hole    bool
	void    bool // it will be given again: its commit says nothing
}

// give notes that a record is with the reader.
func (h *holder) give(end sample.Position, samples, read int64) {
	if h.done < 0 && h.next == h.committed {
		h.done = read - samples
	}
	h.given = append(h.given, given{end: end, samples: samples, read: read})
	h.next, h.read = end, read
}

// commit takes the record that ends at p, and those given before it, as dealt
// with. Records are committed in the order in which they were given.
func (h *holder) commit(p sample.Position) {
	i := slices.IndexFunc(h.given, func(g given) bool { return !g.hole && g.end == p })
	if i < 0 {
		return
	}
	for _, g := range h.given[:i+1] {
		h.settle(g)
	}
	h.given = h.given[i+1:]
	h.passHoles()
}

func (h *holder) passHoles() {
	for len(h.given) > 0 && h.given[0].hole {
		h.settle(h.given[0])
		h.given = h.given[1:]
	}
}

func (h *holder) settle(g given) {
	if !g.void && h.committed.Before(g.end) {
		h.committed, h.done, h.dirty = g.end, g.read, true
	}
}

// skip moves a holder behind a segment.
func (h *holder) skip(s *segment) {
	h.next, h.read, h.moved = sample.Position{Segment: s.number + 1}, 0, true
	h.given = append(h.given, given{end: h.next, hole: true})
	h.passHoles()
	if h.reader != nil {
		wake(h.reader.woken)
	}
}

// rewind puts a holder to a place before what its reader was given.
func (h *holder) rewind(s slot) {
	for i := range h.given {
		h.given[i].void = true
	}
	h.committed, h.next, h.moved = s.position, s.position, true
	h.read, h.done = readFrom(s.position.Offset), readFrom(s.position.Offset)
	h.sequence = s.sequence
	if h.reader != nil {
		wake(h.reader.woken)
	}
}

// takeBack is the end of a reader: what it was given and has not committed is
// given to the next one, as far as it is still there. The rest is counted.
func (q *Queue) takeBack(h *holder) {
	lost := int64(0)
	for _, g := range h.given {
		if g.hole || g.void {
			continue
		}
		if i := q.find(g.end.Segment); i == len(q.segments) || q.segments[i].number != g.end.Segment {
			lost += g.samples
		}
	}
	h.given, h.reader = nil, nil
	h.next, h.read = h.committed, h.done
	if lost > 0 {
		q.dropFor(h, deliver.ReasonOverflow, lost)
		q.cfg.Logger.Warn("a sink has ended with samples whose segment was dropped meanwhile", "sink", h.name, "samples", lost)
	}
}
