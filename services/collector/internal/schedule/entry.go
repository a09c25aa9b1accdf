package schedule

import (
	"context"
	"math"
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

	// target says that the role is HANDOFF_TARGET; joining that it has been that
	// from the start, and no collection has succeeded.
	target, joining bool

	record record
}

// A record is what an entry's collections came to, without pointers where that
// can be. Times are nanoseconds of Unix time, 0 for never.
type record struct {
	start    int64
	duration time.Duration
	samples  int
	bytes    int64

	success, failure, failingSince int64

	// failingFrom is failingSince on the monotonic clock, and inRow counts the
	// failures since then. They are for a judgement, so a failure of this
	// collector's own, which says nothing of the producer, breaks the row.
	failingFrom time.Duration
	inRow       int32

	yield int32 // samples of the last success

	message                     string // of the last failure
	successes, failures, missed int64
	reason                      Reason // of the last failure
	failed                      bool   // the last collection did
	answered                    bool   // any has succeeded, at the present endpoint
	identity                    Identity
}

// add takes in a result that was complete at a time, Unix and monotonic.
func (r *record) add(result *Result, at int64, elapsed time.Duration) {
	r.start, r.duration = result.Start.UnixNano(), result.Duration
	r.samples, r.bytes = result.Samples, result.BodyBytes
	r.failed = result.Reason != ReasonNone
	r.count(result.Reason, elapsed)
	if result.Identity != IdentityUnheard {
		r.identity = result.Identity
	}
	if !r.failed {
		r.successes++
		r.answered = true
		r.yield = int32(min(result.Samples, math.MaxInt32))
		r.success, r.failingSince = at, 0
		return
	}
	r.failures++
	r.failure = at
	r.reason, r.message = result.Reason, result.Message
	if r.failingSince == 0 {
		r.failingSince = at
	}
}

func (r *record) count(reason Reason, elapsed time.Duration) {
	switch reason {
	case ReasonNone, ReasonOverlap, ReasonBudget, ReasonStore:
		r.inRow = 0
	default:
		if r.inRow == 0 {
			r.failingFrom = elapsed
		}
		r.inRow++
	}
}

// last is the result of the last collection, zero before the first one.
func (r *record) last() Result {
	if r.start == 0 {
		return Result{}
	}
	result := Result{
		Start: time.Unix(0, r.start), Duration: r.duration,
		Samples: r.samples, BodyBytes: r.bytes,
	}
	if r.failed {
		result.Reason, result.Message = r.reason, r.message
	}
	return result
}

// unixTime is the time of nanoseconds of Unix time, zero for 0.
func unixTime(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}
