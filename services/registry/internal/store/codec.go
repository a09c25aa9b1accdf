package store

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	storev1 "github.com/rollcall-metrics/rollcall/gen/rollcall/store/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// encode gives a record's value in the store. What it encodes, decode reads.
// Only fields of the record itself survive a version that does not know them:
// Extra has no place for those of a collector's instances and labels.
func encode(record roster.Record) ([]byte, error) {
	message, extra, err := pack(record)
	if err != nil {
		return nil, fmt.Errorf("%w: record %q: %w", ErrInvalid, record.Key().ID, err)
	}
	if err := checkExtra(message.ProtoReflect().Descriptor(), extra); err != nil {
		return nil, fmt.Errorf("%w: record %q: %w", ErrInvalid, record.Key().ID, err)
	}
	message.ProtoReflect().SetUnknown(protoreflect.RawFields(extra))
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err != nil {
		return nil, fmt.Errorf("%w: record %q: %w", ErrInvalid, record.Key().ID, err)
	}
	return value, nil
}

// decode gives the record under a key.
func decode(key roster.Key, value []byte) (roster.Record, error) {
	record, err := unpack(key, value)
	if err != nil {
		name, _ := formatKey(key)
		return nil, fmt.Errorf("%w: key %q: %w", ErrUndecodable, name, err)
	}
	return record, nil
}

func pack(record roster.Record) (proto.Message, roster.Extra, error) {
	switch r := record.(type) {
	case *roster.Epoch:
		m, err := packEpoch(r)
		return m, r.Extra, err
	case *roster.Producer:
		m, err := packProducer(r)
		return m, r.Extra, err
	case *roster.Collector:
		m, err := packCollector(r)
		return m, r.Extra, err
	case *roster.Session:
		m, err := packSession(r)
		return m, r.Extra, err
	case *roster.Ack:
		m, err := packAck(r)
		return m, r.Extra, err
	case *roster.Removed:
		m, err := packRemoved(r)
		return m, r.Extra, err
	case *roster.Suspect:
		m, err := packSuspect(r)
		return m, r.Extra, err
	case *roster.Leader:
		m, err := packLeader(r)
		return m, r.Extra, err
	case *roster.Expiry:
		m, err := packExpiry(r)
		return m, r.Extra, err
	default:
		return nil, nil, fmt.Errorf("no encoding for %T", record)
	}
}

func unpack(key roster.Key, value []byte) (roster.Record, error) {
	switch key.Kind {
	case roster.KindEpoch:
		return unpackAs(value, &storev1.EpochRecord{}, unpackEpoch)
	case roster.KindProducer:
		return unpackAs(value, &storev1.ProducerRecord{}, func(m *storev1.ProducerRecord) (*roster.Producer, error) {
			return unpackProducer(assignment.ProducerID(key.ID), m)
		})
	case roster.KindCollector:
		return unpackAs(value, &storev1.CollectorRecord{}, func(m *storev1.CollectorRecord) (*roster.Collector, error) {
			return unpackCollector(assignment.CollectorID(key.ID), m)
		})
	case roster.KindSession:
		return unpackAs(value, &storev1.SessionRecord{}, func(m *storev1.SessionRecord) (*roster.Session, error) {
			return unpackSession(assignment.CollectorID(key.ID), m)
		})
	case roster.KindAck:
		return unpackAs(value, &storev1.AckRecord{}, func(m *storev1.AckRecord) (*roster.Ack, error) {
			return unpackAck(assignment.CollectorID(key.ID), m)
		})
	case roster.KindRemoved:
		return unpackAs(value, &storev1.RemovedRecord{}, func(m *storev1.RemovedRecord) (*roster.Removed, error) {
			return unpackRemoved(assignment.ProducerID(key.ID), m)
		})
	case roster.KindSuspect:
		return unpackAs(value, &storev1.SuspectRecord{}, func(m *storev1.SuspectRecord) (*roster.Suspect, error) {
			return unpackSuspect(assignment.ProducerID(key.ID), m)
		})
	case roster.KindLeader:
		return unpackAs(value, &storev1.LeaderRecord{}, unpackLeader)
	case roster.KindExpiry:
		return unpackAs(value, &storev1.ExpiryRecord{}, unpackExpiry)
	default:
		return nil, fmt.Errorf("no record has kind %d", key.Kind)
	}
}

