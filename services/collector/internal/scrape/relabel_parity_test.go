package scrape_test

import (
	"encoding/json"
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
	{contentType: protobuf, body: messages(
		`name: "requests_total" type: COUNTER metric { label { name: "code" value: "200" } label { name: "method" value: "get" } counter { value: 11 exemplar { label { name: "id" value: "e" } value: 1 } } }`,
		`name: "go_native" type: HISTOGRAM metric { label { name: "a" value: "x" } histogram { `+native(1)+` } }`,
		`name: "native" type: HISTOGRAM metric { label { name: "a" value: "x" } histogram { `+native(2)+` } } metric { label { name: "zone" value: "eu" } histogram { `+native(3)+` } }`,
	)},
	{contentType: text, body: `requests_total{method="get",code="404"} 2
`},
}

// seriesRules are lists that use each action.
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

// drawSeriesRules draws a list of rules. They leave a name: of an exposition that
// is refused midway, Prometheus marks series stale that it never stored.
func drawSeriesRules(t *rapid.T) string {
	names := []string{"__name__", "method", "code", "zone", "a", "b", "job", "instance", "exported_job", "tmp"}
	name, other := rapid.SampledFrom(names), rapid.SampledFrom(names[1:])
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
			rule["replacement"] = rapid.SampledFrom([]string{"n_$1", "fixed", "$1", ""}).Draw(t, "replacement")
			if rule["target_label"] == names[0] {
				rule["replacement"] = "n_$1"
			}
		case "keep", "drop":
			rule["source_labels"], rule["regex"] = sources, regex
		case "hashmod":
			rule["source_labels"], rule["target_label"], rule["modulus"] = sources, name.Draw(t, "target"), 2
		case "labelmap":
			rule["regex"], rule["replacement"] = rapid.SampledFrom([]string{"(.o.*)", "(a|b)"}).Draw(t, "regex"), "l_$1"
		case "labeldrop":
			rule["regex"] = rapid.SampledFrom([]string{"a|b", "code", "zone|method", "job|instance"}).Draw(t, "regex")
		default:
			rule["source_labels"], rule["target_label"] = sources, other.Draw(t, "target")
		}
		list = append(list, rule)
	}
	b, err := json.Marshal(list) // which is YAML
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// differ are the differences between what Prometheus and this scraper store of a
// producer under the same rules.
func differ(t *testing.T, honorLabels bool, list string) []string {
	l := life{pages: relabelScript, honorLabels: honorLabels, relabel: list}
	// Prometheus counts a series as new for each way of writing it, and in a
	// collection that fails: at no step is that compared.
	c := comparison{used: map[difference]bool{}, respelled: []string{"step "}}
	ours, theirs := l.live(t)
	return append(c.diff(ours.samples, theirs.samples), c.diff(ours.exemplars, theirs.exemplars)...)
}

// Prometheus stores the same series of the same producer and the same rules.
func TestSeriesAreRelabeledAsByPrometheus(t *testing.T) {
	for name, list := range seriesRules {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, d := range differ(t, false, list) {
					t.Error(d)
				}
			})
		})
	}
}

func TestSeriesAreRelabeledAsByPrometheusAtRandom(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		honor, list := rapid.Bool().Draw(rt, "honor labels"), drawSeriesRules(rt)
		var differences []string
		synctest.Test(t, func(t *testing.T) { differences = differ(t, honor, list) })
		if differences != nil {
			rt.Fatalf("%s\n%s", list, strings.Join(differences, "\n"))
		}
	})
}
