package query_test

import (
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/query"
)

// targets is a TargetSource that always says the same.
type targets []query.Target

func (t targets) Targets() []query.Target { return append([]query.Target(nil), t...) }

// families is a FamilySource.
type families map[string]metadata.Metadata

func (f families) Family(name string) (metadata.Metadata, bool) {
	m, ok := f[name]
	return m, ok
}

func (f families) Families() iter.Seq2[string, metadata.Metadata] { return maps.All(f) }

func someTargets() targets {
	mustURL := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			panic(err)
		}
		return u
	}
	return targets{
		{
			Labels:   labels.FromStrings("job", "db", "instance", "localhost:9000"),
			URL:      mustURL("grpc://localhost:9000"),
			Interval: time.Second, Timeout: time.Second,
		},
		{
			Labels:   labels.FromStrings("job", "api", "instance", "b:1", "zone", "z"),
			URL:      mustURL("https://user:secret@b:1/metrics?module=x&module=y&z=1"),
			Interval: 15 * time.Second, Timeout: 10 * time.Second,
			LastCollection: time.UnixMilli(start), LastDuration: 1500 * time.Millisecond,
			LastError: "unreachable: connection refused",
		},
		{
			Labels:   labels.FromStrings("job", "api", "instance", "a:1"),
			URL:      mustURL("http://a:1/metrics"),
			Interval: 15 * time.Second, Timeout: 10 * time.Second,
			LastCollection: time.UnixMilli(start), LastDuration: 20 * time.Millisecond,
			Metadata: families{
				"requests_total": {Type: "counter", Help: "Requests.", Unit: "requests"},
				"temperature":    {Type: "gauge", Help: "How warm."},
			},
		},
	}
}

func TestTargets(t *testing.T) {
	b := newBench(t, func(c *query.Config) {
		c.Targets = someTargets()
		c.ExternalURL = &url.URL{Scheme: "https", Host: "collector.example:7481"}
	})
	type target struct {
		DiscoveredLabels   map[string]string `json:"discoveredLabels"`
		Labels             map[string]string `json:"labels"`
		ScrapePool         string            `json:"scrapePool"`
		ScrapeURL          string            `json:"scrapeUrl"`
		GlobalURL          string            `json:"globalUrl"`
		LastError          string            `json:"lastError"`
		LastScrape         time.Time         `json:"lastScrape"`
		LastScrapeDuration float64           `json:"lastScrapeDuration"`
		Health             string            `json:"health"`
		ScrapeInterval     string            `json:"scrapeInterval"`
		ScrapeTimeout      string            `json:"scrapeTimeout"`
	}
	var got struct {
		ActiveTargets       []target       `json:"activeTargets"`
		DroppedTargets      []target       `json:"droppedTargets"`
		DroppedTargetCounts map[string]int `json:"droppedTargetCounts"`
	}
	code, a := b.get(t, "/api/v1/targets")
	if err := json.Unmarshal(a.Data, &got); err != nil || code != http.StatusOK {
		t.Fatal(code, err)
	}
	for i := range got.ActiveTargets { // Prometheus adds its settings to them.
		if got.ActiveTargets[i].DiscoveredLabels["__address__"] == "" {
			t.Errorf("target %d has no address among %v", i, got.ActiveTargets[i].DiscoveredLabels)
		}
		got.ActiveTargets[i].DiscoveredLabels = nil
		got.ActiveTargets[i].LastScrape = got.ActiveTargets[i].LastScrape.UTC()
	}
	then := time.UnixMilli(start).UTC()
	want := []target{
		{
			Labels: map[string]string{"job": "api", "instance": "a:1"}, ScrapePool: "api",
			ScrapeURL: "http://a:1/metrics", GlobalURL: "http://a:1/metrics",
			LastScrape: then, LastScrapeDuration: 0.02, Health: "up", ScrapeInterval: "15s", ScrapeTimeout: "10s",
		},
		{
			Labels: map[string]string{"job": "api", "instance": "b:1", "zone": "z"}, ScrapePool: "api",
			ScrapeURL: "https://b:1/metrics?module=x&module=y&z=1", GlobalURL: "https://b:1/metrics?module=x&module=y&z=1",
			LastError:  "unreachable: connection refused",
			LastScrape: then, LastScrapeDuration: 1.5, Health: "down", ScrapeInterval: "15s", ScrapeTimeout: "10s",
		},
		{
			Labels: map[string]string{"job": "db", "instance": "localhost:9000"}, ScrapePool: "db",
			ScrapeURL: "grpc://localhost:9000", GlobalURL: "grpc://collector.example:9000",
			LastScrape: time.Time{}, Health: "unknown", ScrapeInterval: "1s", ScrapeTimeout: "1s",
		},
	}
	if diff := cmp.Diff(want, got.ActiveTargets); diff != "" {
		t.Errorf("active targets (-want +got):\n%s", diff)
	}
	if len(got.DroppedTargets) != 0 || len(got.DroppedTargetCounts) != 0 {
		t.Errorf("dropped targets: %v, %v", got.DroppedTargets, got.DroppedTargetCounts)
	}

	if code, a := b.get(t, "/api/v1/targets", "scrapePool", "db", "state", "active"); code != http.StatusOK ||
		strings.Count(string(a.Data), `"scrapePool":`) != 1 {
		t.Errorf("one pool: %d %s", code, a.Data)
	}
}

