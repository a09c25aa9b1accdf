package wire

import (
	"strconv"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// MaxListed is how many held, collected or unrunnable producers one
// acknowledgement lists.
const MaxListed = 1000

// An Unrunnable assignment is accepted and not run.
type Unrunnable struct {
	ProducerID assignment.ProducerID
	Reason     string
}

// An Acknowledgement is what a collector did with a snapshot. Epoch, Revision,
// Count and Digest are those of its accepted set.
type Acknowledgement struct {
	Collector      assignment.CollectorID
	Instance       assignment.InstanceID
	Generation     assignment.Generation
	SubscriptionID string
	SnapshotID     uint64
	Epoch          assignment.Epoch
	Revision       assignment.Revision
	Count          int64
	Digest         assignment.Digest

	// Refusal is nil when the snapshot was applied.
	Refusal         *assignment.Refusal
	Persisted       bool
	HeldCount       int64
	Held            []assignment.ProducerID
	Collected       []assignment.ProducerID
	UnrunnableCount int64
	Unrunnable      []Unrunnable
}

// EncodeAcknowledge makes the message.
func EncodeAcknowledge(a *Acknowledgement) *registryv1.AcknowledgeRequest {
	m := &registryv1.AcknowledgeRequest{
		CollectorId:     string(a.Collector),
		InstanceId:      string(a.Instance),
		Generation:      int64(a.Generation),
		SubscriptionId:  a.SubscriptionID,
		SnapshotId:      a.SnapshotID,
		Epoch:           string(a.Epoch),
		Revision:        int64(a.Revision),
		AcceptedCount:   a.Count,
		AcceptedDigest:  uint64(a.Digest),
		Outcome:         registryv1.AcknowledgeOutcome_ACKNOWLEDGE_OUTCOME_APPLIED,
		Persisted:       a.Persisted,
		HeldCount:       a.HeldCount,
		UnrunnableCount: a.UnrunnableCount,
		HeldProducerIds: make([]string, len(a.Held)),
		Unrunnable:      make([]*registryv1.UnrunnableAssignment, len(a.Unrunnable)),
		Refusal:         EncodeRefusal(a.Refusal),
	}
	if a.Refusal != nil {
		m.Outcome = registryv1.AcknowledgeOutcome_ACKNOWLEDGE_OUTCOME_REFUSED
	}
	for i, id := range a.Held {
		m.HeldProducerIds[i] = string(id)
	}
	for _, id := range a.Collected {
		m.CollectedProducerIds = append(m.CollectedProducerIds, string(id))
	}
	for i, u := range a.Unrunnable {
		m.Unrunnable[i] = &registryv1.UnrunnableAssignment{ProducerId: string(u.ProducerID), Reason: u.Reason}
	}
	return m
}

// EncodeRefusal makes the message of a refusal; nil for none.
func EncodeRefusal(r *assignment.Refusal) *registryv1.Refusal {
	if r == nil {
		return nil
	}
	return &registryv1.Refusal{
		Reason:     r.Reason,
		Message:    r.Message,
		ProducerId: string(r.ProducerID),
		Revision:   int64(r.Revision),
	}
}

// DecodeAcknowledge checks an acknowledgement; the error is Violations.
func DecodeAcknowledge(m *registryv1.AcknowledgeRequest) (*Acknowledgement, error) {
	var v Violations
	a := &Acknowledgement{
		Generation:      assignment.Generation(m.GetGeneration()),
		SubscriptionID:  clip(m.GetSubscriptionId()),
		SnapshotID:      m.GetSnapshotId(),
		Epoch:           assignment.Epoch(clip(m.GetEpoch())),
		Revision:        assignment.Revision(m.GetRevision()),
		Count:           m.GetAcceptedCount(),
		Digest:          assignment.Digest(m.GetAcceptedDigest()),
		Persisted:       m.GetPersisted(),
		HeldCount:       m.GetHeldCount(),
		UnrunnableCount: m.GetUnrunnableCount(),
	}
	var err error
	a.Collector, err = assignment.ParseCollectorID(m.GetCollectorId())
	v.check("collector_id", err)
	a.Instance, err = assignment.ParseInstanceID(m.GetInstanceId())
	v.check("instance_id", err)
	v.checkNotNegative("revision", m.GetRevision())
	v.checkNotNegative("accepted_count", m.GetAcceptedCount())
	v.checkNotNegative("held_count", m.GetHeldCount())
	v.checkNotNegative("unrunnable_count", m.GetUnrunnableCount())
	switch m.GetOutcome() {
	case registryv1.AcknowledgeOutcome_ACKNOWLEDGE_OUTCOME_APPLIED:
	case registryv1.AcknowledgeOutcome_ACKNOWLEDGE_OUTCOME_REFUSED:
		a.Refusal = decodeRefusal(m.GetRefusal(), &v)
	default:
		v.add("outcome", "%d is not known", m.GetOutcome())
	}
	a.Held = decodeListed(m.GetHeldProducerIds(), "held_producer_ids", &v)
	a.Collected = decodeListed(m.GetCollectedProducerIds(), "collected_producer_ids", &v)
	a.Unrunnable = decodeUnrunnable(m.GetUnrunnable(), &v)
	return a, v.err()
}

func decodeRefusal(m *registryv1.Refusal, v *Violations) *assignment.Refusal {
	r := &assignment.Refusal{
		Reason:   clip(m.GetReason()),
		Message:  clip(m.GetMessage()),
		Revision: assignment.Revision(m.GetRevision()),
	}
	if s := m.GetProducerId(); s != "" {
		id, err := assignment.ParseProducerID(s)
		v.check("refusal.producer_id", err)
		r.ProducerID = id
	}
	return r
}

func decodeListed(ids []string, field string, v *Violations) []assignment.ProducerID {
	if len(ids) > MaxListed {
		v.add(field, "%d producers, at most %d are allowed", len(ids), MaxListed)
		return nil
	}
	listed := make([]assignment.ProducerID, 0, len(ids))
	for i, s := range ids {
		id, err := assignment.ParseProducerID(s)
		if err != nil {
			v.add(field+"["+strconv.Itoa(i)+"]", "%v", err)
			return nil
		}
		listed = append(listed, id)
	}
	return listed
}

func decodeUnrunnable(ms []*registryv1.UnrunnableAssignment, v *Violations) []Unrunnable {
	if len(ms) > MaxListed {
		v.add("unrunnable", "%d producers, at most %d are allowed", len(ms), MaxListed)
		return nil
	}
	unrunnable := make([]Unrunnable, 0, len(ms))
	for i, m := range ms {
		id, err := assignment.ParseProducerID(m.GetProducerId())
		if err != nil {
			v.add("unrunnable["+strconv.Itoa(i)+"].producer_id", "%v", err)
			return nil
		}
		unrunnable = append(unrunnable, Unrunnable{id, clip(m.GetReason())})
	}
	return unrunnable
}

// DecodeExplained takes what the registry explains. A malformed entry is left
// out: it explains nothing.
func DecodeExplained(m *registryv1.AcknowledgeResponse) []assignment.Removal {
	var explained []assignment.Removal
	for _, rm := range m.GetExplained() {
		if r, err := decodeRemoval(rm); err == nil {
			explained = append(explained, r)
		}
	}
	return explained
}
