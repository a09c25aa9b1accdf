package schedule

import (
	"context"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A state is where an entry is between its due times.
type state uint8

const (
	// unopened: there is no collection; no assignment could be opened yet.
	unopened state = iota

	// blocked: an earlier collection of the same producer has not ended.
	blocked

	// idle: not before the next due time.
	idle

	// waiting: in the queue ready, or in firsts before its first collection.
	waiting

	// running: a goroutine has the collection.
	running
)

// noSlot is the slot of an entry that is not in the heap.
const noSlot = -1

// An entry is one applied producer from its first assignment to its removal. A
// producer that comes back gets another one. All but id is guarded by
// Schedule.mu; there are many of them and most are idle, so each byte counts.
type entry struct {
	id         assignment.ProducerID
	collection Collection // nil in the state unopened only

	// work is what the collection runs; pending is what it shall run as soon
	// as it does not run, nil for no change.
	work    *assignment.Assignment
	pending *assignment.Assignment

	// cancel ends the collection that runs, nil when none does.
	cancel context.CancelFunc

	before, behind *entry        // in a queue
	since          time.Duration // when it came into the queue, monotonic

	// stamp is the due time it waits for, ms; 0 is the time of the start. When it
	// does not wait it is the time stamp of its last collection if that was a
	// probe that was kept, else 0.
	stamp int64

	slot  int32 // in the heap of due times
	state state
	first bool // waits for its first collection, or for a retry of that
	gone  bool // removed
	stale bool // what End is told

	// refresh says that Refresh has come while it ran.
	refresh bool

	// target says that the role is HANDOFF_TARGET; joining that it has been that
	// from the start, and no collection has succeeded.
	target, joining bool

	record record
}
