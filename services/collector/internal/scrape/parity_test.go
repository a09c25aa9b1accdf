package scrape_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

// parityScript is one producer's life: each answer is what vanished, came,
// changed or broke since the one before.
var parityScript = []page{
	{contentType: "text/plain; version=0.0.4", body: `# HELP http_requests_total Requests.
# TYPE http_requests_total counter
http_requests_total{method="get",code="200"} 10
http_requests_total{method="post",code="200"} 3
# TYPE latency_seconds histogram
latency_seconds_bucket{le="0.5"} 1
latency_seconds_bucket{le="1"} 2
latency_seconds_bucket{le="+Inf"} 3
latency_seconds_sum 2.5
latency_seconds_count 3
# TYPE quantiles summary
quantiles{quantile="0"} 1
quantiles{quantile="0.99"} 2
quantiles_sum 3
quantiles_count 4
up{job="pretends"} 1
clash{job="x",instance="y",exported_job="z"} 1
empty{a="",b="c"} NaN
escaped{a="q\"b\\n\nx"} +Inf
old 1 1000
{"utf8.name","label name"="v"} 7
`},
	{contentType: "text/plain; version=0.0.4", body: `# TYPE http_requests_total counter
http_requests_total{code="200",method="get"} 11
http_requests_total{method="post",code="200"} 4
latency_seconds_bucket{le="0.5"} 1
twice 1
twice 2
empty{b="c"} 5
old 2 2000
stamped 1
far 1 99999999999999
`},
	{status: 503},
	{contentType: "text/plain; version=0.0.4", body: "http_requests_total{method=\"get\",code=\"200\"} 12\nstamped 2 3000\nempty{b=\"c\"} 6\n"},
	{contentType: "text/plain; version=0.0.4", body: "http_requests_total{method=\"get\",code=\"200\"} 13\nbroken{\n"},
	{contentType: "application/openmetrics-text; version=1.0.0", body: `# TYPE http_requests counter
# HELP http_requests Requests.
http_requests_total{method="get",code="200"} 14 # {trace_id="x"} 1
# TYPE latency_seconds histogram
# UNIT latency_seconds seconds
latency_seconds_bucket{le="1"} 1
latency_seconds_bucket{le="+Inf"} 2
latency_seconds_created 5
old 3 3.5
# EOF
`},
	{contentType: "application/openmetrics-text; version=1.0.0", body: "http_requests_total{method=\"get\",code=\"200\"} 15\n"}, // no EOF
	{contentType: "application/openmetrics-text; version=1.0.0", body: ""},
	{contentType: "text/plain", body: "http_requests_total{method=\"get\",code=\"200\"} 16"},
	{contentType: "text/plain", body: "last 1\n"},
}

// formatsScript is a producer that is of every format in turn, compressed in every
// way, and fails in every way.
var formatsScript = []page{
	{contentType: protobuf, encoding: "gzip", body: nativeFamilies(1)},
	{contentType: protobuf, encoding: "zstd", body: nativeFamilies(2)},
	{contentType: protobuf, fault: faultCut, body: nativeFamilies(3)},
	{contentType: protobuf, encoding: "zstd", body: nativeFamilies(4)},
	{contentType: protobuf, fault: faultHang},
	{contentType: protobuf, body: messages(`name: "n" type: GAUGE metric { gauge { value: 1 } }`, `name: "to_native" type: GAUGE metric { gauge { value: 1 } }`)},
	{contentType: protobuf, body: messages(`name: "to_native" type: HISTOGRAM metric { histogram { ` + native(7) + ` } }`)},
	{contentType: protobuf, body: ""},
	{contentType: protobuf, body: "\x03abc"},
	{contentType: protobuf, body: messages(`name: "n" type: HISTOGRAM metric { histogram { sample_count: 77 positive_span { length: 1 } positive_delta: 1 } }`)},
	{contentType: "text/plain; version=1.0.0; escaping=allow-utf-8", encoding: "zstd", body: `# TYPE "of.utf8" gauge
{"of.utf8","a.b"="c"} 1
# TYPE h histogram
h_bucket{le="1"} 1
h_bucket{le="+Inf"} 2
h_sum 3
h_count 2
n 5
`},
	{contentType: "application/openmetrics-text; version=0.0.1", encoding: "gzip", body: `# TYPE c counter
c_total 1 # {id="a"} 0.5 946684930.5
c_created 946684800
# TYPE h histogram
h_bucket{le="1.0"} 2 # {id="b"} 0.7
h_bucket{le="+Inf"} 3
h_sum 3
h_count 3
# TYPE gh gaugehistogram
gh_bucket{le="+Inf"} 1
gh_gcount 1
gh_gsum 2
# TYPE i info
i_info{version="1"} 1
# TYPE s stateset
s{s="a"} 1
# EOF
`},
	{contentType: "text/plain", encoding: "gzip", fault: faultCut, body: "c_total 2\n"},
	{contentType: "text/plain", encoding: "zstd", body: strings.Repeat("#\n", parityBody)},
	{contentType: "text/plain", body: "# HELP c_total " + strings.Repeat("x", 1000) + "\nc_total 3\n"},
	{contentType: "text/plain", body: numbered(paritySamples + 1)},
	{contentType: "text/html", body: "fallback 1\n"},
	{contentType: "text/plain", body: "last 1\n"},
	{contentType: "text/plain", body: "last 1\n"},
}

