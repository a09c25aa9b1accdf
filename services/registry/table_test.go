package registry_test

import (
	"strings"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/internal/access"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// fieldAt is the field at a path of a message, and whether it is repeated on the
// way.
func fieldAt(m protoreflect.MessageDescriptor, path string) (field protoreflect.FieldDescriptor, repeated bool) {
	for name := range strings.SplitSeq(path, ".") {
		if m == nil {
			return nil, false
		}
		if field = m.Fields().ByName(protoreflect.Name(name)); field == nil {
			return nil, false
		}
		repeated = repeated || field.IsList()
		m = field.Message()
	}
	return field, repeated
}

// TestTheTableFitsTheProtos: each row is for a method that there is, and each of
// its paths for a field of the kind that is meant. A wrong one would let in, or
// keep out, whoever calls.
func TestTheTableFitsTheProtos(t *testing.T) {
	seen := map[string]bool{}
	for _, row := range access.Methods() {
		name := protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(row.Name, "/"), "/", "."))
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
		m, ok := d.(protoreflect.MethodDescriptor)
		if err != nil || !ok || seen[row.Name] {
			t.Errorf("%s: %v, twice: %v", row.Name, err, seen[row.Name])
			continue
		}
		seen[row.Name] = true
		check := func(what, path string, of protoreflect.MessageDescriptor, fits func(f protoreflect.FieldDescriptor, repeated bool) bool) {
			if path == "" {
				return
			}
			if f, repeated := fieldAt(of, path); f == nil || !fits(f, repeated) {
				t.Errorf("%s: %s %s: there is no such field", row.Name, what, path)
			}
		}
		if row.Subject.Kind != 0 {
			suffix := map[access.Kind]string{access.ProducerID: "producer_id", access.CollectorID: "collector_id"}[row.Subject.Kind]
			check("subject", row.Subject.Path, m.Input(), func(f protoreflect.FieldDescriptor, _ bool) bool {
				return f.Kind() == protoreflect.StringKind && strings.TrimSuffix(string(f.Name()), "s") == suffix
			})
		}
		for _, field := range row.Fields() {
			check("condition", field, m.Input(), func(f protoreflect.FieldDescriptor, repeated bool) bool {
				return f.Kind() == protoreflect.BoolKind && !repeated
			})
		}
		if row.Audit != nil {
			checkAudit(t, row, m, check)
		}
		checkSubjects(t, row, m)
	}
}

func checkAudit(t *testing.T, row access.Method, m protoreflect.MethodDescriptor, check func(string, string, protoreflect.MessageDescriptor, func(protoreflect.FieldDescriptor, bool) bool)) {
	t.Helper()
	if m.IsStreamingClient() || m.IsStreamingServer() {
		t.Errorf("%s: the ends of streams are not told", row.Name)
	}
	_, many := fieldAt(m.Output(), row.Audit.Outcome)
	check("dry run", row.Audit.DryRun, m.Input(), func(f protoreflect.FieldDescriptor, repeated bool) bool {
		return f.Kind() == protoreflect.BoolKind && repeated == (row.Audit.Outcome != "" && many)
	})
	check("outcome", row.Audit.Outcome, m.Output(), func(f protoreflect.FieldDescriptor, _ bool) bool {
		return f.Message() != nil && f.Message().Fields().ByName("changed") != nil
	})
	for _, path := range row.Audit.Shown {
		check("shown", path, m.Input(), func(protoreflect.FieldDescriptor, bool) bool { return true })
	}
	// What a request can be tried with is no change.
	if f, _ := fieldAt(m.Input(), "validate_only"); f != nil && row.Audit.DryRun == "" {
		t.Errorf("%s: validate_only is not looked at", row.Name)
	}
}

// checkSubjects wants a subject where a row asks whose it is.
func checkSubjects(t *testing.T, row access.Method, m protoreflect.MethodDescriptor) {
	t.Helper()
	if len(row.Permits) == 0 && !row.Open {
		t.Errorf("%s is for nobody", row.Name)
	}
	for _, permit := range row.Permits {
		if permit.Scope == access.Own && (row.Subject.Kind == 0 || row.Subject.Path == "") {
			t.Errorf("%s asks whose it is, and the row does not tell where that stands", row.Name)
		}
	}
	if row.Subject.Kind == 0 && row.Audit != nil {
		for _, path := range []string{"producer_id", "collector_id", "producer_ids"} {
			if f, _ := fieldAt(m.Input(), path); f != nil {
				t.Errorf("%s: %s is not told", row.Name, path)
			}
		}
	}
}
