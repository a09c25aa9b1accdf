package schedule

import (
	"math"
	"time"
)

// A record is what an entry's collections came to. Nearly all of them succeed,
// so what a failure or a missed due time leaves stands apart. Times are
// nanoseconds of Unix time, 0 for never.
type record struct {
	trouble *trouble // nil while there was none

	// Of the last success: when it was complete, when it began, how long it took,
	// and what it was.
	success, start int64
	duration       time.Duration
	bytes          int64
	samples        int32

	failed   bool // the last collection did
	answered bool // any has succeeded, at the present endpoint
	identity Identity

	successes int64
}

// A trouble is what an entry's failures and missed due times came to.
type trouble struct {
	// Of the last failure, as in record.
	failure, start int64
	duration       time.Duration
	bytes          int64
	message        string
	samples        int32
	reason         Reason

	failingSince int64

	// failingFrom is failingSince on the monotonic clock, and inRow counts the
	// failures since then. They are for a judgement, so a failure of this
	// collector's own, which says nothing of the producer, breaks the row.
	failingFrom time.Duration
	inRow       int32

	failures        int64
	overlap, budget int64 // due times missed
}

// troubles is what went wrong, to read.
func (r *record) troubles() trouble {
	if r.trouble == nil {
		return trouble{}
	}
	return *r.trouble
}

// troubled is what went wrong, to write.
func (r *record) troubled() *trouble {
	if r.trouble == nil {
		r.trouble = &trouble{}
	}
	return r.trouble
}

// add takes in a result that was complete at a time, Unix and monotonic.
func (r *record) add(result *Result, at int64, elapsed time.Duration) {
	if result.Identity != IdentityUnheard {
		r.identity = result.Identity
	}
	if r.failed = result.Reason != ReasonNone; r.failed {
		r.troubled().add(result, at, elapsed)
		return
	}
	r.success, r.start, r.duration = at, result.Start.UnixNano(), result.Duration
	r.samples, r.bytes = clamped(result.Samples), result.BodyBytes
	r.successes++
	r.answered = true
	if r.trouble != nil {
		r.trouble.failingSince, r.trouble.inRow = 0, 0
	}
}

func (t *trouble) add(result *Result, at int64, elapsed time.Duration) {
	t.failure, t.start, t.duration = at, result.Start.UnixNano(), result.Duration
	t.samples, t.bytes = clamped(result.Samples), result.BodyBytes
	t.reason, t.message = result.Reason, result.Message
	t.failures++
	if t.failingSince == 0 {
		t.failingSince = at
	}
	switch result.Reason {
	case ReasonOverlap, ReasonBudget, ReasonStore:
		t.inRow = 0
	default:
		if t.inRow == 0 {
			t.failingFrom = elapsed
		}
		t.inRow++
	}
}

// miss counts due times without a collection.
func (r *record) miss(reason Reason, n int64) {
	if reason == ReasonOverlap {
		r.troubled().overlap += n
	} else {
		r.troubled().budget += n
	}
}

// move forgets what the old endpoint said that would be held against the new one.
func (r *record) move() {
	r.identity, r.answered = IdentityUnheard, false
	if r.trouble != nil {
		r.trouble.failingSince, r.trouble.inRow = 0, 0
	}
}

// succeeded is the result of the last success, zero before the first one.
func (r *record) succeeded() Result {
	if r.success == 0 {
		return Result{}
	}
	return Result{Start: time.Unix(0, r.start), Duration: r.duration, Samples: int(r.samples), BodyBytes: r.bytes}
}

// last is the result of the last failure, zero before the first one.
func (t *trouble) last() Result {
	if t.failure == 0 {
		return Result{}
	}
	return Result{
		Start: time.Unix(0, t.start), Duration: t.duration,
		Samples: int(t.samples), BodyBytes: t.bytes,
		Reason: t.reason, Message: t.message,
	}
}

func clamped(n int) int32 { return int32(min(n, math.MaxInt32)) }

// unixTime is the time of nanoseconds of Unix time, zero for 0.
func unixTime(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}
