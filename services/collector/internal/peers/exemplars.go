package peers

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
)

// ExemplarQuerier reads the exemplars of all collectors.
func (f *Fleet) ExemplarQuerier(ctx context.Context) (storage.ExemplarQuerier, error) {
	local, err := f.Local.ExemplarQuerier(ctx)
	if err != nil {
		return nil, err
	}
	return &exemplarQuerier{ctx: ctx, fleet: f, local: local}, nil
}

// An exemplarQuerier answers one request.
type exemplarQuerier struct {
	ctx   context.Context //nolint:containedctx // Prometheus's interface gives it here and not to Select
	fleet *Fleet
	local storage.ExemplarQuerier
}

// Select returns the exemplars of the series that any of the selectors matches,
// by series. What is missing is told to the scope's Warn, and is an error when
// there is none.
func (q *exemplarQuerier) Select(start, end int64, selectors ...[]*labels.Matcher) ([]exemplar.QueryResult, error) {
	inquiry := q.fleet.newInquiry(start, end)
	defer inquiry.Close()
	p := inquiry.ask(q.ctx, &question{
		kind: collectorv1.SelectKind_SELECT_KIND_EXEMPLARS, start: start, end: end, selectors: selectors,
	})
	all, err := q.local.Select(start, end, selectors...)
	if err != nil || p == nil {
		return all, err
	}
	answers, warnings, err := inquiry.settle(p)
	switch {
	case err != nil:
		return nil, err
	case len(warnings) > 0 && p.scope.Warn == nil:
		return nil, errors.Join(warnings.AsErrors()...)
	}
	for _, w := range warnings {
		p.scope.Warn(w)
	}
	for _, a := range answers {
		all = append(all, a.exemplars...)
	}
	return mergeExemplars(all), nil
}

// mergeExemplars makes one of what is of the same series, and of the same
// exemplar.
func mergeExemplars(all []exemplar.QueryResult) []exemplar.QueryResult {
	slices.SortStableFunc(all, func(a, b exemplar.QueryResult) int { return labels.Compare(a.SeriesLabels, b.SeriesLabels) })
	merged := []exemplar.QueryResult{} // Not nil: JSON has a list.
	for _, r := range all {
		if n := len(merged); n > 0 && labels.Equal(merged[n-1].SeriesLabels, r.SeriesLabels) {
			merged[n-1].Exemplars = append(slices.Clip(merged[n-1].Exemplars), r.Exemplars...)
			continue
		}
		merged = append(merged, r)
	}
	for i := range merged {
		one := &merged[i]
		slices.SortStableFunc(one.Exemplars, func(a, b exemplar.Exemplar) int {
			return cmp.Or(cmp.Compare(a.Ts, b.Ts), cmp.Compare(a.Value, b.Value), labels.Compare(a.Labels, b.Labels))
		})
		one.Exemplars = slices.CompactFunc(one.Exemplars, func(a, b exemplar.Exemplar) bool {
			return a.Ts == b.Ts && a.Equals(b)
		})
	}
	return merged
}
