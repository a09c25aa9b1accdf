package schedule

import "strings"

// maxText bounds the texts that the schedule keeps: a failing fleet must not
// fill the memory with what it says.
const maxText = 512

// String is the reason's name as metrics and people see it: lower case with
// underscores, "none" for success, "other" for a number that is no reason.
func (r Reason) String() string {
	switch r {
	case ReasonNone:
		return "none"
	case ReasonUnreachable:
		return "unreachable"
	case ReasonTimeout:
		return "timeout"
	case ReasonStatus:
		return "status"
	case ReasonTooLarge:
		return "too_large"
	case ReasonTooManySamples:
		return "too_many_samples"
	case ReasonMalformed:
		return "malformed"
	case ReasonWrongProducer:
		return "wrong_producer"
	case ReasonOverlap:
		return "overlap"
	case ReasonBudget:
		return "budget"
	case ReasonStore:
		return "store"
	default:
		return "other"
	}
}

// bounded cuts a text to maxText bytes, in a string of its own, so that the
// rest can be freed.
func bounded(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.Clone(strings.ToValidUTF8(s[:maxText], ""))
}
