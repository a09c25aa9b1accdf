package auth

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/access"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
)

// The fields of responses that are told.
const (
	epochField    = "epoch"
	revisionField = "revision"
	changedField  = "changed"
)

// audit tells of a call that has changed something, whatever else the log leaves
// out. One that could have and has not, the renewal of a registration above all, is
// told to who looks for it.
func (p *Porter) audit(ctx context.Context, v visitor, role access.Role, req, resp any) {
	request, isRequest := req.(proto.Message)
	response, isResponse := resp.(proto.Message)
	if v.method.Audit == nil || !isRequest || !isResponse {
		return
	}
	e := effectOf(v.method, request, response)
	if len(e.unknown) > 0 {
		attrs := append(p.auditAttrs(ctx, v, role), slog.String("changed", "unknown"))
		p.auditLines(ctx, slog.LevelInfo, attrs, e.unknown, askedAttrs(v.method, request))
	}
	if !e.changed && !p.config.Logger.Enabled(ctx, slog.LevelDebug) {
		return
	}
	attrs := append(p.auditAttrs(ctx, v, role), slog.Bool("changed", e.changed))
	if e.revision > 0 {
		attrs = append(attrs, slog.String(epochField, e.epoch), slog.Int64(revisionField, e.revision))
	}
	level := slog.LevelDebug
	if e.changed {
		level = slog.LevelInfo
	}
	p.auditLines(ctx, level, attrs, e.subjects, askedAttrs(v.method, request))
}

// auditUnsettled tells of a call of which only the future shows whether it has
// changed something: its caller went away, or an answer of the store is missing.
func (p *Porter) auditUnsettled(ctx context.Context, v visitor, role access.Role, req any, err error) {
	request, ok := req.(proto.Message)
	if v.method.Audit == nil || !ok {
		return
	}
	attrs := append(p.auditAttrs(ctx, v, role), slog.String("changed", "unknown"), slog.String("code", status.Code(err).String()))
	p.auditLines(ctx, slog.LevelInfo, attrs, textsAt(request, v.method.Subject.Path), askedAttrs(v.method, request))
}

// outcomeUnknown is the reason of an error by which a service says so itself.
const outcomeUnknown = "OUTCOME_UNKNOWN"

// unsettled tells whether a call that failed may have changed something. What is
// refused says why in its details.
func unsettled(m access.Method, err error) bool {
	s := status.Convert(err)
	partial := m.Audit != nil && m.Audit.Partial
	switch s.Code() {
	case codes.Unavailable:
		why := reasonOf(s)
		return why == "" || why == outcomeUnknown || partial
	case codes.Aborted, codes.FailedPrecondition:
		return partial
	default:
		return unsettledCode(s.Code())
	}
}

// unsettledCode tells whether what ends so may have been done.
func unsettledCode(code codes.Code) bool {
	switch code {
	case codes.Canceled, codes.DeadlineExceeded, codes.Unknown, codes.Internal, codes.Unavailable:
		return true
	default:
		return false
	}
}

