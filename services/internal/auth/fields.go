package auth

import (
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// visit sees the values at a path of a message, all elements of repeated fields.
// A message that is not set has the fields of an empty one, so that what is
// repeated has one value for each element.
func visit(m protoreflect.Message, path string, see func(protoreflect.FieldDescriptor, protoreflect.Value)) {
	name, rest, deeper := strings.Cut(path, ".")
	field := m.Descriptor().Fields().ByName(protoreflect.Name(name))
	if field == nil {
		return
	}
	step := func(v protoreflect.Value) {
		switch {
		case !deeper:
			see(field, v)
		case field.Message() != nil:
			visit(v.Message(), rest, see)
		}
	}
	if !field.IsList() {
		step(m.Get(field))
		return
	}
	for list, i := m.Get(field).List(), 0; i < list.Len(); i++ {
		step(list.Get(i))
	}
}

// textsAt are the strings at a path.
func textsAt(m proto.Message, path string) []string {
	var all []string
	if path != "" {
		visit(m.ProtoReflect(), path, func(_ protoreflect.FieldDescriptor, v protoreflect.Value) { all = append(all, v.String()) })
	}
	return all
}

// codesAt are the status codes at a path.
func codesAt(m proto.Message, path string) []codes.Code {
	var all []codes.Code
	if path != "" {
		visit(m.ProtoReflect(), path, func(f protoreflect.FieldDescriptor, v protoreflect.Value) {
			code := codes.OK
			if f.Kind() == protoreflect.Int32Kind && v.Int() > 0 {
				code = codes.Code(v.Int())
			}
			all = append(all, code)
		})
	}
	return all
}

// flagsAt are the booleans at a path.
func flagsAt(m proto.Message, path string) []bool {
	var all []bool
	if path != "" {
		visit(m.ProtoReflect(), path, func(f protoreflect.FieldDescriptor, v protoreflect.Value) {
			all = append(all, f.Kind() == protoreflect.BoolKind && v.Bool())
		})
	}
	return all
}

// set tells whether the boolean at a path is set, of several whether all are.
func set(m proto.Message, path string) bool {
	flags := flagsAt(m, path)
	for _, flag := range flags {
		if !flag {
			return false
		}
	}
	return len(flags) > 0
}
