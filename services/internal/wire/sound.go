package wire

import (
	"unicode/utf8"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// SoundStored tells whether DecodeStored would read the assignment of a producer,
// without making it: a replica that starts asks this of the whole roll. Of what is
// unusual it says no; DecodeStored has the last word, and the reason.
func SoundStored(id assignment.ProducerID, stored []byte) bool {
	fields := (*registryv1.Assignment)(nil).ProtoReflect().Descriptor().Fields()
	return soundFields(stored, fields) && ofProducer(id, stored)
}

// ofProducer tells whether sound fields name a producer, and no role.
func ofProducer(id assignment.ProducerID, fields []byte) (same bool) {
	for len(fields) > 0 {
		number, kind, n := protowire.ConsumeTag(fields)
		size := protowire.ConsumeFieldValue(number, kind, fields[n:])
		if number == roleField {
			return false
		}
		if number == idField && kind == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(fields[n:])
			same = string(value) == string(id)
		}
		fields = fields[n+size:]
	}
	return same
}

// soundFields tells whether the fields of a message can be read.
func soundFields(b []byte, fields protoreflect.FieldDescriptors) bool {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return false
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return false
		}
		if kind == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(b)
			if !soundValue(value, fields.ByNumber(number)) {
				return false
			}
		}
		b = b[n:]
	}
	return true
}

// soundValue tells whether bytes can be the value of a field, which may be nil for
// one that is not known.
func soundValue(value []byte, field protoreflect.FieldDescriptor) bool {
	switch {
	case field == nil, field.Kind() == protoreflect.BytesKind:
		return true
	case field.Kind() == protoreflect.StringKind:
		return utf8.Valid(value)
	case field.Kind() == protoreflect.MessageKind && !field.IsMap():
		return soundFields(value, field.Message().Fields())
	default:
		return false // packed numbers, or another type than it should have
	}
}