// nativeFamilies has every type that protobuf has, of the given scale.
func nativeFamilies(n int) string {
	exemplars := fmt.Sprintf(` exemplars { label { name: "id" value: "late%d" } value: 2 timestamp { seconds: %d } }
		exemplars { label { name: "id" value: "early%d" } value: 1 timestamp { seconds: %d nanos: 1000000 } }
		exemplars { label { name: "id" value: "no time" } value: 1 }
		exemplars { label { name: "id" value: "last" } value: 1 timestamp { seconds: %d } }`, n, 946684800+n*15, n, 946684790+n*15, 946684801+n*15)
	const classic = ` bucket { cumulative_count: 1 upper_bound: 0.5 } bucket { cumulative_count: 2 upper_bound: 2 exemplar { label { name: "id" value: "b" } value: 1 } }`
	return messages(
		fmt.Sprintf(`name: "c_total" help: "Help." type: COUNTER unit: "u" metric { counter { value: %d created_timestamp { seconds: 946684800 }
			exemplar { label { name: "id" value: "c%d" } value: 0.5 } } }
			metric { label { name: "job" value: "own" } counter { value: 1 } timestamp_ms: %d }`, n, n, 946684800000+n*15000-7),
		fmt.Sprintf(`name: "u" type: UNTYPED metric { untyped { value: %d } }`, n),
		fmt.Sprintf(`name: "q" type: SUMMARY metric { summary { sample_count: %d sample_sum: 3 quantile { quantile: 0.5 value: 9 } quantile { quantile: 1 value: nan } } }
			metric { label { name: "a" value: "" } label { name: "instance" value: "i" } summary { sample_count: 2 sample_sum: 3 } }`, n),
		`name: "h" help: "H." type: HISTOGRAM metric { histogram { sample_count: 2 sample_sum: 3`+classic+` } }`,
		`name: "hf" type: GAUGE_HISTOGRAM metric { histogram { sample_count_float: 2.5 sample_sum: 3 bucket { cumulative_count_float: 1.5 upper_bound: inf } } }`,
		fmt.Sprintf(`name: "n" help: "N." type: HISTOGRAM metric { histogram { %s %s %s } } metric { label { name: "x" value: "2" } histogram { %s } timestamp_ms: %d }`,
			native(n), classic, exemplars, native(5-n), 946684800000+n*15000-7),
		fmt.Sprintf(`name: "second" type: HISTOGRAM metric { histogram { %s %s } } metric { label { name: "x" value: "2" } histogram { %s %s } }`,
			native(n), exemplars, native(n), exemplars),
		fmt.Sprintf(`name: "f" type: HISTOGRAM metric { histogram { sample_count_float: %d.5 zero_count_float: 1.5 sample_sum: 2 schema: -1 positive_span { offset: %d length: 1 } positive_count: %d } }`, n, n, n),
		`name: "gn" type: GAUGE_HISTOGRAM metric { histogram { `+native(9-n)+` } }`,
		`name: "none" type: HISTOGRAM metric { histogram { positive_span { } } }`,
	)
}

// A difference is one that is meant: in what has a key with that part, theirs
// takes the place of ours, "" is nothing and "*" all there is.
type difference struct{ part, ours, theirs, why string }