func unpackAs[M proto.Message, R roster.Record](value []byte, message M, unpack func(M) (R, error)) (roster.Record, error) {
	if err := proto.Unmarshal(value, message); err != nil {
		return nil, err
	}
	// A field of another type than it should have counts as unknown to
	// protobuf. It would look like one that is not set.
	if err := checkExtra(message.ProtoReflect().Descriptor(), extraOf(message)); err != nil {
		return nil, err
	}
	record, err := unpack(message)
	if err != nil {
		return nil, err // not record: a nil pointer is a record
	}
	return record, nil
}

// extraOf keeps the fields that only a newer version knows.
func extraOf(message proto.Message) roster.Extra {
	return roster.Extra(message.ProtoReflect().GetUnknown())
}

// checkExtra makes sure that extra cannot spoil the record it is appended to.
func checkExtra(of protoreflect.MessageDescriptor, extra roster.Extra) error {
	for rest := []byte(extra); len(rest) > 0; {
		number, _, n := protowire.ConsumeField(rest)
		if n < 0 {
			return fmt.Errorf("extra fields: %w", protowire.ParseError(n))
		}
		if of.Fields().ByNumber(number) != nil {
			return fmt.Errorf("field %d is of another type", number)
		}
		rest = rest[n:]
	}
	return nil
}

// A fault notes the first error of several steps.
type fault struct{ err error }

// first is a method because the order in which Go reads a variable and calls
// functions in one return statement is not given; that of two calls is.
func (f *fault) first() error { return f.err }

func (f *fault) note(field string, err error) {
	if err != nil && f.err == nil {
		f.err = fmt.Errorf("%s: %w", field, err)
	}
}

var (
	errEmpty = errors.New("empty")
	errSign  = errors.New("negative")
)

func (f *fault) filled(field string, length int) {
	if length == 0 {
		f.note(field, errEmpty)
	}
}

func (f *fault) natural(field string, number int64) {
	if number < 0 {
		f.note(field, errSign)
	}
}

// stamp leaves the zero time out.
func (f *fault) stamp(field string, t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	ts := timestamppb.New(t)
	f.note(field, ts.CheckValid())
	return ts
}

func (f *fault) time(field string, ts *timestamppb.Timestamp) time.Time {
	if ts == nil {
		return time.Time{}
	}
	f.note(field, ts.CheckValid())
	return ts.AsTime()
}

// span leaves the zero duration out.
func (f *fault) span(field string, d time.Duration) *durationpb.Duration {
	if d < 0 {
		f.note(field, errSign)
	}
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

func (f *fault) duration(field string, d *durationpb.Duration) time.Duration {
	if d == nil {
		return 0
	}
	f.note(field, d.CheckValid())
	if d.AsDuration() < 0 {
		f.note(field, errSign)
	}
	return d.AsDuration()
}

var errNumber = errors.New("not a number from 0 on")

func (f *fault) rate(field string, rate float64) float64 {
	if !(rate >= 0) || math.IsInf(rate, 1) { // NaN is not at least 0
		f.note(field, errNumber)
	}
	return rate
}

// optional checks an id that may be empty.
func optional[T ~string](f *fault, field string, s string, parse func(string) (T, error)) T {
	if s == "" {
		return ""
	}
	id, err := parse(s)
	f.note(field, err)
	return id
}

func (f *fault) producer(field, s string) assignment.ProducerID {
	return optional(f, field, s, assignment.ParseProducerID)
}

func (f *fault) collector(s string) assignment.CollectorID {
	return optional(f, "collector_id", s, assignment.ParseCollectorID)
}

func (f *fault) instance(field, s string) assignment.InstanceID {
	return optional(f, field, s, assignment.ParseInstanceID)
}

func (f *fault) instances(ids []string) roster.Instances {
	for _, s := range ids {
		_, err := assignment.ParseInstanceID(s)
		f.note("instance_ids", err)
	}
	return roster.Instances(strings.Join(ids, " "))
}
