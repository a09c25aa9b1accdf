package scrape_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/prometheus/prometheus/model/metadata"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/scrape"
)

func TestExemplars(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := scrape.NewMetrics()
		r := newRig(t, func(cfg *scrape.Config) { cfg.Metrics = m })
		r.typed(openMetrics, "# TYPE a counter\n"+
			"a_total{x=\"1\"} 1 # {trace_id=\"t1\"} 0.5 1.5\n"+
			"a_total{x=\"2\"} 1 # {trace_id=\"t2\"} 0.7\n"+
			"a_total{x=\"3\"} 1\n"+
			"a_total{x=\"4\"} 1 # {trace_id=\""+strings.Repeat("x", 121)+"\"} 1\n"+
			"a_total{x=\"5\"} 1 # {a=\"1\",a=\"2\"} 1\n"+
			"a_total{x=\"6\"} 1 # {a=\"1\"} 1 1e12\n"+
			"# EOF\n")
		samples, at, _ := r.collect(r.open(producer()))
		got := map[string]string{}
		for _, s := range samples {
			if s.Extra != nil {
				e := s.Extra.Exemplars[0]
				got[s.Series.Labels().Get("x")] = fmt.Sprint(e.Labels, e.Value, e.Ts, e.HasTs)
			}
		}
		want := map[string]string{
			"1": `{trace_id="t1"} 0.5 1500 true`,
			"2": fmt.Sprintf(`{trace_id="t2"} 0.7 %d false`, at.UnixMilli()),
		}
		if !maps.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if got := metric(t, m, "rollcall_collector_scrape_skipped_exemplars_total", ""); got != 3 {
			t.Errorf("%v skipped, want 3", got)
		}
	})
}

func TestMetadata(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.typed(openMetrics, "# HELP a Help \\\"a\\\".\n# TYPE a counter\na_total 1\na_created 2\n"+
			"# TYPE h histogram\n# UNIT h_seconds seconds\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\nh_other 1\nlone 1\n# EOF\n")
		c := r.open(producer())
		first, _, _ := r.collect(c)
		meta := func(samples []sample.Sample) map[string]string {
			all := map[string]string{}
			for _, s := range samples {
				name := s.Series.Labels().Get("__name__")
				if m := s.Series.Meta; m != nil && !strings.HasPrefix(name, "scrape_") && name != "up" {
					all[name] = fmt.Sprint(m.Type, "|", m.Unit, "|", m.Help)
				}
			}
			return all
		}
		// UNIT of h_seconds opens a family of its own.
		want := map[string]string{"a_total": `counter||Help "a".`}
		if got := meta(first); !maps.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}

		// Other words: other Series, and nothing stale.
		r.typed(openMetrics, "# HELP a More.\n# TYPE a counter\na_total 1\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\nh_other 1\nlone 1\n# EOF\n")
		second, at, _ := r.collect(c)
		want = map[string]string{"a_total": "counter||More.", "h_bucket": "histogram||", "h_sum": "histogram||", "h_count": "histogram||"}
		if got := meta(second); !maps.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if got := exposed(second, at); slices.ContainsFunc(got, func(l string) bool {
			return strings.HasSuffix(l, "stale") && !strings.Contains(l, "a_created")
		}) {
			t.Errorf("stale: %q", got)
		}
		for _, s := range first {
			if s.Series.Labels().Get("__name__") == "a_total" && s.Series.Meta.Help != `Help "a".` {
				t.Error("a Series that was handed out has changed")
			}
		}

		// A failed exposition tells nothing of families.
		before := listMetadata(t, r)
		r.typed(openMetrics, "# HELP a Wrong.\n# TYPE b gauge\nb 1\n")
		r.collect(c)
		if after := listMetadata(t, r); !maps.Equal(before, after) {
			t.Errorf("got %v, want %v", after, before)
		}

		// Families that are not told any more are forgotten.
		r.typed(openMetrics, "# TYPE z gauge\nz 1\n# EOF\n")
		for range 30 {
			r.good(c)
		}
		if got := listMetadata(t, r); len(got) != 1 || got["z"].Type != "gauge" {
			t.Errorf("got %v, want z", got)
		}
	})
}

func listMetadata(t *testing.T, r *rig) map[string]metadata.Metadata {
	t.Helper()
	c, ok := r.scraper.Find("p1")
	if !ok {
		t.Fatal("not found")
	}
	return maps.Collect(c.Metadata())
}
