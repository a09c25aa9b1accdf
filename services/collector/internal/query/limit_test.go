package query_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/query"
)

// stuck is a store whose queries last until it is closed or they are given up.
type stuck chan struct{}

func (s stuck) Querier(int64, int64) (storage.Querier, error) {
	return stuckQuerier{Querier: storage.NoopQuerier(), release: s}, nil
}

func (s stuck) ChunkQuerier(int64, int64) (storage.ChunkQuerier, error) {
	return nil, errors.ErrUnsupported
}

type stuckQuerier struct {
	storage.Querier

	release stuck
}

func (q stuckQuerier) Select(ctx context.Context, _ bool, _ *storage.SelectHints, _ ...*labels.Matcher) storage.SeriesSet {
	select {
	case <-q.release:
		return storage.EmptySeriesSet()
	case <-ctx.Done():
		return storage.ErrSeriesSet(ctx.Err())
	}
}

func TestConcurrencyIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := make(stuck)
		b := newBench(t, func(c *query.Config) { c.Queryable, c.MaxConcurrent = store, 2 })
		const places = 2 + 2*4
		codes := make(chan int, places)
		for range places {
			go func() {
				code, _ := b.get(t, "/api/v1/query", "query", "up")
				codes <- code
			}()
		}
		synctest.Wait()
		if got := gauge(t, b, "rollcall_query_requests_in_flight"); got != 2 {
			t.Errorf("%v at work, want 2", got)
		}

		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/query?query=up", http.NoBody)
		rec := httptest.NewRecorder()
		b.handler.ServeHTTP(rec, r)
		if rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") == "" || !strings.Contains(rec.Body.String(), `"errorType":"unavailable"`) {
			t.Errorf("one too many: %d %v %s", rec.Code, rec.Header(), rec.Body)
		}
		if code, _ := b.get(t, "/api/v1/status/buildinfo"); code != http.StatusOK {
			t.Errorf("a cheap one: %d", code)
		}

		close(store)
		for range places {
			if code := <-codes; code != http.StatusOK {
				t.Errorf("one that waited: %d", code)
			}
		}
		if code, _ := b.get(t, "/api/v1/query", "query", "up"); code != http.StatusOK {
			t.Errorf("one after all: %d", code)
		}
		if got := gauge(t, b, "rollcall_query_requests_in_flight"); got != 0 {
			t.Errorf("%v at work, want 0", got)
		}
		if got := gauge(t, b, "rollcall_query_requests_shed_total"); got != 1 {
			t.Errorf("%v shed, want 1", got)
		}
	})
}

func TestRequestsEndInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(c *query.Config) { c.Queryable, c.Timeout, c.MaxConcurrent = make(stuck), 3*time.Second, 3 })
		for path, kind := range map[string]string{"query": "timeout", "series": "execution"} {
			began := time.Now()
			code, got := b.get(t, "/api/v1/"+path, "query", "up", "match[]", "up", "timeout", "1h")
			if code < 400 || got.ErrorType != kind {
				t.Errorf("%s: %d %+v", path, code, got)
			}
			if took := time.Since(began); took != 3*time.Second {
				t.Errorf("%s took %v, want 3s", path, took)
			}
		}
		// Waiting counts too.
		began := time.Now()
		done := make(chan int, 4)
		for range 4 {
			go func() {
				code, _ := b.get(t, "/api/v1/query", "query", "up")
				done <- code
			}()
		}
		for range 4 {
			if code := <-done; code != http.StatusServiceUnavailable {
				t.Errorf("%d, want 503", code)
			}
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("waiting took %v, want 3s", took)
		}
	})
}

// panicking is a TargetSource that panics with what it is given.
type panicking struct{ with any }

func (p panicking) Targets() []query.Target { panic(p.with) }

func TestAPanicIsAnAnswer(t *testing.T) {
	b := newBench(t, func(c *query.Config) { c.Targets = panicking{"broken"} })
	for range 2 {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/targets", http.NoBody)
		r.Header.Set("Accept-Encoding", "gzip") // The answer is plain all the same.
		rec := httptest.NewRecorder()
		b.handler.ServeHTTP(rec, r)
		if body := rec.Body.String(); rec.Code != http.StatusInternalServerError || rec.Header().Get("Content-Encoding") != "" ||
			!strings.Contains(body, `"errorType":"internal"`) || strings.Contains(body, "broken") {
			t.Errorf("%d %v %s", rec.Code, rec.Header(), body)
		}
	}
	if got := gauge(t, b, "rollcall_query_panics_total"); got != 2 {
		t.Errorf("%v panics counted, want 2", got)
	}
	if log := b.logs.String(); !strings.Contains(log, "broken") || !strings.Contains(log, "targets.go") {
		t.Errorf("the log has no reason: %s", log)
	}
	if got := gauge(t, b, "rollcall_query_requests_in_flight"); got != 0 {
		t.Errorf("%v at work, want 0", got)
	}
}

func TestAnAbortIsNoPanic(t *testing.T) {
	b := newBench(t, func(c *query.Config) { c.Targets = panicking{http.ErrAbortHandler} })
	defer func() {
		if p := recover(); p != http.ErrAbortHandler { //nolint:errorlint // A panic's value.
			t.Errorf("recovered %v", p)
		}
		if got := gauge(t, b, "rollcall_query_panics_total"); got != 0 {
			t.Errorf("%v panics counted, want 0", got)
		}
	}()
	b.get(t, "/api/v1/targets")
	t.Error("no panic")
}

func answersAreCompressed(t *testing.T, b *bench) {
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/labels", http.NoBody)
	r.Header.Set("Accept-Encoding", "gzip")
	rec := httptest.NewRecorder()
	b.handler.ServeHTTP(rec, r)
	plain, err := gzip.NewReader(bytes.NewReader(rec.Body.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(plain); err != nil || !strings.Contains(string(body), "instance") {
		t.Errorf("%q, %v", body, err)
	}
}

func TestRequestsAreCounted(t *testing.T) {
	b := filled(t, nil)
	b.get(t, "/api/v1/label/job/values")
	b.get(t, "/api/v1/label/instance/values")
	b.get(t, "/api/v1/query", "query", "(")
	families, err := b.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		if f.GetName() == "rollcall_query_requests_total" {
			for _, m := range f.GetMetric() {
				got[m.GetLabel()[1].GetValue()+" "+m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	if diff := cmp.Diff(map[string]float64{"/label/:name/values 200": 2, "/query 400": 1}, got); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func gauge(t testing.TB, b *bench, name string) float64 {
	t.Helper()
	families, err := b.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue() + f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}