func reasonOf(s *status.Status) string {
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

func (p *Porter) auditAttrs(ctx context.Context, v visitor, role access.Role) []slog.Attr {
	name := v.who.Name
	if name == "" {
		name = access.Anonymous
	}
	return []slog.Attr{
		slog.String("identity", name), slog.String("role", string(role)),
		slog.String("method", v.method.Name), slog.String("peer", addressOf(ctx)),
	}
}

func askedAttrs(m access.Method, request proto.Message) []slog.Attr {
	if asked := shown(m.Audit.Shown, request); len(asked) > 0 {
		return []slog.Attr{slog.GroupAttrs("request", asked...)}
	}
	return nil
}

// maxAudited is how many subjects a line names; more are told in more lines.
const maxAudited = 100

// auditLines write all subjects past the level of the log: neither that nor a large
// batch is a way to be unseen.
func (p *Porter) auditLines(ctx context.Context, level slog.Level, attrs []slog.Attr, subjects []string, asked []slog.Attr) {
	for first := true; first || len(subjects) > 0; first = false {
		some := subjects[:min(len(subjects), maxAudited)]
		record := slog.NewRecord(time.Now(), level, "audit", 0)
		record.AddAttrs(attrs...)
		if len(some) > 0 {
			named := make([]string, len(some))
			for i := range some {
				named[i] = cut(some[i])
			}
			record.AddAttrs(slog.Any("subjects", named), slog.Int("subject_count", len(some)))
		}
		record.AddAttrs(asked...)
		_ = p.config.Logger.Handler().Handle(ctx, record) // as with every line: there is nobody to tell
		subjects = subjects[len(some):]
	}
}

// An effect is what a call did.
type effect struct {
	subjects []string // of a batch, those that were changed, unless none was
	unknown  []string // of a batch, those of which it is not known
	changed  bool
	epoch    string
	revision int64
}

func effectOf(m access.Method, request, response proto.Message) effect {
	e := effect{subjects: textsAt(request, m.Subject.Path)}
	dry := flagsAt(request, m.Audit.DryRun)
	var changed []string
	outcomes := outcomesOf(response, m.Audit.Outcome)
	for i, code := range codesAt(response, m.Audit.Codes) {
		if i < len(e.subjects) && unsettledCode(code) {
			e.unknown = append(e.unknown, e.subjects[i])
		}
	}
	for i, outcome := range outcomes {
		if i < len(dry) && dry[i] || !changedBy(outcome) {
			continue
		}
		e.changed = true
		if len(e.subjects) == len(outcomes) {
			changed = append(changed, e.subjects[i])
		}
		if revision := intOf(outcome, revisionField); revision > e.revision {
			e.epoch, e.revision = textOf(outcome, epochField), revision
		}
	}
	if len(changed) > 0 {
		e.subjects = changed
	}
	return e
}

// outcomesOf are the messages at a path, or the response itself.
func outcomesOf(response proto.Message, path string) []protoreflect.Message {
	if path == "" {
		return []protoreflect.Message{response.ProtoReflect()}
	}
	var all []protoreflect.Message
	visit(response.ProtoReflect(), path, func(_ protoreflect.FieldDescriptor, v protoreflect.Value) { all = append(all, v.Message()) })
	return all
}

// changedBy tells whether something was changed: yes, unless the answer denies it.
func changedBy(outcome protoreflect.Message) bool {
	field := outcome.Descriptor().Fields().ByName(changedField)
	return field == nil || field.Kind() != protoreflect.BoolKind || outcome.Get(field).Bool()
}

func textOf(m protoreflect.Message, name protoreflect.Name) string {
	field := m.Descriptor().Fields().ByName(name)
	if field == nil || field.Kind() != protoreflect.StringKind {
		return ""
	}
	return m.Get(field).String()
}

func intOf(m protoreflect.Message, name protoreflect.Name) int64 {
	field := m.Descriptor().Fields().ByName(name)
	if field == nil || field.Kind() != protoreflect.Int64Kind {
		return 0
	}
	return m.Get(field).Int()
}

// shown are fields of a request, by the last name of each path, without those of
// which it can be told that they are not set.
func shown(paths []string, request proto.Message) []slog.Attr {
	var attrs []slog.Attr
	m := request.ProtoReflect()
	for _, path := range paths {
		if f := m.Descriptor().Fields().ByName(protoreflect.Name(path)); f != nil && f.HasPresence() && !m.Has(f) {
			continue
		}
		var texts []string
		visit(m, path, func(f protoreflect.FieldDescriptor, v protoreflect.Value) {
			if len(texts) <= maxSubjects {
				texts = append(texts, cut(textOfValue(f, v)))
			}
		})
		if len(texts) > 0 {
			attrs = append(attrs, slog.String(path[strings.LastIndex(path, ".")+1:], strings.Join(texts, ", ")))
		}
	}
	return attrs
}

// textOfValue is a value for people.
func textOfValue(f protoreflect.FieldDescriptor, v protoreflect.Value) string {
	if f.Kind() == protoreflect.EnumKind {
		if name := f.Enum().Values().ByNumber(v.Enum()); name != nil {
			return string(name.Name())
		}
	}
	if f.Message() != nil {
		m := v.Message().Interface()
		if d, ok := m.(*durationpb.Duration); ok {
			return d.AsDuration().String()
		}
		return prototext.MarshalOptions{}.Format(m)
	}
	return v.String()
}
