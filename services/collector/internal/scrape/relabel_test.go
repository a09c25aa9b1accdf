package scrape_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/model/value"
	"go.yaml.in/yaml/v2"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/scrape"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// rules reads rules as they stand in a configuration.
func rules(t testing.TB, text string) []*relabel.Config {
	t.Helper()
	var all []*relabel.Config
	if err := yaml.UnmarshalStrict([]byte(text), &all); err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if err := r.Validate(model.UTF8Validation); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func TestTargetsAreRelabeled(t *testing.T) {
	const node1 = `{instance="node1:9100", job="node"}`
	for name, test := range map[string]struct {
		rules    string
		endpoint string
		host     string // "" for one that is dropped or refused
		uri      string
		labels   string
		err      string
	}{
		"nothing changed": {
			rules: `[{action: drop, source_labels: [job], regex: other}]`, endpoint: "http://node1:9100/a%2Fb?b=2&a=1&c",
			host: "node1:9100", uri: "/a%2Fb?b=2&a=1&c", labels: node1,
		},
		"a default port": {
			rules: `[{action: keep, source_labels: [__address__], regex: node1}]`, endpoint: "http://node1/metrics",
			host: "node1", uri: "/metrics", labels: `{instance="node1:80", job="node"}`,
		},
		"dropped":  {rules: `[{action: drop, source_labels: [job], regex: node}]`, err: "dropped by relabel_configs"},
		"not kept": {rules: `[{action: keep, source_labels: [__meta_rollcall_producer_id], regex: p2}]`, err: "dropped by relabel_configs"},
		"address": {
			rules: `[{source_labels: [__address__], regex: '(.*):.*', target_label: __address__, replacement: '$1:1'}]`,
			host:  "node1:1", uri: "/metrics?x=1", labels: `{instance="node1:1", job="node"}`,
		},
		"address through a proxy": {
			rules: `[{source_labels: [__address__], target_label: __param_target}, {source_labels: [__param_target], target_label: instance}, {target_label: __address__, replacement: 'probe:9115'}]`,
			host:  "probe:9115", uri: "/metrics?target=node1%3A9100&x=1", labels: node1,
		},
		"path and parameter": {
			rules: `[{target_label: __metrics_path__, replacement: '/p q?r#s'}, {target_label: __param_x, replacement: '2&3'}]`,
			host:  "node1:9100", uri: "/p%20q%3Fr%23s?x=2%263", labels: node1,
		},
		"a parameter is not taken away": {
			rules: `[{action: labeldrop, regex: '__param_.*'}]`, host: "node1:9100", uri: "/metrics?x=1", labels: node1,
		},
		"labels": {
			rules: `[{target_label: job, replacement: ''}, {source_labels: [__scrape_interval__, __scrape_timeout__, __scheme__, __metrics_path__, __param_x], target_label: all}, {target_label: __tmp, replacement: x}, {action: labelmap, regex: '__meta_rollcall_(.*)'}]`,
			host:  "node1:9100", uri: "/metrics?x=1", labels: `{all="15s;10s;http;/metrics;1", instance="node1:9100", producer_id="p1"}`,
		},
		"the interval is the registry's": {
			rules: `[{target_label: __scrape_interval__, replacement: '1h'}]`, host: "node1:9100", uri: "/metrics?x=1", labels: node1,
		},
		"no address":     {rules: `[{target_label: __address__, replacement: ''}]`, err: "no address after relabel_configs"},
		"a path in host": {rules: `[{target_label: __address__, replacement: 'a/b'}]`, err: "after relabel_configs: bad endpoint: not a URL"},
		"user info":      {rules: `[{target_label: __address__, replacement: 'a:b@c'}]`, err: "after relabel_configs: bad endpoint"},
		"scheme":         {rules: `[{target_label: __scheme__, replacement: 'file'}]`, err: `after relabel_configs: bad endpoint: scheme "file"`},
		"too many labels": {
			rules: `[{action: labelmap, regex: '__(.*)', replacement: 'l_$1'}, {action: labelmap, regex: 'l_(.*)', replacement: 'm_$1'}]`,
			err:   "its own labels make",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, func(cfg *scrape.Config) { cfg.Setup.Targets = rules(t, test.rules) })
				a := producer()
				a.Limits.MaxLabels = 8
				if a.Endpoint = test.endpoint; a.Endpoint == "" {
					a.Endpoint = "http://node1:9100/metrics?x=1"
				}
				c, err := r.scraper.Open(a)
				if test.err != "" {
					if err == nil || !strings.HasPrefix(err.Error(), test.err) {
						t.Errorf("Open: %v, want %s", err, test.err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if got := c.(*scrape.Collection).Labels().String(); got != test.labels { //nolint:errcheck,forcetypeassert // it is
					t.Errorf("labels %s, want %s", got, test.labels)
				}
				r.text("a 1\n")
				r.good(c)
				if req := <-r.requests; req.Host != test.host || req.RequestURI != test.uri {
					t.Errorf("asked %s for %s, want %s for %s", req.Host, req.RequestURI, test.host, test.uri)
				}
			})
		})
	}
}

