package scrape_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"
)

const text = "text/plain; version=0.0.4"

// relabelScript is a producer whose series come, go, change their order, and
// fail to come, without what Prometheus and Rollcall store differently.
var relabelScript = []page{
	{contentType: text, body: "# TYPE requests_total counter\n" +
		`requests_total{method="get",code="200"} 1
requests_total{method="get",code="404"} 2
requests_total{method="POST",code="200"} 3
go_threads 4
Temp{job="other",instance="else",zone="EU"} 5
temp{zone="eu"} 6
same{a="x",b="x"} 7
same{a="x",b="y"} 8
`},
	{contentType: text, body: `temp{zone="eu"} 6
requests_total{method="get",code="200"} 10
requests_total{method="get",code="500"} 11
go_threads 4
go_new{a="x"} 5
same{a="x",b="y"} 8
`},
	{contentType: text, body: `temp{zone="eu"} 6
requests_total{method="get",code="200"} 10
go_threads 4
same{a="x",b="x"} 9
`},
	{status: 503},
	{contentType: text, body: `temp{zone="eu"} 6
requests_total{method="get",code="200"} 10
go_threads 4
`},
	{contentType: text, body: `requests_total{method="get",code="404"} 2
`},
}

// seriesRules are the lists of rules that the parity is shown for, beside those
// that are drawn.
var seriesRules = map[string]string{
	"drop":          `[{action: drop, source_labels: [__name__], regex: 'go_.*'}]`,
	"keep":          `[{action: keep, source_labels: [method, code], regex: 'get;2..'}]`,
	"name":          `[{source_labels: [__name__], regex: '(.*)_total', target_label: __name__, replacement: 'http_$1'}]`,
	"merging":       `[{action: labeldrop, regex: code}]`,
	"labelmap":      `[{action: labelmap, regex: '(me|zo)(.*)', replacement: '${1}_$2'}]`,
	"labelkeep":     `[{action: labelkeep, regex: '__name__|code|job'}]`,
	"nothing left":  `[{action: labelkeep, regex: none}]`,
	"no name":       `[{source_labels: [code], regex: '404', target_label: __name__, replacement: ''}]`,
	"hashmod":       `[{action: hashmod, source_labels: [__name__, code], modulus: 2, target_label: shard}, {action: keep, source_labels: [shard], regex: '1'}]`,
	"case":          `[{action: lowercase, source_labels: [method], target_label: method}, {action: uppercase, source_labels: [zone], target_label: zone}]`,
	"equal":         `[{action: dropequal, source_labels: [a], target_label: b}]`,
	"keep equal":    `[{action: keepequal, source_labels: [a], target_label: b}]`,
	"whose it is":   `[{target_label: instance, replacement: 'me'}, {source_labels: [exported_job], regex: '(.+)', target_label: job}]`,
	"utf-8":         `[{source_labels: [code], regex: '(.+)', target_label: 'http.code'}, {target_label: __name__, source_labels: [__name__], replacement: 'a.$1'}]`,
	"reserved ones": `[{target_label: __tmp, source_labels: [code]}, {source_labels: [__tmp], target_label: kept}]`,
}

// drawSeriesRules draws a list of rules.
func drawSeriesRules(t *rapid.T) string {
	names := []string{"__name__", "method", "code", "zone", "a", "b", "job", "instance", "exported_job", "tmp"}
	name := rapid.SampledFrom(names)
	var list []map[string]any
	for range rapid.IntRange(1, 5).Draw(t, "rules") {
		rule := map[string]any{}
		sources := rapid.SliceOfN(name, 1, 3).Draw(t, "sources")
		regex := rapid.SampledFrom([]string{"(.*)", "(.+)", "get.*", "(.).*", "go_(.*)", "x.*|200", "eu|EU", "", ".*total.*"}).Draw(t, "regex")
		action := rapid.SampledFrom([]string{
			"replace", "replace", "replace", "keep", "drop", "drop", "hashmod", "labelmap", "labeldrop", "lowercase", "uppercase",
			"keepequal", "dropequal",
		}).Draw(t, "action")
		rule["action"] = action
		switch action {
		case "replace":
			rule["source_labels"], rule["regex"], rule["target_label"] = sources, regex, name.Draw(t, "target")
			rule["replacement"] = rapid.SampledFrom([]string{"$1", "n_$1", "", "fixed"}).Draw(t, "replacement")
		case "keep", "drop":
			rule["source_labels"], rule["regex"] = sources, regex
		case "hashmod":
			rule["source_labels"], rule["target_label"], rule["modulus"] = sources, name.Draw(t, "target"), 2
		case "labelmap":
			rule["regex"], rule["replacement"] = rapid.SampledFrom([]string{"(.o.*)", "(a|b)"}).Draw(t, "regex"), "l_$1"
		case "labeldrop":
			rule["regex"] = rapid.SampledFrom([]string{"a|b", "code", "zone|method", "job|instance", "__.*"}).Draw(t, "regex")
		default:
			rule["source_labels"], rule["target_label"] = sources, name.Draw(t, "target")
		}
		list = append(list, rule)
	}
	b, err := json.Marshal(list) // which is YAML
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestSeriesAreRelabeledAsByPrometheus: Prometheus stores the same series of the
// same script and the same rules.
func TestSeriesAreRelabeledAsByPrometheus(t *testing.T) {
	lists := maps.Clone(seriesRules)
	drawn := rapid.Custom(drawSeriesRules)
	count := 25
	if testing.Short() {
		count = 5
	}
	for i := range count {
		lists[fmt.Sprint("drawn ", i)] = drawn.Example(i)
	}
	for name, list := range lists {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := life{pages: relabelScript, relabel: list}
				ours, theirs := l.live(t)
				for _, side := range []record{ours, theirs} {
					// Prometheus counts a series as new for each way of writing it, and
					// in a collection that fails.
					maps.DeleteFunc(side.samples, func(name string, _ []string) bool {
						return strings.Contains(name, `"scrape_series_added"`)
					})
				}
				c := comparison{used: map[difference]bool{}}
				for _, d := range c.diff(ours.samples, theirs.samples) {
					t.Errorf("with %s: %s", list, d)
				}
			})
		})
	}
}
