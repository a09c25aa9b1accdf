package query_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/query"
)

func TestRefusals(t *testing.T) {
	b := filled(t, func(c *query.Config) { c.MaxSamples = 4 })
	const last = "1700000040"
	tests := []struct {
		name  string
		path  string
		pairs []string
		code  int
		kind  string
		text  string
	}{
		{"bad PromQL", "query", []string{"query", "up{"}, 400, "bad_data", "parse error"},
		{"bad PromQL in a range", "query_range", []string{"query", "up)", "start", "1", "end", "2", "step", "1"}, 400, "bad_data", "parse error"},
		{"bad PromQL to format", "format_query", []string{"query", "sum("}, 400, "bad_data", "parse error"},
		{"no query", "query", nil, 400, "bad_data", "no expression"},
		{"bad time", "query", []string{"query", "up", "time", "yesterday"}, 400, "bad_data", "time"},
		{"no matcher", "series", nil, 400, "bad_data", "match[]"},
		{"too many points", "query_range", []string{"query", "up", "start", "1", "end", "99999999", "step", "1"}, 400, "bad_data", "11,000"},
		{"too many samples", "query", []string{"query", "up[1h]", "time", last}, 422, "execution", "too many samples"},
		{"deep brackets", "query", []string{"query", strings.Repeat("(", 1001) + "1" + strings.Repeat(")", 1001)}, 400, "bad_data", "too complex"},
		{"a long sum", "parse_query", []string{"query", strings.Repeat("1+", 1001) + "1"}, 400, "bad_data", "too complex"},
		{"a long sum to format", "format_query", []string{"query", strings.Repeat("1+", 1001) + "1"}, 400, "bad_data", "too complex"},
		{"a long chain of minus", "query_exemplars", []string{"query", strings.Repeat("-", 1001) + "up"}, 400, "bad_data", "too complex"},
		{"a chain of subqueries", "query", []string{"query", "up" + strings.Repeat("[5m:]", 1001)}, 400, "bad_data", "too complex"},
		{"a deep and long one", "format_query", []string{"query", strings.Repeat("(", 500) + `{a="` + strings.Repeat("x", 20_000) + `"}` + strings.Repeat(")", 500)}, 400, "bad_data", "too complex"},
		{"a long URL", "query", []string{"query", strings.Repeat("a", 1<<20)}, 414, "bad_data", "too long"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			code, got := b.get(t, "/api/v1/"+test.path, test.pairs...)
			if code != test.code || got.Status != "error" || got.ErrorType != test.kind || !strings.Contains(got.Error, test.text) {
				t.Errorf("%d %.300v, want %d %s %s", code, got, test.code, test.kind, test.text)
			}
		})
	}
}

// The bound is on what nests. Matchers do not, and generated queries have many.
func manyMatchersAreFine(t *testing.T, b *bench) {
	var matchers strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&matchers, `,instance!="x%d"`, i)
	}
	code, got := b.get(t, "/api/v1/query", "query", `count(up{job="api"`+matchers.String()+`})`, "time", "1700000040")
	if code != http.StatusOK || !strings.Contains(string(got.Data), `"2"`) {
		t.Errorf("%d %.300v", code, got)
	}
}

func nothingIsWritten(t *testing.T, b *bench) {
	for path, why := range map[string]string{
		"admin/tsdb/delete_series?match[]=up": "admin APIs disabled",
		"admin/tsdb/clean_tombstones":         "admin APIs disabled",
		"admin/tsdb/snapshot":                 "admin APIs disabled",
		"write":                               "needs to be enabled",
		"otlp/v1/metrics":                     "needs to be enabled",
	} {
		rec := httptest.NewRecorder()
		b.handler.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/"+path, http.NoBody))
		if rec.Code < 400 || !strings.Contains(rec.Body.String(), why) {
			t.Errorf("%s: %d %s", path, rec.Code, rec.Body)
		}
	}
	if _, got := b.get(t, "/api/v1/query", "query", "count(up)", "time", "1700000040"); !strings.Contains(string(got.Data), `"2"`) {
		t.Errorf("the samples are gone: %s", got.Data)
	}
}

