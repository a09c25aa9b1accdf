package query_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/query"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sink"
)

// A partial store warns, or fails, as one that reaches others does.
type partial struct{ *sink.TSDB }

func warning(ctx context.Context) (annotations.Annotations, error) {
	scope := query.ScopeOf(ctx)
	var warnings annotations.Annotations
	switch {
	case scope.Local:
		return nil, nil
	case scope.Whole:
		return nil, errors.New("something is missing")
	default:
		return warnings.Add(fmt.Errorf("this result is %s", "partial")), nil
	}
}

func (p partial) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := p.TSDB.Querier(mint, maxt)
	return partialQuerier{q}, err
}

func (p partial) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	q, err := p.TSDB.ChunkQuerier(mint, maxt)
	return partialChunkQuerier{q}, err
}

func (p partial) ExemplarQuerier(ctx context.Context) (storage.ExemplarQuerier, error) {
	q, err := p.TSDB.ExemplarQuerier(ctx)
	return partialExemplarQuerier{ctx, q}, err
}

type partialQuerier struct{ storage.Querier }

type partialChunkQuerier struct{ storage.ChunkQuerier }

type partialExemplarQuerier struct {
	ctx context.Context
	storage.ExemplarQuerier
}

type partialSet struct {
	storage.SeriesSet
	warnings annotations.Annotations
}

func (s partialSet) Warnings() annotations.Annotations { return s.warnings }

func (q partialQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	warnings, err := warning(ctx)
	if err != nil {
		return storage.ErrSeriesSet(err)
	}
	return partialSet{q.Querier.Select(ctx, sorted, hints, matchers...), warnings}
}

func (q partialQuerier) LabelNames(ctx context.Context, hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	names, _, err := q.Querier.LabelNames(ctx, hints, matchers...)
	warnings, _ := warning(ctx)
	return names, warnings, err
}

func (q partialQuerier) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	values, _, err := q.Querier.LabelValues(ctx, name, hints, matchers...)
	warnings, _ := warning(ctx)
	return values, warnings, err
}

func (q partialChunkQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.ChunkSeriesSet {
	if _, err := warning(ctx); err != nil {
		return storage.ErrChunkSeriesSet(err)
	}
	return q.ChunkQuerier.Select(ctx, sorted, hints, matchers...)
}

func (q partialExemplarQuerier) Select(start, end int64, matchers ...[]*labels.Matcher) ([]exemplar.QueryResult, error) {
	warnings, err := warning(q.ctx)
	for _, w := range warnings {
		query.ScopeOf(q.ctx).Warn(w)
	}
	if err != nil {
		return nil, err
	}
	return q.ExemplarQuerier.Select(start, end, matchers...)
}

// TestScope: a partial answer has a warning whatever is asked, and none when only
// this collector's store is asked, by GET and by POST.
func TestScope(t *testing.T) {
	b := filled(t, func(c *query.Config) {
		store, ok := c.Queryable.(*sink.TSDB)
		if !ok {
			t.Fatal("the store is another one")
		}
		c.Queryable, c.Exemplars = partial{store}, partial{store}
	})
	const last = "1700000040"
	for path, pairs := range map[string][]string{
		"query":                       {"query", "up", "time", last},
		"query_range":                 {"query", "up", "start", "1700000000", "end", last, "step", "10"},
		"query_exemplars":             {"query", "requests_total", "start", "1700000000", "end", last},
		"series":                      {"match[]", "up"},
		"labels":                      {"match[]", "up"},
		"label/instance/values":       {"match[]", "up"},
		"query?query=up&time=" + last: nil,
	} {
		for scope, warnings := range map[string][]string{"": {"this result is partial"}, "fleet": {"this result is partial"}, "local": nil} {
			values := strings.NewReplacer("[]", "%5B%5D").Replace(join(append(pairs, "scope", scope)))
			requests := []*http.Request{httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/"+withQuery(path, values), http.NoBody)}
			requests[0].Header.Set("Accept-Encoding", "identity")
			if !strings.HasSuffix(path, "values") {
				post := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/"+path, strings.NewReader(values))
				post.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				requests = append(requests, post)
			}
			for _, r := range requests {
				code, got := b.do(t, r)
				if code != http.StatusOK || !slices.Equal(got.Warnings, warnings) || len(got.Data) < 5 {
					t.Errorf("%s %s, scope %q: %d %s, warnings %q, error %s", r.Method, path, scope, code, got.Data, got.Warnings, got.Error)
				}
			}
		}
	}
	if code, got := b.get(t, "/api/v1/query", "query", "up", "scope", "everything"); code != http.StatusBadRequest || got.ErrorType != "bad_data" {
		t.Errorf("another scope: %d %v", code, got)
	}
	for _, kind := range readKinds {
		if rec := read(t, b, kind); rec.Code != http.StatusInternalServerError || !strings.Contains(rec.Body.String(), "something is missing") {
			t.Errorf("remote read of %v: %d %s", kind, rec.Code, rec.Body)
		}
		if rec := readFrom(t, b, "/api/v1/read?scope=local", kind); rec.Code != http.StatusOK {
			t.Errorf("local remote read of %v: %d %s", kind, rec.Code, rec.Body)
		}
	}
}

func join(pairs []string) string {
	var all []string
	for i := 0; i < len(pairs); i += 2 {
		all = append(all, pairs[i]+"="+pairs[i+1])
	}
	return strings.Join(all, "&")
}

func withQuery(path, values string) string {
	if strings.Contains(path, "?") {
		return path + "&" + values
	}
	return path + "?" + values
}