// TestDroppedTargets: what is assigned and not collected is dropped, with the
// reason among its labels.
func TestDroppedTargets(t *testing.T) {
	b := newBench(t, func(c *query.Config) {
		c.Targets = targets{
			{
				Labels: labels.FromStrings("job", "api"), URL: &url.URL{Scheme: "ftp", Host: "a:1"}, Dropped: true,
				Discovered: labels.FromStrings("__meta_rollcall_unrunnable_reason", "scheme ftp"),
			},
			{Labels: labels.FromStrings("job", "api", "instance", "b:1"), Discovered: labels.FromStrings("__meta_rollcall_state", "held")},
		}
	})
	type target struct {
		DiscoveredLabels map[string]string
		ScrapePool       string
	}
	var got struct {
		ActiveTargets, DroppedTargets []target
		DroppedTargetCounts           map[string]int
	}
	code, a := b.get(t, "/api/v1/targets")
	if err := json.Unmarshal(a.Data, &got); err != nil || code != http.StatusOK {
		t.Fatal(code, err)
	}
	if len(got.ActiveTargets) != 1 || got.ActiveTargets[0].DiscoveredLabels["__meta_rollcall_state"] != "held" {
		t.Errorf("active: %v", got.ActiveTargets)
	}
	if len(got.DroppedTargets) != 1 || got.DroppedTargets[0].DiscoveredLabels["__meta_rollcall_unrunnable_reason"] != "scheme ftp" ||
		got.DroppedTargets[0].ScrapePool != "api" || got.DroppedTargetCounts["api"] != 1 {
		t.Errorf("dropped: %v, %v", got.DroppedTargets, got.DroppedTargetCounts)
	}
}

func TestOneTargetWithoutAnything(t *testing.T) {
	b := newBench(t, func(c *query.Config) { c.Targets = targets{{}} })
	if code, a := b.get(t, "/api/v1/targets"); code != http.StatusOK || !strings.Contains(string(a.Data), `"health":"unknown"`) {
		t.Errorf("%d %s", code, a.Data)
	}
	if code, a := b.get(t, "/api/v1/metadata"); code != http.StatusOK || string(a.Data) != "{}" {
		t.Errorf("%d %s", code, a.Data)
	}
}

// There is no scrape configuration, and no pretence of one.
func scrapeConfigurationsAreRefused(t *testing.T, b *bench) {
	for _, path := range []string{"scrape_pools/config", "targets/relabel_steps"} {
		code, a := b.get(t, "/api/v1/"+path, "scrapePool", "api", "labels", "{}")
		if code != http.StatusBadRequest || a.ErrorType != "bad_data" || !strings.Contains(a.Error, "registry") {
			t.Errorf("%s: %d %+v", path, code, a)
		}
	}
}

// BenchmarkTargets is what 100,000 producers cost whoever asks for all of them.
func BenchmarkTargets(b *testing.B) {
	many := make(targets, 100_000)
	for i := range many {
		host := fmt.Sprintf("10.0.%d.%d:9090", i/256, i%256)
		many[i] = query.Target{
			Labels:         labels.FromStrings("job", "api", "instance", host),
			URL:            &url.URL{Scheme: "http", Host: host, Path: "/metrics"},
			Interval:       10 * time.Second,
			Timeout:        10 * time.Second,
			LastCollection: time.UnixMilli(start),
		}
	}
	bench := newBench(b, func(c *query.Config) { c.Targets = many })
	b.ReportAllocs()
	for b.Loop() {
		if code, _ := bench.get(b, "/api/v1/targets"); code != http.StatusOK {
			b.Fatal(code)
		}
	}
}
