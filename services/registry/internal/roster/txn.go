package roster

import "github.com/rollcall-metrics/rollcall/services/internal/assignment"

// A Write puts or deletes one record, or only checks it, provided that it still
// is what was read.
type Write struct {
	Key Key

	// Expect is the revision at which the record was last written, as it was
	// read; zero: there is none.
	Expect assignment.Revision

	// Record is the new one; nil deletes.
	Record Record

	// Check writes nothing: the record must only still be what was read. Then
	// there is no Record. Any number of Txns can go together that check the same.
	Check bool

	// Leased ties the record to the life of this registry process.
	Leased bool
}

// A Txn is a few writes, at least one of which is no mere Check, that happen
// together or not at all.
type Txn []Write

// An Outcome is what became of a Txn.
type Outcome struct {
	// Committed tells whether the writes happened, at Revision.
	Committed bool
	Revision  assignment.Revision

	// Found holds, when they did not, what stands under each key of the Txn, in
	// its order, read at the same point in time.
	Found []Found
}

// Found is a record as it stands in the store.
type Found struct {
	// Record is nil where there is none.
	Record Record

	// Revision is that of its last write.
	Revision assignment.Revision
}

// An Event is one change of one record.
type Event struct {
	Key Key

	// Record is nil where it was deleted.
	Record Record
}

// A Batch holds all events of one revision. One without events says that there
// are none up to its revision.
type Batch struct {
	Revision assignment.Revision
	Events   []Event
}
