package wire

import (
	"fmt"
	"math"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// DecodeFrame takes a frame as the registry sent it. A frame of an unknown kind
// is an *assignment.Unknown.
func DecodeFrame(m *registryv1.SubscribeResponse) (assignment.Frame, error) {
	switch f := m.GetFrame().(type) {
	case *registryv1.SubscribeResponse_SnapshotBegin:
		return decodeBegin(f.SnapshotBegin)
	case *registryv1.SubscribeResponse_SnapshotChunk:
		return decodeChunk(f.SnapshotChunk)
	case *registryv1.SubscribeResponse_SnapshotEnd:
		e := f.SnapshotEnd
		if err := checkTexts(e.GetEpoch()); err != nil {
			return nil, err
		}
		return &assignment.End{
			SnapshotID: e.GetSnapshotId(),
			Epoch:      assignment.Epoch(e.GetEpoch()),
			Revision:   assignment.Revision(e.GetRevision()),
			Chunks:     e.GetChunkCount(),
			Upserts:    e.GetUpsertCount(),
			Removals:   e.GetRemovalCount(),
			SetCount:   e.GetSetCount(),
			SetDigest:  assignment.Digest(e.GetSetDigest()),
		}, nil
	case *registryv1.SubscribeResponse_Heartbeat:
		return decodeHeartbeat(f.Heartbeat), checkTexts(f.Heartbeat.GetEpoch())
	case *registryv1.SubscribeResponse_GoAway:
		g := f.GoAway
		return &assignment.GoAway{
			Reason:        int32(g.GetReason()),
			Message:       clip(g.GetMessage()),
			RetryAfterMin: g.GetRetryAfterMin().AsDuration(),
			RetryAfterMax: g.GetRetryAfterMax().AsDuration(),
		}, nil
	default:
		return &assignment.Unknown{}, nil
	}
}

// checkTexts bounds what a collector keeps of a frame, and tells a registry
// later: an epoch that no registry takes back would shut it out for good.
func checkTexts(texts ...string) error {
	for _, s := range texts {
		if len(s) > maxTextBytes {
			return fmt.Errorf("%w: a name of %d bytes, at most %d are allowed", ErrMalformed, len(s), maxTextBytes)
		}
	}
	return nil
}

func decodeHeartbeat(m *registryv1.Heartbeat) *assignment.Heartbeat {
	h := &assignment.Heartbeat{
		Epoch:                assignment.Epoch(m.GetEpoch()),
		Revision:             assignment.Revision(m.GetRevision()),
		SetCount:             m.GetSetCount(),
		SetDigest:            assignment.Digest(m.GetSetDigest()),
		AcknowledgedRevision: assignment.Revision(m.GetAcknowledgedRevision()),
	}
	if m.GetServerTime() != nil {
		h.ServerTime = m.GetServerTime().AsTime()
	}
	return h
}

func decodeBegin(m *registryv1.SnapshotBegin) (assignment.Frame, error) {
	if m.GetBucketBits() > assignment.MaxBucketBits {
		return nil, fmt.Errorf("%w: bucket_bits %d", ErrMalformed, m.GetBucketBits())
	}
	if err := checkTexts(m.GetEpoch(), m.GetSubscriptionId(), m.GetRegistryInstanceId()); err != nil {
		return nil, err
	}
	return &assignment.Begin{
		SnapshotID:         m.GetSnapshotId(),
		SubscriptionID:     m.GetSubscriptionId(),
		Epoch:              assignment.Epoch(m.GetEpoch()),
		Revision:           assignment.Revision(m.GetRevision()),
		BaseRevision:       assignment.Revision(m.GetBaseRevision()),
		Scope:              assignment.Scope(m.GetScope()),
		BucketBits:         uint8(m.GetBucketBits()),
		ReplacedBuckets:    m.GetReplacedBuckets(),
		Reason:             int32(m.GetReason()),
		ExpectedUpserts:    m.GetExpectedUpsertCount(),
		HeartbeatInterval:  m.GetHeartbeatInterval().AsDuration(),
		AssignmentFormat:   m.GetAssignmentFormat(),
		RegistryInstanceID: assignment.InstanceID(m.GetRegistryInstanceId()),
	}, nil
}

func decodeChunk(m *registryv1.SnapshotChunk) (assignment.Frame, error) {
	c := &assignment.Chunk{SnapshotID: m.GetSnapshotId(), Sequence: m.GetSequence()}
	if n := len(m.GetAssignments()); n > 0 {
		c.Assignments = make([]*assignment.Assignment, n)
	}
	for i, am := range m.GetAssignments() {
		a, err := decodeAssignment(am)
		if err != nil {
			return nil, fmt.Errorf("assignments[%d]: %w", i, err)
		}
		c.Assignments[i] = a
	}
	for i, rm := range m.GetRemovals() {
		r, err := decodeRemoval(rm)
		if err != nil {
			return nil, fmt.Errorf("removals[%d]: %w", i, err)
		}
		c.Removals = append(c.Removals, r)
	}
	return c, nil
}

func decodeRemoval(m *registryv1.Removal) (assignment.Removal, error) {
	id, err := assignment.ParseProducerID(m.GetProducerId())
	if err != nil {
		return assignment.Removal{}, fmt.Errorf("%w: producer_id: %w", ErrMalformed, err)
	}
	return assignment.Removal{
		ProducerID: id,
		Cause:      assignment.Cause(m.GetCause()),
		Revision:   assignment.Revision(m.GetRevision()),
	}, nil
}

// EncodeFrame makes the message of a frame.
func EncodeFrame(frame assignment.Frame) *registryv1.SubscribeResponse {
	m := &registryv1.SubscribeResponse{}
	switch f := frame.(type) {
	case *assignment.Begin:
		m.Frame = &registryv1.SubscribeResponse_SnapshotBegin{SnapshotBegin: encodeBegin(f)}
	case *assignment.Chunk:
		m.Frame = &registryv1.SubscribeResponse_SnapshotChunk{SnapshotChunk: encodeChunk(f)}
	case *assignment.End:
		m.Frame = &registryv1.SubscribeResponse_SnapshotEnd{SnapshotEnd: &registryv1.SnapshotEnd{
			SnapshotId:   f.SnapshotID,
			Epoch:        string(f.Epoch),
			Revision:     int64(f.Revision),
			ChunkCount:   f.Chunks,
			UpsertCount:  f.Upserts,
			RemovalCount: f.Removals,
			SetCount:     f.SetCount,
			SetDigest:    uint64(f.SetDigest),
		}}
	case *assignment.Heartbeat:
		m.Frame = &registryv1.SubscribeResponse_Heartbeat{Heartbeat: encodeHeartbeat(f)}
	case *assignment.GoAway:
		m.Frame = &registryv1.SubscribeResponse_GoAway{GoAway: &registryv1.GoAway{
			Reason:        registryv1.GoAwayReason(f.Reason),
			Message:       f.Message,
			RetryAfterMin: durationpb.New(f.RetryAfterMin),
			RetryAfterMax: durationpb.New(f.RetryAfterMax),
		}}
	}
	return m
}

func encodeHeartbeat(f *assignment.Heartbeat) *registryv1.Heartbeat {
	m := &registryv1.Heartbeat{
		Epoch:                string(f.Epoch),
		Revision:             int64(f.Revision),
		SetCount:             f.SetCount,
		SetDigest:            uint64(f.SetDigest),
		AcknowledgedRevision: int64(f.AcknowledgedRevision),
	}
	if !f.ServerTime.IsZero() {
		m.ServerTime = timestamppb.New(f.ServerTime)
	}
	return m
}

func encodeBegin(f *assignment.Begin) *registryv1.SnapshotBegin {
	return &registryv1.SnapshotBegin{
		SnapshotId:          f.SnapshotID,
		SubscriptionId:      f.SubscriptionID,
		Epoch:               string(f.Epoch),
		Revision:            int64(f.Revision),
		BaseRevision:        int64(f.BaseRevision),
		Scope:               registryv1.SnapshotScope(f.Scope),
		BucketBits:          uint32(f.BucketBits),
		ReplacedBuckets:     f.ReplacedBuckets,
		Reason:              registryv1.SnapshotReason(f.Reason),
		ExpectedUpsertCount: f.ExpectedUpserts,
		HeartbeatInterval:   durationpb.New(f.HeartbeatInterval),
		AssignmentFormat:    f.AssignmentFormat,
		RegistryInstanceId:  string(f.RegistryInstanceID),
	}
}

func encodeChunk(f *assignment.Chunk) *registryv1.SnapshotChunk {
	m := &registryv1.SnapshotChunk{
		SnapshotId: f.SnapshotID,
		Sequence:   f.Sequence,
		Removals:   EncodeRemovals(f.Removals),
	}
	for _, a := range f.Assignments {
		m.Assignments = append(m.Assignments, assignmentMessage(a))
	}
	return m
}

// EncodeRemovals makes the messages of removals.
func EncodeRemovals(removals []assignment.Removal) []*registryv1.Removal {
	var ms []*registryv1.Removal
	for _, r := range removals {
		ms = append(ms, &registryv1.Removal{
			ProducerId: string(r.ProducerID),
			Cause:      EncodeCause(r.Cause),
			Revision:   int64(r.Revision),
		})
	}
	return ms
}

// MarshalFrame encodes a frame to bytes, for a record of the stream.
func MarshalFrame(frame assignment.Frame) ([]byte, error) {
	b, err := proto.Marshal(EncodeFrame(frame))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return b, nil
}

// UnmarshalFrame is the reverse of MarshalFrame.
func UnmarshalFrame(b []byte) (assignment.Frame, error) {
	var m registryv1.SubscribeResponse
	if err := proto.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return DecodeFrame(&m)
}

// EncodeAccepted makes the message of what a collector holds; nil for nothing.
func EncodeAccepted(a *assignment.Accepted) *registryv1.AcceptedSet {
	if a == nil {
		return nil
	}
	m := &registryv1.AcceptedSet{
		Epoch:            string(a.Epoch),
		Revision:         int64(a.Revision),
		SetCount:         a.SetCount,
		SetDigest:        uint64(a.SetDigest),
		BucketBits:       uint32(a.BucketBits),
		BucketDigests:    make([]uint64, len(a.BucketDigests)),
		AssignmentFormat: a.AssignmentFormat,
	}
	for i, d := range a.BucketDigests {
		m.BucketDigests[i] = uint64(d)
	}
	return m
}

func decodeAccepted(m *registryv1.AcceptedSet, v *Violations) *assignment.Accepted {
	if m == nil {
		return nil
	}
	if n := len(m.GetEpoch()); n == 0 || n > maxTextBytes {
		v.add("accepted.epoch", "%d bytes, want 1 to %d", n, maxTextBytes)
	}
	v.checkNotNegative("accepted.revision", m.GetRevision())
	if m.GetSetCount() < 0 || m.GetSetCount() > math.MaxInt32 {
		v.add("accepted.set_count", "%d is out of range", m.GetSetCount())
	}
	if m.GetBucketBits() > assignment.MaxBucketBits {
		v.add("accepted.bucket_bits", "%d, at most %d are allowed", m.GetBucketBits(), assignment.MaxBucketBits)
		return nil
	}
	if want := 1 << m.GetBucketBits(); len(m.GetBucketDigests()) != want {
		v.add("accepted.bucket_digests", "%d digests for %d bucket_bits, want %d", len(m.GetBucketDigests()), m.GetBucketBits(), want)
		return nil
	}
	a := &assignment.Accepted{
		Epoch:            assignment.Epoch(m.GetEpoch()),
		Revision:         assignment.Revision(m.GetRevision()),
		SetCount:         m.GetSetCount(),
		SetDigest:        assignment.Digest(m.GetSetDigest()),
		BucketBits:       uint8(m.GetBucketBits()),
		BucketDigests:    make([]assignment.Digest, len(m.GetBucketDigests())),
		AssignmentFormat: m.GetAssignmentFormat(),
	}
	var sum assignment.Digest
	for i, d := range m.GetBucketDigests() {
		a.BucketDigests[i] = assignment.Digest(d)
		sum += a.BucketDigests[i]
	}
	if sum != a.SetDigest {
		v.add("accepted.set_digest", "is not the sum of bucket_digests")
	}
	return a
}

// EncodeCause makes the message's cause.
func EncodeCause(c assignment.Cause) registryv1.RemovalCause { return registryv1.RemovalCause(c) }