func TestBodiesAreBounded(t *testing.T) {
	b := filled(t, func(c *query.Config) { c.MaxRequestBytes = 1000 })
	post := func(body string, length int64) (int, answer) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/query", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.ContentLength = length
		return b.do(t, r)
	}
	small, large := "time=1700000040&query=up", "query=up&time=1700000040&x="+strings.Repeat("x", 2000)
	if code, got := post(small, int64(len(small))); code != http.StatusOK || !strings.Contains(string(got.Data), "a:1") {
		t.Errorf("a small body: %d %v", code, got)
	}
	if code, got := post(large, int64(len(large))); code != http.StatusRequestEntityTooLarge || got.ErrorType != "bad_data" {
		t.Errorf("a large body: %d %v", code, got)
	}
	if code, got := post(large, -1); code != http.StatusBadRequest || got.ErrorType != "bad_data" {
		t.Errorf("a large body of unknown length: %d %v", code, got)
	}
}

func TestAClosedStoreIsAnError(t *testing.T) {
	b := filled(t, nil)
	if err := b.store.Close(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"query", "series", "labels", "label/job/values", "status/tsdb", "status/tsdb/blocks"} {
		code, got := b.get(t, "/api/v1/"+path, "query", "up", "match[]", "up")
		if code < 400 || got.Status != "error" || !strings.Contains(got.Error, "closed") {
			t.Errorf("%s: %d %+v", path, code, got)
		}
	}
}

// A page of another origin learns nothing.
func noOtherOrigin(t *testing.T, b *bench) {
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/query?query=up", http.NoBody)
	r.Header.Set("Origin", "https://elsewhere.example")
	rec := httptest.NewRecorder()
	b.handler.ServeHTTP(rec, r)
	if got := rec.Header().Get("Access-Control-Allow-Origin"); got != "" || rec.Code != http.StatusOK {
		t.Errorf("%d, allowed origin %q", rec.Code, got)
	}
}

func otherPathsAreNotFound(t *testing.T, b *bench) {
	for _, path := range []string{"/", "/query", "/api/v2/query", "/api/v1/nonsense", "/api/v1"} {
		rec := httptest.NewRecorder()
		b.handler.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody))
		if rec.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, rec.Code)
		}
	}
}

// The version that clients are told is the one that is mounted.
func versionIsThatOfTheModule(t *testing.T, b *bench) {
	mod, err := os.ReadFile("../../../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	_, got := b.get(t, "/api/v1/status/buildinfo")
	major, minor, patch := 0, 0, 0
	if _, err := fmt.Sscanf(string(got.Data), `{"version":"%d.%d.%d"`, &major, &minor, &patch); err != nil {
		t.Fatal(err, string(got.Data))
	}
	if want := fmt.Sprintf("github.com/prometheus/prometheus v0.%d%02d.%d", major, minor, patch); !strings.Contains(string(mod), want+"\n") {
		t.Errorf("go.mod has no %q", want)
	}
}

// What the bound lets through is over in seconds.
func BenchmarkWorstFormat(b *testing.B) {
	bench := newBench(b, func(c *query.Config) { c.Timeout = time.Hour })
	for name, worst := range map[string]string{
		"deep": strings.Repeat("1+", 999) + "1",
		"both": strings.Repeat("(", 300) + `{a="` + strings.Repeat("x", 40_000) + `"}` + strings.Repeat(")", 300),
		"long": strings.Repeat("-(", 30) + `{a="` + strings.Repeat("x", 1_000_000) + `"}` + strings.Repeat(")", 30),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if code, got := bench.get(b, "/api/v1/format_query", "query", worst); code != http.StatusOK {
					b.Fatal(code, got.Error)
				}
			}
		})
	}
}

// Whatever is asked, the answer is the formatted query or that it is wrong.
func FuzzFormatQuery(f *testing.F) {
	for _, seed := range []string{
		"up", `sum by (job) (rate(x{a=~"b|c",d!=""}[5m:1m] @ end() offset -5m)) > bool 1 or vector(1)`,
		"{", "}", "((((", "-up", "1^2^3", `{"a.b"}`, "up[5m][5m:]", "# comment\nup", "\xff", "[[[[", "{(}", `"\u0000"`,
	} {
		f.Add(seed)
	}
	b := newBench(f, nil)
	f.Fuzz(func(t *testing.T, q string) {
		code, got := b.get(t, "/api/v1/format_query", "query", q)
		if code != http.StatusOK && (code != http.StatusBadRequest || got.ErrorType != "bad_data") {
			t.Errorf("%q: %d %+v", q, code, got)
		}
	})
}
