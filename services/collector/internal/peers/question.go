package peers

import (
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
)

// Bounds of a request.
const (
	maxMatchers     = 10_000
	maxMatcherBytes = 1 << 20
	maxSelectors    = 1000
)

// A question is what one collector asks of another's store.
type question struct {
	kind       collectorv1.SelectKind
	start, end int64
	selectors  [][]*labels.Matcher
	label      string
	limit      int
	maxBytes   int64
}

// selector is the matchers of a question that has one set of them at most.
func (q *question) selector() []*labels.Matcher {
	if len(q.selectors) == 0 {
		return nil
	}
	return append([]*labels.Matcher(nil), q.selectors[0]...) // The store sorts its own.
}

// matches tells whether a series is asked for.
func (q *question) matches(lset labels.Labels) bool {
	for _, matchers := range q.selectors {
		all := true
		for _, m := range matchers {
			if !m.Matches(lset.Get(m.Name)) {
				all = false
				break
			}
		}
		if all {
			return true
		}
	}
	return len(q.selectors) == 0
}

func (q *question) encode() *collectorv1.SelectRequest {
	m := &collectorv1.SelectRequest{
		Kind: q.kind, StartMs: q.start, EndMs: q.end, LabelName: q.label, Limit: int64(q.limit), MaxBytes: q.maxBytes,
	}
	for _, matchers := range q.selectors {
		s := &collectorv1.Selector{}
		for _, one := range matchers {
			s.Matchers = append(s.Matchers, &collectorv1.LabelMatcher{
				Type: collectorv1.MatchType(one.Type) + collectorv1.MatchType_MATCH_TYPE_EQUAL, Name: one.Name, Value: one.Value,
			})
		}
		m.Selectors = append(m.Selectors, s)
	}
	return m
}

// decode checks a request; the error has a status.
func decode(m *collectorv1.SelectRequest) (*question, error) {
	q := &question{
		kind: m.GetKind(), start: m.GetStartMs(), end: m.GetEndMs(), label: m.GetLabelName(), maxBytes: m.GetMaxBytes(),
	}
	least, most := selectorsOf(q.kind)
	n := len(m.GetSelectors())
	switch {
	case most == 0:
		return nil, invalid("kind", fmt.Sprintf("%d is not known", q.kind))
	case q.end < q.start:
		return nil, invalid("end_ms", "is before start_ms")
	case n < least || n > most:
		return nil, invalid("selectors", fmt.Sprintf("%d, want %d to %d", n, least, most))
	case q.kind == collectorv1.SelectKind_SELECT_KIND_LABEL_VALUES && q.label == "":
		return nil, invalid("label_name", "is required")
	case m.GetLimit() < 0 || m.GetLimit() > 1<<40:
		return nil, invalid("limit", "is out of range")
	case q.maxBytes < 0:
		return nil, invalid("max_bytes", "is negative")
	}
	q.limit = int(m.GetLimit())
	matchers, size := 0, 0
	for i, s := range m.GetSelectors() {
		var set []*labels.Matcher
		for j, one := range s.GetMatchers() {
			matchers++
			size += len(one.GetName()) + len(one.GetValue())
			if matchers > maxMatchers || size > maxMatcherBytes {
				return nil, invalid("selectors", fmt.Sprintf("more than %d matchers or %d bytes", maxMatchers, maxMatcherBytes))
			}
			matcher, err := decodeMatcher(one)
			if err != nil {
				return nil, invalid(fmt.Sprintf("selectors[%d].matchers[%d]", i, j), err.Error())
			}
			set = append(set, matcher)
		}
		if len(set) == 0 {
			return nil, invalid(fmt.Sprintf("selectors[%d]", i), "has no matcher")
		}
		q.selectors = append(q.selectors, set)
	}
	return q, nil
}

// selectorsOf is how many selectors a kind of question has.
func selectorsOf(kind collectorv1.SelectKind) (least, most int) {
	switch kind {
	case collectorv1.SelectKind_SELECT_KIND_SAMPLES, collectorv1.SelectKind_SELECT_KIND_SERIES:
		return 1, 1
	case collectorv1.SelectKind_SELECT_KIND_LABEL_NAMES, collectorv1.SelectKind_SELECT_KIND_LABEL_VALUES:
		return 0, 1
	case collectorv1.SelectKind_SELECT_KIND_EXEMPLARS:
		return 1, maxSelectors
	default:
		return 0, 0
	}
}

func decodeMatcher(m *collectorv1.LabelMatcher) (*labels.Matcher, error) {
	if m.GetName() == "" {
		return nil, fmt.Errorf("name: is required")
	}
	var kind labels.MatchType
	switch m.GetType() {
	case collectorv1.MatchType_MATCH_TYPE_EQUAL:
		kind = labels.MatchEqual
	case collectorv1.MatchType_MATCH_TYPE_NOT_EQUAL:
		kind = labels.MatchNotEqual
	case collectorv1.MatchType_MATCH_TYPE_REGEX:
		kind = labels.MatchRegexp
	case collectorv1.MatchType_MATCH_TYPE_NOT_REGEX:
		kind = labels.MatchNotRegexp
	default:
		return nil, fmt.Errorf("type: %d is not known", m.GetType())
	}
	matcher, err := labels.NewMatcher(kind, m.GetName(), m.GetValue())
	if err != nil {
		return nil, fmt.Errorf("value: %s", clip(err.Error()))
	}
	return matcher, nil
}

func invalid(field, description string) error {
	return failure(codes.InvalidArgument, field+": "+description, "MALFORMED", &errdetails.BadRequest{
		FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field, Description: description}},
	})
}

// failure is an error with a status and its reason.
func failure(code codes.Code, message, reason string, details ...protoadapt.MessageV1) error {
	s := status.New(code, message)
	details = append(details, &errdetails.ErrorInfo{Reason: reason, Domain: "rollcall"})
	if with, err := s.WithDetails(details...); err == nil {
		s = with
	}
	return s.Err()
}