func TestSeriesAreRelabeled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(cfg *scrape.Config) {
			cfg.Setup.Series = rules(t, `
- {action: drop, source_labels: [__name__], regex: go_.*}
- {source_labels: [__name__], regex: old_(.*), target_label: __name__, replacement: new_$1}
- {source_labels: [code], regex: (.).., target_label: class, replacement: '${1}xx'}
- {action: labeldrop, regex: code}
`)
		})
		c := r.open(producer())
		r.text("go_a 1\nold_b 2\nc{code=\"404\"} 3\nc{code=\"403\"} 4\ngo_d{x=\"y\"} 5\n")
		for range 3 { // found anew, and then in the cache
			samples, at, result := r.collect(c)
			if result.Reason != schedule.ReasonNone || result.Samples != 5 {
				t.Errorf("result %+v", result)
			}
			equal(t, exposed(samples, at), []string{series("new_b") + " 2", series("c", "class", "4xx") + " 3"})
			reportIs(t, samples, "scrape_samples_scraped", 5)
			reportIs(t, samples, "scrape_samples_post_metric_relabeling", 3)
		}
		// What was dropped leaves nothing; what was not, a stale marker.
		r.text("old_b 2\n")
		equal(t, r.good(c), []string{series("new_b") + " 2", series("c", "class", "4xx") + " stale"})
	})
}

func reportIs(t *testing.T, samples []sample.Sample, name string, want float64) {
	t.Helper()
	for _, s := range samples {
		if s.Series.Labels().Get("__name__") == name && s.Value != want {
			t.Errorf("%s is %v, want %v", name, s.Value, want)
		}
	}
}

func TestRelabelingThatFails(t *testing.T) {
	for name, test := range map[string]struct {
		rules  string
		reason schedule.Reason
	}{
		"no name":        {`[{action: labeldrop, regex: __name__}]`, schedule.ReasonMalformed},
		"a long value":   {`[{source_labels: [x, x, x], target_label: y}]`, schedule.ReasonTooLarge},
		"many labels":    {`[{action: labelmap, regex: '(.*)', replacement: 'l_$1'}]`, schedule.ReasonTooLarge},
		"nothing at all": {`[{action: labelkeep, regex: none}]`, schedule.ReasonNone},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, func(cfg *scrape.Config) { cfg.Setup.Series = rules(t, test.rules) })
				a := producer()
				a.Limits = assignment.Limits{MaxLabels: 5, MaxLabelValueBytes: 20}
				c := r.open(a)
				r.text(`a{x="0123456789"} 1` + "\n")
				samples, at, result := r.collect(c)
				if result.Reason != test.reason {
					t.Errorf("%+v, want reason %v", result, test.reason)
				}
				equal(t, exposed(samples, at), nil)
				reportIs(t, samples, "scrape_samples_post_metric_relabeling", 0)
			})
		})
	}
}

