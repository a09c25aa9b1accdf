package deliver

import (
	"context"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// A Log is read from front to back, by one reader.
type Log interface {
	// Next fills r with the next record, whose slices are the caller's until it
	// is filled again. It waits for one until ctx ends, and gives no other error:
	// what cannot be read is skipped and counted by the log.
	Next(ctx context.Context, r *sample.Record) error

	// Commit says that everything before a position has been dealt with. A
	// process that is killed thereafter begins there when it is started again; one
	// whose machine dies, at most a second or so earlier. It is safe for
	// concurrent use with all else, and does not wait for the disk.
	Commit(p sample.Position)

	// Lag tells how much is not committed. It is safe for concurrent use.
	Lag() sample.Lag
}

// A Transport speaks to one receiver. It is safe for concurrent use.
type Transport interface {
	// NewSeries makes what the series of one [sample.Table] are compiled into.
	NewSeries() Series

	// Send tries once to deliver a request, until ctx ends. It is called with the
	// same request again when its Outcome says [Retry].
	Send(ctx context.Context, r *Request) Outcome

	// Protocol names how the receiver is spoken to now, for people.
	Protocol() string

	// Close lets go of connections. It is called when no Send is at work.
	Close()
}

// Series are series as a transport wants them. One caller adds, while requests
// with series that were added before are sent.
type Series interface {
	// Add compiles one series. Its index is the number of those added before.
	Add(ls labels.Labels, meta *metadata.Metadata)
}

// A Request is samples to be delivered together: whole records, those of one
// producer in their order.
type Request struct {
	// Series has all series of the items.
	Series Series

	// Items are the samples.
	Items []Item

	// Ends are where records end in Items, rising; the last one is len(Items).
	// What is one record must not be torn apart without need: a histogram of
	// several series is in one.
	Ends []int

	// Encoded belongs to the transport, which may keep there what it would else
	// encode at every try. It begins as nil.
	Encoded any
}

// An Item is one sample of a request.
type Item struct {
	// Index is that of its series in Series.
	Index uint32

	sample.Point
}

// Result is what came of a try.
type Result int

// The results.
const (
	// Delivered: the receiver has the samples, but for those it has refused for
	// good (Outcome.Refused).
	Delivered Result = iota

	// Retry: nothing is known to be delivered, and the same request may be
	// delivered later.
	Retry

	// Rejected: the request is refused as a whole, and will be refused again.
	Rejected

	// TooLarge: the receiver wants less at a time. A request of one sample that is
	// too large is rejected.
	TooLarge
)

// An Outcome is what came of a try.
type Outcome struct {
	Result Result

	// Refused counts, of a delivered request, the samples that the receiver says
	// it did not take.
	Refused int

	// Reason is why samples were refused or rejected; one of the closed set
	// Reason*.
	Reason string

	// Divisible says of a rejected request that only some of its samples may be at
	// fault, and that the receiver has taken none of the others: parts of it may be
	// taken. Prometheus does so in remote write 1.0.
	Divisible bool

	// Code names the answer, for metrics: an HTTP status, the name of a gRPC code,
	// "timeout", "unreachable". It has few values.
	Code string

	// RetryAfter is how long the receiver asks to wait; 0 when it does not say.
	RetryAfter time.Duration

	// Overloaded says that the receiver asks for less: fewer requests at a time.
	Overloaded bool

	// Bytes is what was sent as the body, compressed.
	Bytes int

	// Err tells people what was wrong; nil when all was well. It is bounded and
	// holds no secrets.
	Err error
}

// Why samples are dropped: the closed set of reasons, in metrics, in the status
// and in the log.
const (
	// ReasonOutOfOrder: the receiver has a newer sample of the series.
	ReasonOutOfOrder = "out_of_order"

	// ReasonDuplicate: the receiver has another value of that time. After a
	// handoff this is no loss.
	ReasonDuplicate = "duplicate"

	// ReasonTooOld and ReasonTooNew: outside of what the receiver takes.
	ReasonTooOld = "too_old"
	ReasonTooNew = "too_new"

	// ReasonInvalid: the receiver does not understand them.
	ReasonInvalid = "invalid"

	// ReasonTooLarge: one sample alone is too large.
	ReasonTooLarge = "too_large"

	// ReasonLimit: over a limit that the receiver sets, and will not try again.
	ReasonLimit = "limit"

	// ReasonUnsupported: the protocol cannot say it.
	ReasonUnsupported = "unsupported"

	// ReasonRejected: refused for another reason, which is in the log.
	ReasonRejected = "rejected"

	// ReasonOverflow: the queue was full, and they were the oldest.
	ReasonOverflow = "overflow"

	// ReasonCorrupt: their part of the queue could not be read.
	ReasonCorrupt = "corrupt"
)
