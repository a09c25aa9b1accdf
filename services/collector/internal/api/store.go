package api

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// What keeps a store from doing what is asked.
var (
	// ErrStoreBusy says that another deletion or snapshot is at work.
	ErrStoreBusy = errors.New("a snapshot or a deletion is at work")

	// ErrStoreUnavailable says that the store is closed, or that its disk fails.
	ErrStoreUnavailable = errors.New("the sample store is not available")

	// ErrTooManySnapshots says that old snapshots must be removed first.
	ErrTooManySnapshots = errors.New("there are too many snapshots")
)

// Bounds of a deletion.
const (
	maxSelectors    = 1000
	maxMatchers     = 10_000
	maxMatcherBytes = 1 << 20
)

// A Store is the embedded store. It is safe for concurrent use. Its errors wrap
// one of the above, or tell what is wrong with the store or its disk.
type Store interface {
	// Delete deletes the samples from mint to maxt, in milliseconds since the Unix
	// epoch and included, of the series that a selector selects. Every selector
	// has a matcher that does not match the empty value. It tells how many series
	// had samples there.
	Delete(ctx context.Context, selectors [][]*labels.Matcher, mint, maxt int64) (series int, err error)

	// Snapshot makes a copy of the store, and tells its directory and its size.
	Snapshot(ctx context.Context) (dir string, bytes int64, err error)
}

// DeleteSeries deletes samples from the embedded store.
func (a *API) DeleteSeries(ctx context.Context, m *collectorv1.DeleteSeriesRequest) (*collectorv1.DeleteSeriesResponse, error) {
	selectors, bad := decodeSelectors(m.GetSelectors())
	mint, maxt := int64(math.MinInt64), int64(math.MaxInt64)
	if m.StartMs != nil {
		mint = m.GetStartMs()
	}
	if m.EndMs != nil {
		maxt = m.GetEndMs()
	}
	if maxt < mint {
		bad = append(bad, violation("end_ms", "is before start_ms"))
	}
	if len(bad) > 0 {
		return nil, violations(bad)
	}
	if a.Store == nil {
		return nil, noStore()
	}
	n, err := a.Store.Delete(ctx, selectors, mint, maxt)
	if err != nil {
		return nil, storeStatus(err)
	}
	return &collectorv1.DeleteSeriesResponse{SeriesCount: int64(n)}, nil
}

// CreateSnapshot makes a copy of the embedded store.
func (a *API) CreateSnapshot(ctx context.Context, _ *collectorv1.CreateSnapshotRequest) (*collectorv1.CreateSnapshotResponse, error) {
	if a.Store == nil {
		return nil, noStore()
	}
	dir, bytes, err := a.Store.Snapshot(ctx)
	if err != nil {
		return nil, storeStatus(err)
	}
	return &collectorv1.CreateSnapshotResponse{Path: dir, SizeBytes: bytes}, nil
}

func noStore() error {
	return detailed(codes.FailedPrecondition, "this collector keeps no samples", "NO_STORE")
}

// storeStatus is the status of a store's error.
func storeStatus(err error) error {
	switch {
	case errors.Is(err, ErrStoreBusy):
		return detailed(codes.ResourceExhausted, ErrStoreBusy.Error(), "BUSY",
			&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)})
	case errors.Is(err, ErrTooManySnapshots):
		return detailed(codes.ResourceExhausted, err.Error(), "TOO_MANY_SNAPSHOTS")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	case errors.Is(err, ErrStoreUnavailable):
		return detailed(codes.Unavailable, err.Error(), "STORE_UNAVAILABLE")
	default:
		return detailed(codes.Internal, err.Error(), "STORE")
	}
}

// decodeSelectors returns the selectors, or the fields at fault.
func decodeSelectors(all []*collectorv1.Selector) (selectors [][]*labels.Matcher, bad []*errdetails.BadRequest_FieldViolation) {
	if n := len(all); n == 0 || n > maxSelectors {
		return nil, []*errdetails.BadRequest_FieldViolation{violation("selectors", fmt.Sprintf("%d, want 1 to %d", n, maxSelectors))}
	}
	matchers, size := 0, 0
	for i, s := range all {
		var selector []*labels.Matcher
		narrow := false
		for j, m := range s.GetMatchers() {
			matchers++
			size += len(m.GetName()) + len(m.GetValue())
			if matchers > maxMatchers || size > maxMatcherBytes {
				return nil, []*errdetails.BadRequest_FieldViolation{
					violation("selectors", fmt.Sprintf("more than %d matchers or %d bytes", maxMatchers, maxMatcherBytes)),
				}
			}
			one, err := decodeMatcher(m)
			if err != nil {
				bad = append(bad, violation(fmt.Sprintf("selectors[%d].matchers[%d]", i, j), err.Error()))
				if len(bad) == maxViolations {
					return nil, bad
				}
				continue
			}
			narrow = narrow || !one.Matches("")
			selector = append(selector, one)
		}
		if !narrow && len(bad) == 0 {
			return nil, []*errdetails.BadRequest_FieldViolation{
				violation(fmt.Sprintf("selectors[%d]", i), "has no matcher that does not match the empty value"),
			}
		}
		selectors = append(selectors, selector)
	}
	return selectors, bad
}

// maxMatcherText bounds what is said of an expression.
const maxMatcherText = 200

func decodeMatcher(m *collectorv1.LabelMatcher) (*labels.Matcher, error) {
	if m.GetName() == "" {
		return nil, errors.New("name: is required")
	}
	kind := m.GetType()
	if kind < collectorv1.MatchType_MATCH_TYPE_EQUAL || kind > collectorv1.MatchType_MATCH_TYPE_NOT_REGEX {
		return nil, fmt.Errorf("type: %d is not known", kind)
	}
	one, err := labels.NewMatcher(labels.MatchType(kind-collectorv1.MatchType_MATCH_TYPE_EQUAL), m.GetName(), m.GetValue())
	if err != nil {
		return nil, fmt.Errorf("value: %.*s", maxMatcherText, err.Error())
	}
	return one, nil
}