// Other rules hold from the next Update on; the same ones, read anew, change
// nothing.
func TestConfigureAndUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.open(producer())
		r.text("a 1\nb 2\n")
		configure := func(targets, series string) {
			t.Helper()
			r.scraper.Configure(scrape.Setup{Targets: rules(t, targets), Series: rules(t, series)})
			if err := c.Update(producer()); err != nil {
				t.Fatal(err)
			}
		}
		configure("", "")
		first := r.good(c)
		equal(t, first, []string{series("a") + " 1", series("b") + " 2"})

		const dropB = `[{action: drop, source_labels: [__name__], regex: b}]`
		for i := range 3 {
			configure("", dropB)
			want := []string{series("a") + " 1"}
			if i == 0 {
				want = append(want, series("b")+" stale")
			}
			samples, at, _ := r.collect(c)
			equal(t, exposed(samples, at), want)
			if i > 0 {
				reportIs(t, samples, "scrape_series_added", 0)
			}
		}
		r.scraper.Configure(scrape.Setup{Targets: rules(t, `[{action: drop}]`), Series: rules(t, dropB)})
		if err := c.Update(producer()); err == nil || err.Error() != "dropped by relabel_configs" {
			t.Errorf("Update: %v", err)
		}
		equal(t, r.good(c), []string{series("a") + " 1"})
		configure("", "")
		equal(t, r.good(c), first)
	})
}

// In columns, too, also when the layout was sent before the rules were changed.
func TestColumnsAreRelabeled(t *testing.T) {
	const list = `
- {action: drop, source_labels: [path], regex: /}
- {source_labels: [__name__], regex: (requests|size)_(.*), target_label: __name__, replacement: renamed_$2}
- {action: labeldrop, regex: code}
`
	synctest.Test(t, func(t *testing.T) {
		z := newZoo()
		byHTTP := newRig(t, nil)
		byHTTP.answer(promhttp.HandlerFor(z, promhttp.HandlerOpts{}).ServeHTTP)
		byGRPC := newNativeRig(t, nil, exposing(z))
		left, right := byHTTP.open(producer()), byGRPC.open(nativeProducer())
		dropped := 0.0
		for step := range 40 {
			setup := scrape.Setup{}
			if step%12 >= 3 {
				setup.Series = rules(t, list)
			}
			byHTTP.scraper.Configure(setup)
			byGRPC.scraper.Configure(setup)
			if err := errors.Join(left.Update(producer()), right.Update(nativeProducer())); err != nil {
				t.Fatal(err)
			}
			z.live(step)
			one, at, result := byHTTP.collect(left)
			two, _, _ := byGRPC.collect(right)
			if got, want := full(two, at), full(one, at); !slices.Equal(got, want) {
				t.Fatalf("step %d: columns\n%s\nprotobuf\n%s", step, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			for _, s := range two {
				if s.Series.Labels().Get("__name__") == "scrape_samples_post_metric_relabeling" {
					dropped += float64(result.Samples) - s.Value
				}
				if s.Series.Labels().Get("path") == "/" && setup.Series != nil && !value.IsStaleNaN(s.Value) {
					t.Fatalf("step %d: %s is not dropped", step, s.Series.Labels())
				}
			}
			time.Sleep(15 * time.Second)
		}
		if dropped < 100 {
			t.Errorf("only %v samples are dropped", dropped)
		}
	})
}

// A producer over gRPC has an address and a scheme, and no path and parameters.
func TestNativeTargetsAreRelabeled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZoo()
		r := newNativeRig(t, func(cfg *scrape.Config) {
			cfg.Setup.Targets = rules(t, `
- {source_labels: [__scheme__, __address__, __metrics_path__], target_label: seen}
- {target_label: __metrics_path__, replacement: /ignored}
- {target_label: __param_x, replacement: ignored}
- {target_label: __address__, replacement: 'other:1'}
`)
		}, exposing(z))
		c := r.open(nativeProducer())
		if got, want := c.(*scrape.Collection).Labels().String(), `{instance="other:1", job="node", seen="grpc;node1:9100;"}`; got != want { //nolint:errcheck,forcetypeassert // it is
			t.Errorf("labels %s, want %s", got, want)
		}
		if _, _, result := r.collect(c); result.Reason != schedule.ReasonNone {
			t.Errorf("%+v", result)
		}
		r.scraper.Configure(scrape.Setup{Targets: rules(t, `[{target_label: __scheme__, replacement: http}]`)})
		if err := c.Update(nativeProducer()); err != nil {
			t.Fatal(err)
		}
		r.scraper.Configure(scrape.Setup{Targets: rules(t, `[{target_label: __address__, replacement: portless}]`)})
		if err := c.Update(nativeProducer()); err == nil {
			t.Error("grpc without a port is run")
		}
	})
}
