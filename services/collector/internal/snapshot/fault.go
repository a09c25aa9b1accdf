package snapshot

import (
	"fmt"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A Fault says why a snapshot was refused. After one the stream must be
// dropped.
type Fault struct{ assignment.Refusal }

// Error tells the fault.
func (f *Fault) Error() string {
	return fmt.Sprintf("snapshot refused: %s: %s", f.Reason, f.Message)
}

// The reasons of faults.
const (
	ReasonNested     = "NESTED_BEGIN"
	ReasonHeartbeat  = "HEARTBEAT_INSIDE"
	ReasonOutside    = "OUTSIDE_SNAPSHOT"
	ReasonSnapshotID = "SNAPSHOT_ID"
	ReasonSequence   = "SEQUENCE"
	ReasonScope      = "SCOPE"
	ReasonBuckets    = "BUCKETS"
	ReasonRepeated   = "REPEATED_PRODUCER"
	ReasonRemoval    = "REMOVAL"
	ReasonCount      = "COUNT_MISMATCH"
	ReasonDigest     = "DIGEST_MISMATCH"
	ReasonEpoch      = "EPOCH_MISMATCH"
	ReasonRevision   = "REVISION"
	ReasonTooLarge   = "TOO_LARGE"
	ReasonMalformed  = "MALFORMED_FRAME"
)

func (a *Assembler) fault(reason, format string, args ...any) error {
	return a.producerFault(reason, "", format, args...)
}

func (a *Assembler) producerFault(reason string, id assignment.ProducerID, format string, args ...any) error {
	f := &Fault{assignment.Refusal{Reason: reason, Message: fmt.Sprintf(format, args...), ProducerID: id}}
	if id != "" {
		f.Message = fmt.Sprintf("producer %q ", id) + f.Message
	}
	if a.open != nil {
		f.Revision = a.open.Revision
	}
	a.open, a.frames, a.upserts, a.removals, a.replaced = nil, nil, nil, nil, nil
	return f
}
