package schedule

import (
	"context"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A Reason is why a collection failed: a closed set, numbered as in the
// protocol. ReasonNone is success.
type Reason int32

// The reasons.
const (
	ReasonNone           Reason = 0
	ReasonUnreachable    Reason = 1
	ReasonTimeout        Reason = 2
	ReasonStatus         Reason = 3
	ReasonTooLarge       Reason = 4
	ReasonTooManySamples Reason = 5
	ReasonMalformed      Reason = 6
	ReasonWrongProducer  Reason = 7
	ReasonOverlap        Reason = 8
	ReasonBudget         Reason = 9
	ReasonStore          Reason = 10
)

// A Result is what one collection came to.
type Result struct {
	// Start and Duration are filled in by the schedule when Start is zero.
	Start    time.Time
	Duration time.Duration

	// Reason and Message tell a failure; both are empty after a success. The
	// schedule keeps 512 bytes of the message.
	Reason  Reason
	Message string

	// Samples counts those of the exposition; BodyBytes is its size,
	// uncompressed.
	Samples   int
	BodyBytes int64

	// Identity is what the endpoint said of who it is, also in a failure.
	Identity Identity
}

// An Identity is what an endpoint says of who it is.
type Identity uint8

// The identities.
const (
	IdentityUnheard  Identity = iota // no answer came
	IdentityNameless                 // it did not say
	IdentityOwn                      // it is the producer
	IdentityOther                    // it is another one
)

// A Collection pulls one producer. The schedule owns it and calls one method at
// a time. No method may call the schedule.
type Collection interface {
	// Update takes a changed assignment of the same producer, whose times have
	// been checked. It is called under the schedule's lock and does no I/O. An
	// error says that it cannot be run here, and leaves the collection as it
	// was; it is for people.
	Update(a *assignment.Assignment) error

	// Collect pulls once and stores what it got under the time stamp at. It
	// returns when that is done or ctx has ended: after the assignment's timeout
	// with context.DeadlineExceeded, which is the producer's failure; with
	// context.Canceled when the schedule itself ended it, which says nothing of
	// the producer and is not counted as its failure.
	Collect(ctx context.Context, at time.Time) Result

	// Probe is Collect for a producer that another collector may still collect,
	// and that has never answered here. It stores nothing unless it succeeds,
	// and nothing at all when at is zero; and what it does not store leaves no
	// stale marker later.
	Probe(ctx context.Context, at time.Time) Result

	// End is the last call. With stale, the producer is gone for good and its
	// series get their stale markers at that time; without, another collector
	// goes on with them.
	End(at time.Time, stale bool)
}

// An Opener makes collections. It is safe for concurrent use, for the producers of
// a large change are opened by several goroutines at a time, while other
// collections go on; it does no I/O and may not call the schedule.
type Opener interface {
	// Open makes the collection of a producer, whose times have been checked.
	// When the producer was here before, its former collection may not have
	// ended yet; Collect is not called before it has. An error says that the
	// assignment cannot be run here; it is for people.
	Open(a *assignment.Assignment) (Collection, error)
}
