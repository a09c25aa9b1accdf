package roster

import "fmt"

// A Class says what kind of refusal an Error is.
type Class int

// The classes.
const (
	// NotFound: there is no such producer or collector.
	NotFound Class = iota + 1

	// Aborted: somebody newer has taken its place.
	Aborted

	// FailedPrecondition: it cannot be done as things stand.
	FailedPrecondition

	// Unavailable: not now, or not here.
	Unavailable

	// Exhausted: a bound is reached.
	Exhausted
)

// The reasons of errors, for programs.
const (
	ReasonUnknownProducer      = "UNKNOWN_PRODUCER"
	ReasonUnknownCollector     = "UNKNOWN_COLLECTOR"
	ReasonInstanceReplaced     = "INSTANCE_REPLACED"
	ReasonInstanceDeregistered = "INSTANCE_DEREGISTERED"
	ReasonGenerationMismatch   = "GENERATION_MISMATCH"
	ReasonSuperseded           = "SUPERSEDED"
	ReasonStaleAcknowledgement = "STALE_ACKNOWLEDGEMENT"
	ReasonNotServing           = "NOT_SERVING"
	ReasonOutcomeUnknown       = "OUTCOME_UNKNOWN"
	ReasonBehind               = "BEHIND"
	ReasonEpochChanged         = "EPOCH_CHANGED"
	ReasonContended            = "CONTENDED"
	ReasonTooManyCollectors    = "TOO_MANY_COLLECTORS"
	ReasonExpunged             = "EXPUNGED"
	ReasonNoOtherCollector     = "NO_OTHER_COLLECTOR"
	ReasonNotDrained           = "NOT_DRAINED"
	ReasonCollectorNotOpen     = "COLLECTOR_NOT_OPEN"
	ReasonProducerQuota        = "PRODUCER_QUOTA"
)

// An Error is a command that is refused by the rules.
type Error struct {
	Class   Class
	Reason  string
	Message string

	// Limit is that of a quota, zero for all else.
	Limit int
}

// Error tells the message.
func (e *Error) Error() string { return e.Message }

// Refuse makes an Error.
func Refuse(class Class, reason, format string, args ...any) *Error {
	return &Error{Class: class, Reason: reason, Message: fmt.Sprintf(format, args...)}
}
