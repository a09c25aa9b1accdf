package api_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/api"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A store notes what it is asked.
type store struct {
	selectors  []string
	mint, maxt int64
	err        error
}

func (s *store) Delete(_ context.Context, selectors [][]*labels.Matcher, mint, maxt int64) (int, error) {
	s.mint, s.maxt = mint, maxt
	for _, one := range selectors {
		s.selectors = append(s.selectors, fmt.Sprint(one))
	}
	return 7, s.err
}

func (s *store) Snapshot(context.Context) (dir string, bytes int64, err error) {
	return "/dir", 9, s.err
}

func matcher(kind collectorv1.MatchType, name, value string) *collectorv1.LabelMatcher {
	return &collectorv1.LabelMatcher{Type: kind, Name: name, Value: value}
}

func request(matchers ...*collectorv1.LabelMatcher) *collectorv1.DeleteSeriesRequest {
	return &collectorv1.DeleteSeriesRequest{Selectors: []*collectorv1.Selector{{Matchers: matchers}}}
}

const (
	equal    = collectorv1.MatchType_MATCH_TYPE_EQUAL
	notEqual = collectorv1.MatchType_MATCH_TYPE_NOT_EQUAL
	regex    = collectorv1.MatchType_MATCH_TYPE_REGEX
	notRegex = collectorv1.MatchType_MATCH_TYPE_NOT_REGEX
)

// fault is the code and the reason of an error.
func fault(err error) string {
	s := status.Convert(err)
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return s.Code().String() + " " + info.GetReason()
		}
	}
	return s.Code().String()
}

func TestDeleteSeries(t *testing.T) {
	s := &store{}
	a := api.New(api.Config{Store: s})
	m := request(matcher(equal, "a", "1"), matcher(notEqual, "b", "2"), matcher(regex, "c", "3.*"), matcher(notRegex, "d", "4"))
	resp, err := a.DeleteSeries(t.Context(), m)
	if err != nil || resp.GetSeriesCount() != 7 {
		t.Errorf("answer is %v, %v", resp, err)
	}
	if diff := cmp.Diff([]string{`[a="1" b!="2" c=~"3.*" d!~"4"]`}, s.selectors); diff != "" {
		t.Error(diff)
	}
	if s.mint != math.MinInt64 || s.maxt != math.MaxInt64 {
		t.Errorf("deleted from %d to %d, want all", s.mint, s.maxt)
	}
	start, end := int64(-5), int64(0)
	m.StartMs, m.EndMs = &start, &end
	if _, err := a.DeleteSeries(t.Context(), m); err != nil || s.mint != -5 || s.maxt != 0 {
		t.Errorf("deleted from %d to %d, %v", s.mint, s.maxt, err)
	}
}

func TestDeleteSeriesRefuses(t *testing.T) {
	one, zero := int64(1), int64(0)
	span := request(matcher(equal, "a", "1"))
	span.StartMs, span.EndMs = &one, &zero
	many := &collectorv1.DeleteSeriesRequest{}
	for range 1001 {
		many.Selectors = append(many.Selectors, &collectorv1.Selector{Matchers: []*collectorv1.LabelMatcher{matcher(equal, "a", "1")}})
	}
	large := request()
	for range 10_001 {
		large.Selectors[0].Matchers = append(large.Selectors[0].Matchers, matcher(equal, "a", "1"))
	}
	broken := request()
	for range 1000 {
		broken.Selectors[0].Matchers = append(broken.Selectors[0].Matchers, matcher(regex, "a", "("))
	}
	for name, m := range map[string]*collectorv1.DeleteSeriesRequest{
		"nothing":             {},
		"no matcher":          request(),
		"the empty value":     request(matcher(equal, "a", "")),
		"anything":            request(matcher(regex, "a", ".*")),
		"no name":             request(matcher(equal, "", "1")),
		"no type":             request(matcher(0, "a", "1")),
		"an unknown type":     request(matcher(9, "a", "1")),
		"a broken expression": request(matcher(regex, "a", "(")),
		"many broken ones":    broken,
		"a span that ends":    span,
		"many selectors":      many,
		"many matchers":       large,
		"one of two": {Selectors: []*collectorv1.Selector{
			{Matchers: []*collectorv1.LabelMatcher{matcher(equal, "a", "1")}}, {Matchers: []*collectorv1.LabelMatcher{matcher(notEqual, "a", "1")}},
		}},
	} {
		s := &store{}
		_, err := api.New(api.Config{Store: s}).DeleteSeries(t.Context(), m)
		if fault(err) != "InvalidArgument MALFORMED" || s.selectors != nil {
			t.Errorf("%s: error is %v, asked %v", name, err, s.selectors)
		}
		for _, d := range status.Convert(err).Details() {
			if bad, ok := d.(*errdetails.BadRequest); ok && len(bad.GetFieldViolations()) > 20 {
				t.Errorf("%s: %d violations are told", name, len(bad.GetFieldViolations()))
			}
		}
	}
}

func TestStoreErrors(t *testing.T) {
	narrow := request(matcher(equal, "a", "1"))
	for want, s := range map[string]api.Store{
		"FailedPrecondition NO_STORE":          nil,
		"ResourceExhausted BUSY":               &store{err: fmt.Errorf("x: %w", api.ErrStoreBusy)},
		"ResourceExhausted TOO_MANY_SNAPSHOTS": &store{err: api.ErrTooManySnapshots},
		"Unavailable STORE_UNAVAILABLE":        &store{err: api.ErrStoreUnavailable},
		"Internal STORE":                       &store{err: errors.New("no space")},
		"DeadlineExceeded":                     &store{err: context.DeadlineExceeded},
	} {
		a := api.New(api.Config{Store: s})
		if _, err := a.DeleteSeries(t.Context(), narrow); fault(err) != want {
			t.Errorf("DeleteSeries: error is %v, want %s", err, want)
		}
		if _, err := a.CreateSnapshot(t.Context(), &collectorv1.CreateSnapshotRequest{}); fault(err) != want {
			t.Errorf("CreateSnapshot: error is %v, want %s", err, want)
		}
	}
	resp, err := api.New(api.Config{Store: &store{}}).CreateSnapshot(t.Context(), &collectorv1.CreateSnapshotRequest{})
	if err != nil || resp.GetPath() != "/dir" || resp.GetSizeBytes() != 9 || status.Code(err) != codes.OK {
		t.Errorf("answer is %v, %v", resp, err)
	}
}
