// Package wire turns the messages of the protocol into the plain types of
// package assignment, and back.
//
// Its invariant: what comes out of a Decode function is well formed; a message
// that is not is refused whole, with the reason.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// ErrMalformed is wrapped by every error about a frame that no correct peer
// sends.
var ErrMalformed = errors.New("malformed frame")

// EncodeStored encodes what a producer's record keeps of its assignment: all
// but version and role. Equal assignments give equal bytes within one build.
func EncodeStored(a *assignment.Assignment) []byte {
	m := assignmentMessage(a)
	m.Version, m.Role = 0, 0
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		// Only invalid UTF-8 can fail, and no decoded assignment holds any.
		panic("wire: " + err.Error())
	}
	return b
}

// DecodeStored is the reverse of EncodeStored; the version is that of the
// bytes.
func DecodeStored(stored []byte) (*assignment.Assignment, error) {
	var m registryv1.Assignment
	if err := proto.Unmarshal(stored, &m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	a, err := decodeAssignment(&m)
	if err != nil {
		return nil, err
	}
	a.Version = assignment.VersionOf(stored)
	return a, nil
}

const (
	chunkSnapshotIDField = 1
	chunkSequenceField   = 2
	chunkItemField       = 3
	idField              = 1
	versionField         = 2
	roleField            = 7
)

// ItemSize is the number of bytes that AppendItem appends for an assignment
// with that many stored bytes.
func ItemSize(stored int) int {
	n := stored + itemTrailer
	return protowire.SizeTag(chunkItemField) + protowire.SizeBytes(n)
}

// itemTrailer is the size of the version and role fields.
const itemTrailer = 1 + 8 + 1 + 1

// AppendItem appends one assignment to the encoding of a SnapshotChunk.
func AppendItem(dst, stored []byte, version assignment.Version, role assignment.Role) []byte {
	dst = protowire.AppendTag(dst, chunkItemField, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(len(stored)+itemTrailer))
	dst = append(dst, stored...)
	dst = protowire.AppendTag(dst, versionField, protowire.Fixed64Type)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(version))
	dst = protowire.AppendTag(dst, roleField, protowire.VarintType)
	return append(dst, byte(role)&0x7f)
}

// EncodeAssignment makes the message of an assignment.
func EncodeAssignment(a *assignment.Assignment) *registryv1.Assignment { return assignmentMessage(a) }

func assignmentMessage(a *assignment.Assignment) *registryv1.Assignment {
	m := &registryv1.Assignment{
		ProducerId:       string(a.ProducerID),
		Version:          uint64(a.Version),
		Endpoint:         a.Endpoint,
		Interval:         durationpb.New(a.Interval),
		Timeout:          durationpb.New(a.Timeout),
		Labels:           EncodeLabels(a.Labels),
		Role:             registryv1.Role(a.Role),
		HonorLabels:      a.HonorLabels,
		IgnoreTimestamps: a.IgnoreTimestamps,
		FallbackFormat:   registryv1.ExpositionFormat(a.FallbackFormat),
		Credential:       a.Credential,
		TlsServerName:    a.TLSServerName,
		Permanent:        a.Permanent,
	}
	if a.Limits != (assignment.Limits{}) {
		m.Limits = &registryv1.CollectionLimits{
			MaxBodyBytes:       a.Limits.MaxBodyBytes,
			MaxSampleCount:     a.Limits.MaxSamples,
			MaxLabelCount:      a.Limits.MaxLabels,
			MaxLabelValueBytes: a.Limits.MaxLabelValueBytes,
		}
	}
	return m
}

// EncodeLabels makes the messages of labels.
func EncodeLabels(labels []assignment.Label) []*registryv1.Label {
	ms := make([]*registryv1.Label, len(labels))
	for i, l := range labels {
		ms[i] = &registryv1.Label{Name: l.Name, Value: l.Value}
	}
	return ms
}

// decodeAssignment takes whatever a newer registry may send: only the id must
// be right, for everything else is a question of whether it can be run.
func decodeAssignment(m *registryv1.Assignment) (*assignment.Assignment, error) {
	id, err := assignment.ParseProducerID(m.GetProducerId())
	if err != nil {
		return nil, fmt.Errorf("%w: producer_id: %w", ErrMalformed, err)
	}
	role := m.GetRole()
	if role < 0 || role > 0x7f {
		return nil, fmt.Errorf("%w: role %d of %q", ErrMalformed, role, id)
	}
	limits := m.GetLimits()
	return &assignment.Assignment{
		ProducerID:       id,
		Version:          assignment.Version(m.GetVersion()),
		Role:             assignment.Role(role),
		Endpoint:         m.GetEndpoint(),
		Interval:         m.GetInterval().AsDuration(),
		Timeout:          m.GetTimeout().AsDuration(),
		Labels:           decodeLabels(m.GetLabels()),
		HonorLabels:      m.GetHonorLabels(),
		IgnoreTimestamps: m.GetIgnoreTimestamps(),
		FallbackFormat:   assignment.Format(m.GetFallbackFormat()),
		Credential:       m.GetCredential(),
		TLSServerName:    m.GetTlsServerName(),
		Permanent:        m.GetPermanent(),
		Limits: assignment.Limits{
			MaxBodyBytes:       limits.GetMaxBodyBytes(),
			MaxSamples:         limits.GetMaxSampleCount(),
			MaxLabels:          limits.GetMaxLabelCount(),
			MaxLabelValueBytes: limits.GetMaxLabelValueBytes(),
		},
	}, nil
}

func decodeLabels(ms []*registryv1.Label) []assignment.Label {
	if len(ms) == 0 {
		return nil
	}
	labels := make([]assignment.Label, len(ms))
	for i, m := range ms {
		labels[i] = assignment.Label{Name: m.GetName(), Value: m.GetValue()}
	}
	return labels
}

// sortLabels orders labels by name.
func sortLabels(labels []assignment.Label) {
	slices.SortFunc(labels, func(a, b assignment.Label) int {
		switch {
		case a.Name < b.Name:
			return -1
		case a.Name > b.Name:
			return 1
		default:
			return 0
		}
	})
}

// millis reports whether d is a whole number of milliseconds.
func millis(d time.Duration) bool { return d%time.Millisecond == 0 }
