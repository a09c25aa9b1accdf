package query_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/query"
)

// TestGrafana asks, over a real connection, what Grafana's Prometheus data source
// asks: forms by POST, label values by GET, and the server's version.
func TestGrafana(t *testing.T) {
	b := filled(t, func(c *query.Config) { c.Targets = someTargets() })
	server := httptest.NewServer(b.handler)
	defer server.Close()
	const begin, last = "1700000000", "1700000040"
	form := func(pairs ...string) url.Values {
		values := url.Values{}
		for i := 0; i < len(pairs); i += 2 {
			values.Add(pairs[i], pairs[i+1])
		}
		return values
	}
	tests := []struct {
		name, method, path string
		values             url.Values
		want               string // in the data
		warning            string
	}{
		{"test of the data source", http.MethodPost, "query", form("query", "1+1", "time", last), `"2"`, ""},
		{"version", http.MethodGet, "status/buildinfo", nil, `"version":"` + "3.", ""},
		{"instant", http.MethodPost, "query", form("query", `sum by(job) (up)`, "time", last), `{"job":"api"},"value":[1700000040,"1"]`, ""},
		{"range", http.MethodPost, "query_range", form("query", "up", "start", begin, "end", last, "step", "15", "timeout", "30s"), `"resultType":"matrix"`, ""},
		{"labels", http.MethodPost, "labels", form("start", begin, "end", last), `["__name__","instance","job"]`, ""},
		{"labels of a metric", http.MethodPost, "labels", form("match[]", "up", "start", begin, "end", last, "limit", "40000"), `["__name__","instance","job"]`, ""},
		{"some labels", http.MethodPost, "labels", form("limit", "2"), `["__name__","instance"]`, "truncated"},
		{"labels by GET", http.MethodGet, "labels", form("start", begin, "end", last), `["__name__","instance","job"]`, ""},
		{"metric names", http.MethodGet, "label/__name__/values", form("start", begin, "end", last), `["requests_total","up"]`, ""},
		{"label values", http.MethodGet, "label/instance/values", form("match[]", `up{job="api"}`, "start", begin, "end", last, "limit", "10"), `["a:1","b:1"]`, ""},
		{"some label values", http.MethodGet, "label/instance/values", form("limit", "1"), `["a:1"]`, "truncated"},
		{"series", http.MethodPost, "series", form("match[]", "up", "start", begin, "end", last), `"instance":"b:1"`, ""},
		{"some series", http.MethodPost, "series", form("match[]", "up", "match[]", "requests_total", "limit", "1"), `"requests_total"`, "truncated"},
		{"some of an instant", http.MethodPost, "query", form("query", "up", "time", last, "limit", "1"), `"a:1"`, "truncated"},
		{"exemplars", http.MethodPost, "query_exemplars", form("query", "requests_total", "start", begin, "end", last), `"trace_id":"abc"`, ""},
		{"metadata", http.MethodGet, "metadata", form("limit", "100", "limit_per_metric", "1"), `"temperature"`, ""},
		{"metadata of a metric", http.MethodGet, "metadata", form("metric", "temperature"), `"How warm."`, ""},
		{"rules", http.MethodGet, "rules", nil, `{"groups":[]}`, ""},
		{"alerts", http.MethodGet, "alerts", nil, `{"alerts":[]}`, ""},
		{"format", http.MethodPost, "format_query", form("query", "up>1"), `up \u003e 1`, ""},
		{"parse", http.MethodPost, "parse_query", form("query", "up"), `vectorSelector`, ""},
		{"targets", http.MethodGet, "targets", form("state", "any"), `"health":"down"`, ""},
		{"flags", http.MethodGet, "status/flags", nil, `query.timeout`, ""},
		{"runtime", http.MethodGet, "status/runtimeinfo", nil, `"reloadConfigSuccess":true`, ""},
		{"cardinality", http.MethodGet, "status/tsdb", form("limit", "5"), `"seriesCountByMetricName":[{"name":"up","value":2}`, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			target, body := server.URL+"/api/v1/"+test.path, io.Reader(http.NoBody)
			if test.method == http.MethodPost {
				body = strings.NewReader(test.values.Encode())
			} else {
				target += "?" + test.values.Encode()
			}
			r, err := http.NewRequestWithContext(t.Context(), test.method, target, body)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			resp, err := server.Client().Do(r) // Which asks for gzip, as Grafana does.
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var got answer
			if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != http.StatusOK || got.Status != "success" || !strings.Contains(string(got.Data), test.want) ||
				!strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
				t.Errorf("%d %s: %s %s, want %s", resp.StatusCode, resp.Header.Get("Content-Type"), got.Data, got.Error, test.want)
			}
			if all := strings.Join(got.Warnings, "\n"); !strings.Contains(all, test.warning) || test.warning == "" && all != "" {
				t.Errorf("warnings %q, want %q", got.Warnings, test.warning)
			}
		})
	}
}
