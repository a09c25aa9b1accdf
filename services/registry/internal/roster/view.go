// Package roster holds the rules of who exists and who has whom: what a command
// writes, given what stands in the store, and what an event of the store
// changes in the view.
//
// Its invariant: the view is the fold of the store's events in revision order,
// and nothing else changes it. It does no I/O; time is an argument.
package roster

import (
	"github.com/google/btree"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A View is the roster as of one revision. It is not safe for concurrent use;
// its owner guards it.
type View struct {
	epoch         assignment.Epoch
	epochRevision assignment.Revision
	revision      assignment.Revision

	producers  *btree.BTreeG[*Entry]
	unassigned map[assignment.ProducerID]bool
	handoffs   map[assignment.ProducerID]bool // those with a HandoffFrom
	collectors map[assignment.CollectorID]*CollectorEntry
	removed    map[assignment.ProducerID]RemovedEntry
	suspects   map[assignment.ProducerID]SuspectEntry
	owned      map[Owner]int // how many producers count for each, none for none
	leader     LeaderEntry
	expiry     *Expiry
	expiryAt   assignment.Revision

	// zones are those that producers name, so that equal ones share their text.
	// They are few: one that nobody names any more is kept.
	zones map[string]string
}

// An Entry is a producer in the view. It is immutable.
type Entry struct {
	Producer

	// Revision is that of the record's last write.
	Revision assignment.Revision
}

// A CollectorEntry is what the view knows of a collector. Any of its records may
// be missing but not all.
type CollectorEntry struct {
	id assignment.CollectorID

	Collector         *Collector
	CollectorRevision assignment.Revision
	Session           *Session
	SessionRevision   assignment.Revision
	Ack               *Ack
	AckRevision       assignment.Revision

	// Assigned is the number of producers that it has been given, Leaving of
	// those that it goes on with until another one collects them.
	Assigned int
	Leaving  int
}

// Live reports whether the collector is known and has a subscription.
func (c *CollectorEntry) Live() bool { return c.Collector != nil && c.Session != nil }

// A RemovedEntry is a producer that left.
type RemovedEntry struct {
	*Removed

	// Revision is the one at which it left.
	Revision assignment.Revision
}

// A SuspectEntry is a producer that fails at its collector.
type SuspectEntry struct {
	*Suspect

	// Revision is that of the record's last write.
	Revision assignment.Revision
}

// A LeaderEntry is who leads; its record is nil while nobody does.
type LeaderEntry struct {
	*Leader
	Revision assignment.Revision
}

// NewView returns an empty view.
func NewView() *View {
	return &View{
		producers:  btree.NewG(32, func(a, b *Entry) bool { return a.ID < b.ID }),
		unassigned: map[assignment.ProducerID]bool{},
		handoffs:   map[assignment.ProducerID]bool{},
		suspects:   map[assignment.ProducerID]SuspectEntry{},
		collectors: map[assignment.CollectorID]*CollectorEntry{},
		removed:    map[assignment.ProducerID]RemovedEntry{},
		owned:      map[Owner]int{},
		zones:      map[string]string{},
	}
}

// Epoch is the lineage of the store, empty while it has none.
func (v *View) Epoch() assignment.Epoch { return v.epoch }

// EpochRevision is the revision of the epoch's record.
func (v *View) EpochRevision() assignment.Revision { return v.epochRevision }

// Revision is that of the last batch applied.
func (v *View) Revision() assignment.Revision { return v.revision }

// Producers is the number of producers.
func (v *View) Producers() int { return v.producers.Len() }

// Unassigned is the number of producers without a collector.
func (v *View) Unassigned() int { return len(v.unassigned) }

// Producer finds a producer; nil when there is none.
func (v *View) Producer(id assignment.ProducerID) *Entry {
	return Find(v.producers, id)
}

// Collector finds a collector; nil when there is none of that id, or only
// leftovers of one.
func (v *View) Collector(id assignment.CollectorID) *CollectorEntry {
	if c := v.collectors[id]; c != nil && c.Collector != nil {
		return c
	}
	return nil
}

// KnownCollectors is about how many collectors are known: those that a record
// other than their own still names count too.
func (v *View) KnownCollectors() int { return len(v.collectors) }

// Collectors calls yield with every known collector, in no order.
func (v *View) Collectors(yield func(*CollectorEntry) bool) {
	for _, c := range v.collectors {
		if c.Collector != nil && !yield(c) {
			return
		}
	}
}

// Removed finds what is remembered of a producer that left.
func (v *View) Removed(id assignment.ProducerID) (RemovedEntry, bool) {
	r, ok := v.removed[id]
	return r, ok
}

// AllRemoved calls yield with every producer that is remembered to have left.
func (v *View) AllRemoved(yield func(RemovedEntry) bool) {
	for _, r := range v.removed {
		if !yield(r) {
			return
		}
	}
}

// Orphans returns up to limit producers without a collector.
func (v *View) Orphans(limit int) []*Entry {
	orphans := make([]*Entry, 0, min(limit, len(v.unassigned)))
	for id := range v.unassigned {
		if len(orphans) == limit {
			break
		}
		orphans = append(orphans, v.Producer(id))
	}
	return orphans
}

// Handoffs calls yield with every producer that is being handed off.
func (v *View) Handoffs(yield func(*Entry) bool) {
	for id := range v.handoffs {
		if !yield(v.Producer(id)) {
			return
		}
	}
}

// Handing is the number of producers that are being handed off.
func (v *View) Handing() int { return len(v.handoffs) }

// Suspect finds what is known of a producer that fails at its collector.
func (v *View) Suspect(id assignment.ProducerID) (SuspectEntry, bool) {
	s, ok := v.suspects[id]
	return s, ok
}

// Suspects calls yield with every suspect.
func (v *View) Suspects(yield func(SuspectEntry) bool) {
	for _, s := range v.suspects {
		if !yield(s) {
			return
		}
	}
}

// Leader is who leads.
func (v *View) Leader() LeaderEntry { return v.leader }

// Expiry is what an operator has said of those that are due; nil for nothing.
func (v *View) Expiry() *Expiry { return v.expiry }

// Snapshot returns the producers as they are now, ordered by id. Reading it
// needs no guard.
func (v *View) Snapshot() *btree.BTreeG[*Entry] { return v.producers.Clone() }

// A Change is one change of one collector's set.
type Change struct {
	Collector assignment.CollectorID
	ID        assignment.ProducerID

	// Entry is what the set has under ID from now on, in the role Role; nil:
	// nothing, for the reason Cause.
	Entry *Entry
	Role  assignment.Role
	Cause assignment.Cause
}

// Effects are what a batch has changed beside the view itself.
type Effects struct {
	// Changes of the collectors' sets.
	Changes []Change

	// Sessions are the collectors whose session record changed.
	Sessions []assignment.CollectorID

	// Collectors tells that a collector, or its session, came, changed or went.
	Collectors bool

	// Epoch tells that the epoch changed.
	Epoch bool
}

// Put takes a record as it was loaded, with the revision of its last write.
func (v *View) Put(record Record, revision assignment.Revision) {
	if r, ok := record.(*Producer); ok {
		v.setProducer(r.ID, &Entry{Producer: *r, Revision: revision}) // nobody asks what it changes
		return
	}
	v.apply(record.Key(), record, revision, &Effects{}, nil)
}

// Loaded sets the revision of a view after all records were put.
func (v *View) Loaded(revision assignment.Revision) { v.revision = revision }

// Apply takes the next batch.
func (v *View) Apply(b Batch) Effects {
	var effects Effects
	named := map[assignment.ProducerID]assignment.Cause{}
	for _, e := range b.Events {
		if r, ok := e.Record.(*Removed); ok {
			named[r.ID] = r.Cause
		}
	}
	for _, e := range b.Events {
		v.apply(e.Key, e.Record, b.Revision, &effects, named)
	}
	v.revision = b.Revision
	return effects
}

func (v *View) apply(key Key, record Record, revision assignment.Revision, effects *Effects, named map[assignment.ProducerID]assignment.Cause) {
	switch key.Kind {
	case KindEpoch:
		if r, ok := record.(*Epoch); ok {
			effects.Epoch = v.epoch != "" && v.epoch != r.Epoch
			v.epoch, v.epochRevision = r.Epoch, revision
		}
	case KindProducer:
		var next *Entry
		if r, ok := record.(*Producer); ok {
			next = &Entry{Producer: *r, Revision: revision}
		}
		id := assignment.ProducerID(key.ID)
		old := v.setProducer(id, next)
		effects.Changes = changes(effects.Changes, id, old, next, named[id])
	case KindCollector, KindSession, KindAck:
		id := assignment.CollectorID(key.ID)
		v.setCollectorRecord(id, key.Kind, record, revision)
		if key.Kind == KindSession {
			effects.Sessions = append(effects.Sessions, id)
		}
		effects.Collectors = effects.Collectors || key.Kind != KindAck
	case KindRemoved:
		if r, ok := record.(*Removed); ok {
			v.removed[r.ID] = RemovedEntry{r, revision}
		} else {
			delete(v.removed, assignment.ProducerID(key.ID))
		}
	case KindSuspect:
		if r, ok := record.(*Suspect); ok {
			v.suspects[r.ID] = SuspectEntry{r, revision}
		} else {
			delete(v.suspects, assignment.ProducerID(key.ID))
		}
	case KindLeader:
		r, _ := record.(*Leader)
		v.leader = LeaderEntry{r, revision}
	case KindExpiry:
		v.expiry, _ = record.(*Expiry)
		v.expiryAt = revision
	}
}

func (v *View) collectorEntry(id assignment.CollectorID) *CollectorEntry {
	c := v.collectors[id]
	if c == nil {
		c = &CollectorEntry{id: id}
		v.collectors[id] = c
	}
	return c
}

func (v *View) setCollectorRecord(id assignment.CollectorID, kind Kind, record Record, revision assignment.Revision) {
	c := v.collectorEntry(id)
	switch kind {
	case KindCollector:
		c.Collector, _ = record.(*Collector)
		c.CollectorRevision = revision
	case KindSession:
		c.Session, _ = record.(*Session)
		c.SessionRevision = revision
	case KindAck:
		c.Ack, _ = record.(*Ack)
		c.AckRevision = revision
	default:
	}
	v.forget(id)
}

// forget drops an entry that says nothing any more.
func (v *View) forget(id assignment.CollectorID) {
	c := v.collectors[id]
	if c.Collector == nil && c.Session == nil && c.Ack == nil && c.Assigned == 0 && c.Leaving == 0 {
		delete(v.collectors, id)
	}
}
