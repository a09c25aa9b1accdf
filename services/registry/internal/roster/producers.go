package roster

import (
	"iter"
	"sync"

	"github.com/google/btree"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// How the view keeps its producers, and tells what becomes of the collectors' sets.

// probes are entries of nothing but an id, to look for others with: one takes
// as much as any other entry, and is wanted a few times for each command.
var probes = sync.Pool{New: func() any { return new(Entry) }} //nolint:gochecknoglobals // a pool is of the process

// Find finds a producer in a snapshot of a view; nil when there is none.
func Find(producers *btree.BTreeG[*Entry], id assignment.ProducerID) *Entry {
	probe, ok := probes.Get().(*Entry)
	if !ok {
		probe = new(Entry)
	}
	probe.ID = id
	e, _ := producers.Get(probe)
	probe.ID = ""
	probes.Put(probe)
	return e
}

// setProducer replaces a producer, or takes it out, and returns what was there.
func (v *View) setProducer(id assignment.ProducerID, next *Entry) (old *Entry) {
	if next != nil {
		v.share(next)
		old, _ = v.producers.ReplaceOrInsert(next)
	} else if old = v.Producer(id); old != nil {
		v.producers.Delete(old)
	}
	v.index(id, next)
	v.count(old, -1)
	v.count(next, +1)
	v.countOwner(old, -1)
	v.countOwner(next, +1)
	return old
}

// maxZones bounds how many zones share their text.
const maxZones = 10_000

// share lets a new entry use the text of names that the view has already. Every
// record is read with its own, which would be a tenth of the view's memory.
func (v *View) share(e *Entry) {
	for _, name := range []*assignment.CollectorID{&e.Collector, &e.HandoffFrom, &e.MovedFrom} {
		if c := v.collectors[*name]; c != nil {
			*name = c.id
		}
	}
	if zone, known := v.zones[e.Zone]; known {
		e.Zone = zone
	} else if e.Zone != "" && len(v.zones) < maxZones {
		v.zones[e.Zone] = e.Zone
	}
}

// index keeps the lists of producers that something is to be done about.
func (v *View) index(id assignment.ProducerID, e *Entry) {
	delete(v.unassigned, id)
	delete(v.handoffs, id)
	if e == nil {
		return
	}
	if e.Collector == "" {
		v.unassigned[id] = true
	}
	if e.HandoffFrom != "" {
		v.handoffs[id] = true
	}
}

// changes appends what becomes of the sets that a producer is or was in. cause is
// that of its own end, if next is nil.
func changes(all []Change, id assignment.ProducerID, old, next *Entry, cause assignment.Cause) []Change {
	if next != nil {
		cause = causeOfMove(next.Collector)
	}
	for collector := range old.parts() {
		if next == nil || next.RoleOf(collector) == assignment.RoleUnspecified {
			all = append(all, Change{Collector: collector, ID: id, Cause: cause})
		}
	}
	for collector, role := range next.parts() {
		if old == nil || old.RoleOf(collector) != role || old.Version != next.Version {
			all = append(all, Change{Collector: collector, ID: id, Entry: next, Role: role})
		}
	}
	return all
}

// parts is Parts, of no producer none.
func (e *Entry) parts() iter.Seq2[assignment.CollectorID, assignment.Role] {
	if e == nil {
		return func(func(assignment.CollectorID, assignment.Role) bool) {}
	}
	return e.Parts
}

// causeOfMove names a removal from one collector by who has the producer now.
func causeOfMove(after assignment.CollectorID) assignment.Cause {
	if after == "" {
		return assignment.CauseUnspecified // nobody collects it
	}
	return assignment.CauseHandedOff
}

func (v *View) count(e *Entry, by int) {
	for id, role := range e.parts() {
		c := v.collectorEntry(id)
		if role == assignment.RoleHandoffSource {
			c.Leaving += by
		} else {
			c.Assigned += by
		}
		v.forget(id)
	}
}

// Diff tells how the collectors' sets change from one view to another of the
// same epoch. A removal is named by what has been written since the earlier view.
// What the later one remembers from before comes from a store that was set back, and
// is no name: the producer has been here since.
func Diff(from, to *View) []Change {
	var all []Change
	from.producers.Ascend(func(old *Entry) bool {
		next := to.Producer(old.ID)
		cause := assignment.CauseUnspecified
		if r, ok := to.Removed(old.ID); next == nil && ok && r.Revision > max(from.revision, to.epochRevision) {
			cause = r.Cause
		}
		for _, c := range changes(nil, old.ID, old, next, cause) {
			if c.Entry == nil && next != nil && next.Revision <= from.revision {
				c.Cause = assignment.CauseUnspecified
			}
			all = append(all, c)
		}
		return true
	})
	to.producers.Ascend(func(next *Entry) bool {
		if from.Producer(next.ID) == nil {
			all = changes(all, next.ID, nil, next, 0)
		}
		return true
	})
	return all
}