// deliberate are the differences that are meant, by script.
var deliberate = map[string][]difference{
	"life": {
		{`code="200", instance="node1:9100", job="node", method="get"`, "step 4: stale", "", forgets},
		{`code="200", instance="node1:9100", job="node", method="get"`, "step 6: stale", "step 7: stale", forgets},
		{`"scrape_series_added"`, "step 3: 0", "step 3: 1", spelled},
	},
	"formats": {
		{`"scrape_samples_post_metric_relabeling"`, "step 9: 1", "step 9: 0", "Prometheus does not count the sample at which the exposition was refused"},
		{`"scrape_series_added"`, "step 11: 7", "step 11: 8", spelled},
		{`"scrape_series_added"`, "step 15: 0", "step 15: 100", refused},
		{`__name__="a", i="`, "", "step 16: stale", refused},
		{`exemplars of {__name__="second", instance="node1:9100", job="node", x="2"`, "*", "", "Prometheus v0.315.0 loses the exemplars of all native histograms of a family but the first"},
		{"n", `gauge "" ""`, `histogram "" ""`, "Prometheus keeps what a refused exposition told of a family"},
		{"f", "*", "", longer},
		{"gn", "*", "", longer},
		{"hf", "*", "", longer},
		{"none", "*", "", longer},
		{"q", "*", "", longer},
		{"second", "*", "", longer},
		{"to_native", "*", "", longer},
		{"u", "*", "", longer},
	},
}

const (
	forgets = "Prometheus forgets the marker of a series that stood before the fault of a malformed exposition, and gives it one at the next empty answer"
	spelled = "Prometheus counts a series as new when it is merely written otherwise"
	refused = "Prometheus counts the series of an exposition that is refused for their number, and marks them stale though they were never stored"
	longer  = "Prometheus forgets a family after 10 collections, and this collector after 10 to 20"
)

// A comparison compares the two sides of one life.
type comparison struct {
	meant []difference
	used  map[difference]bool

	// respelled are the steps at which the format is another one: what Prometheus
	// has as new there says nothing.
	respelled []string
}

// expected is what Prometheus is expected to have where ours is here.
func (c *comparison) expected(key string, ours []string) []string {
	ours = slices.Clone(ours)
	for _, d := range c.meant {
		// The key of a family is its name, that of a series has braces.
		if key != d.part && (!strings.Contains(d.part, `"`) || !strings.Contains(key, d.part)) {
			continue
		}
		switch i := slices.Index(ours, d.ours); {
		case d.ours == "*" && len(ours) > 0:
			ours = nil
		case d.ours == "" && !slices.Contains(ours, d.theirs):
			ours = append(ours, d.theirs)
		case i < 0:
			continue
		case d.theirs == "":
			ours = slices.Delete(ours, i, i+1)
		default:
			ours[i] = d.theirs
		}
		c.used[d] = true
	}
	return ours
}

// diff tells what is not the same on both sides, and not meant.
func (c *comparison) diff(ours, theirs map[string][]string) (all []string) {
	names := maps.Clone(ours)
	maps.Copy(names, theirs)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		expected, got := c.expected(name, ours[name]), theirs[name]
		if strings.Contains(name, `"scrape_series_added"`) {
			expected, got = c.comparable(expected), c.comparable(got)
		}
		if !slices.Equal(expected, got) {
			all = append(all, fmt.Sprintf("%s\n  Rollcall   %q\n  Prometheus %q", name, ours[name], theirs[name]))
		}
	}
	return all
}

func (c *comparison) comparable(samples []string) []string {
	return slices.DeleteFunc(slices.Clone(samples), func(s string) bool {
		return slices.ContainsFunc(c.respelled, func(step string) bool { return strings.HasPrefix(s, step) })
	})
}

// all tells everything that is not the same.
func (c *comparison) all(ours, theirs record) []string {
	return slices.Concat(c.diff(ours.samples, theirs.samples), c.diff(ours.exemplars, theirs.exemplars), c.diff(ours.metadata, theirs.metadata))
}

// TestParityWithPrometheus lets Prometheus's own scrape loop and this one pull
// the same script into two stores, and compares the stores.
func TestParityWithPrometheus(t *testing.T) {
	for name, script := range map[string][]page{"life": parityScript, "formats": formatsScript} {
		for _, l := range []life{{}, {honorLabels: true}, {ignoreTimestamps: true}} {
			l.pages = script
			t.Run(fmt.Sprintf("%s, honor_labels %v, honor_timestamps %v", name, l.honorLabels, !l.ignoreTimestamps), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ours, theirs := l.live(t)
					if len(theirs.samples) < 20 {
						t.Fatalf("Prometheus has only %d series", len(theirs.samples))
					}
					c := comparison{meant: deliberate[name], used: map[difference]bool{}}
					if name == "life" { // Among these, a sample that has a time stamp in one of the two cases.
						added := difference{`"scrape_series_added"`, "step 1: 3", "step 1: 4", spelled}
						if l.ignoreTimestamps {
							added.theirs = "step 1: 5"
						}
						c.meant = append(slices.Clone(c.meant), added)
					}
					for _, d := range c.all(ours, theirs) {
						t.Error(d)
					}
					for _, d := range c.meant {
						if !c.used[d] {
							t.Errorf("the difference %+v is none", d)
						}
					}
				})
			})
		}
	}
}
