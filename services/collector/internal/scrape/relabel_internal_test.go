package scrape

import (
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	promscrape "github.com/prometheus/prometheus/scrape"
	"pgregory.net/rapid"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// drawRule draws a rule over some labels, that writes values with which a target
// can be pulled.
func drawRule(t *rapid.T) *relabel.Config {
	names := []string{
		"__address__", "__scheme__", "__metrics_path__", "__param_x", "__param_new", "__meta_rollcall_producer_id",
		"__tmp", "job", "instance", "zone", "Mixed", "__scrape_interval__",
	}
	written := []string{"__param_x", "__param_new", "__tmp", "job", "instance", "zone", "Mixed", "other.label"}
	r := relabel.DefaultRelabelConfig
	for _, n := range rapid.SliceOfN(rapid.SampledFrom(names), 0, 3).Draw(t, "sources") {
		r.SourceLabels = append(r.SourceLabels, model.LabelName(n))
	}
	r.Action = rapid.SampledFrom([]relabel.Action{
		relabel.Replace, relabel.Replace, relabel.Replace, relabel.Keep, relabel.Drop, relabel.HashMod, relabel.LabelMap,
		relabel.LabelDrop, relabel.LabelKeep, relabel.Lowercase, relabel.Uppercase, relabel.KeepEqual, relabel.DropEqual,
	}).Draw(t, "action")
	target := rapid.SampledFrom(written).Draw(t, "target")
	switch r.Action {
	case relabel.Replace:
		r.TargetLabel = target
		r.Replacement = rapid.SampledFrom([]string{"$1", "", "x$1y", "a b&c=d", "${2}"}).Draw(t, "replacement")
		r.Regex = relabel.MustNewRegexp(rapid.SampledFrom([]string{"(.*)", "(.+)", "([^:]*):(.*)", "p1", "(.*);(.*)"}).Draw(t, "regex"))
		if rapid.IntRange(0, 3).Draw(t, "where") == 0 {
			to := rapid.SampledFrom([][2]string{
				{"__address__", "other:1"},
				{"__address__", "[::1]:2"},
				{"__address__", ""},
				{"__scheme__", "https"},
				{"__metrics_path__", "/a/b c?d"},
				{"__metrics_path__", "e"},
				{"__address__", "${1}:3"},
			}).Draw(t, "to")
			r.SourceLabels, r.Regex = model.LabelNames{"__address__"}, relabel.MustNewRegexp("([a-z]*):.*")
			r.TargetLabel, r.Replacement = to[0], to[1]
		}
	case relabel.HashMod:
		r.TargetLabel, r.Modulus = target, rapid.Uint64Range(1, 5).Draw(t, "modulus")
	case relabel.Keep, relabel.Drop:
		r.Regex = relabel.MustNewRegexp(rapid.SampledFrom([]string{"node1.*", "", "p1|EU", ".*;.*"}).Draw(t, "regex"))
	case relabel.LabelMap:
		r.SourceLabels = nil
		r.Regex = relabel.MustNewRegexp(rapid.SampledFrom([]string{"__meta_(.*)", "__param_(.*)", "(z.*)", "(job|zone)"}).Draw(t, "regex"))
		r.Replacement = rapid.SampledFrom([]string{"$1", "l_$1", "__param_$1"}).Draw(t, "replacement")
	case relabel.LabelDrop, relabel.LabelKeep:
		r.SourceLabels = nil
		r.Regex = relabel.MustNewRegexp(rapid.SampledFrom([]string{"zone", "__address__", "job|instance", "__param_.*", "__[asm].*|job"}).Draw(t, "regex"))
	default:
		r.TargetLabel = target
	}
	if r.Action == relabel.LabelKeep { // it would take the interval away from Prometheus
		r.Regex = relabel.MustNewRegexp("__.*|job")
	}
	if err := r.Validate(model.UTF8Validation); err != nil {
		t.Fatal(err)
	}
	return &r
}

// Prometheus makes the same of a target and the same rules: its labels and where
// it is asked, or that it is not.
func TestTargetsAreRelabeledAsByPrometheus(t *testing.T) {
	var kept, droppedOnes int
	rapid.Check(t, func(t *rapid.T) {
		rules := make([]*relabel.Config, rapid.IntRange(1, 6).Draw(t, "rules"))
		for i := range rules {
			rules[i] = drawRule(t)
		}
		own := []assignment.Label{{Name: "Mixed", Value: "aBc"}, {Name: "zone", Value: "EU"}}
		discovered := model.LabelSet{"__address__": "node1:9100", metaProducerID: "p1", "Mixed": "aBc", "zone": "EU"}
		if rapid.Bool().Draw(t, "instance") {
			own = slices.Insert(own, 1, assignment.Label{Name: "instance", Value: "mine"})
			discovered["instance"] = "mine"
		}
		a := &assignment.Assignment{
			ProducerID: "p1", Endpoint: "http://node1:9100/metrics?x=1&x=2&y=3", Labels: own,
			Interval: 15 * time.Second, Timeout: 10 * time.Second,
		}
		cfg := &config.ScrapeConfig{
			JobName: defaultJob, Scheme: "http", MetricsPath: "/metrics", Params: url.Values{"x": {"1", "2"}, "y": {"3"}},
			ScrapeInterval: model.Duration(a.Interval), ScrapeTimeout: model.Duration(a.Timeout), RelabelConfigs: rules,
		}
		ours, err := compile(a, &Setup{Targets: rules, Limits: DefaultLimits()})
		set, theirErr := promscrape.PopulateLabels(labels.NewBuilder(labels.EmptyLabels()), cfg, discovered, nil)
		if err != nil || theirErr != nil || set.IsEmpty() {
			droppedOnes++
			if err == nil || theirErr == nil && !set.IsEmpty() {
				t.Fatalf("%v, and of Prometheus %s, %v", err, set, theirErr)
			}
			return
		}
		kept++
		theirs := promscrape.NewTarget(set, cfg, discovered, nil)
		b := labels.NewScratchBuilder(0)
		theirs.LabelsRange(func(l labels.Label) { b.Add(l.Name, l.Value) })
		if want := b.Labels(); !labels.Equal(ours.set, want) {
			t.Fatalf("labels %s, want %s", ours.set, want)
		}
		want := theirs.URL()
		if ours.url.Scheme != want.Scheme || ours.url.Host != want.Host || ours.url.Query().Encode() != want.RawQuery ||
			ours.url.RequestURI() != (&url.URL{Path: "/" + trimSlash(want.Path), RawQuery: ours.url.RawQuery}).RequestURI() {
			t.Fatalf("asks %s, want %s", ours.url, want)
		}
	})
	if kept == 0 || droppedOnes == 0 {
		t.Errorf("%d kept, %d dropped", kept, droppedOnes)
	}
}

func trimSlash(path string) string {
	if path != "" && path[0] == '/' {
		return path[1:]
	}
	return path
}

func TestSameRules(t *testing.T) {
	rule := func(change func(*relabel.Config)) []*relabel.Config {
		r := relabel.DefaultRelabelConfig
		r.Regex, r.SourceLabels = relabel.MustNewRegexp("a"), model.LabelNames{"b"}
		change(&r)
		return []*relabel.Config{&r}
	}
	same := rule(func(*relabel.Config) {})
	if !sameRules(nil, nil) || !sameRules(nil, []*relabel.Config{}) || !sameRules(same, same) ||
		!sameRules(same, rule(func(*relabel.Config) {})) {
		t.Error("the same rules are others")
	}
	for name, change := range map[string]func(*relabel.Config){
		"action":      func(r *relabel.Config) { r.Action = relabel.Keep },
		"source":      func(r *relabel.Config) { r.SourceLabels = model.LabelNames{"c"} },
		"separator":   func(r *relabel.Config) { r.Separator = "," },
		"regex":       func(r *relabel.Config) { r.Regex = relabel.MustNewRegexp("d") },
		"modulus":     func(r *relabel.Config) { r.Modulus = 1 },
		"target":      func(r *relabel.Config) { r.TargetLabel = "e" },
		"replacement": func(r *relabel.Config) { r.Replacement = "f" },
		"scheme":      func(r *relabel.Config) { r.NameValidationScheme = model.LegacyValidation },
	} {
		if sameRules(same, rule(change)) {
			t.Errorf("another %s is the same", name)
		}
	}
	if sameRules(same, nil) || sameRules(same, append(same, same...)) {
		t.Error("more rules are the same")
	}
}

// BenchmarkCompile tells what one Update costs under five rules.
func BenchmarkCompile(b *testing.B) {
	a := &assignment.Assignment{
		ProducerID: "p1", Endpoint: "http://node1:9100/metrics", Interval: 15 * time.Second, Timeout: 10 * time.Second,
		Labels: []assignment.Label{{Name: "job", Value: "node"}, {Name: "zone", Value: "EU"}},
	}
	rule := relabel.DefaultRelabelConfig
	rule.SourceLabels, rule.TargetLabel, rule.NameValidationScheme = model.LabelNames{"zone"}, "region", model.UTF8Validation
	rule.Regex = relabel.MustNewRegexp("(.).*")
	setup := &Setup{Targets: []*relabel.Config{&rule, &rule, &rule, &rule, &rule}, Limits: DefaultLimits()}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := compile(a, setup); err != nil {
			b.Fatal(err)
		}
	}
}
