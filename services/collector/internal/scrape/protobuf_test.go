package scrape_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/encoding/prototext"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/scrape"
)

const protobuf = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"

// one is a family of one sample.
const one = `name: "a" type: GAUGE metric { gauge { value: 1 } }`

// messages are families, each told in protobuf's text form, as they are sent.
func messages(families ...string) string {
	var b bytes.Buffer
	for _, text := range families {
		var family dto.MetricFamily
		if err := prototext.Unmarshal([]byte(text), &family); err != nil {
			panic(fmt.Sprint(err, " in ", text))
		}
		if _, err := protodelim.MarshalTo(&b, &family); err != nil {
			panic(err)
		}
	}
	return b.String()
}

// native is a valid histogram of the given scale, in text form.
func native(n int) string {
	return fmt.Sprintf(`sample_count: %d sample_sum: 5 schema: 3 zero_threshold: 0.001 zero_count: %d
		positive_span { offset: -2 length: 2 } positive_span { offset: 3 length: 1 }
		positive_delta: %d positive_delta: 0 positive_delta: 0
		negative_span { offset: 0 length: 1 } negative_delta: %d`, 5*n, n, n, n)
}

// described shows a sample with all it has.
func described(s sample.Sample) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", s.Series.Labels())
	switch e := s.Extra; {
	case e != nil && e.Histogram != nil:
		fmt.Fprintf(&b, " int %s hint %d", e.Histogram, e.Histogram.CounterResetHint)
	case e != nil && e.FloatHistogram != nil:
		fmt.Fprintf(&b, " float %s hint %d", e.FloatHistogram, e.FloatHistogram.CounterResetHint)
	case isStale(s):
		b.WriteString(" stale")
	default:
		fmt.Fprintf(&b, " %v", s.Value)
	}
	if e := s.Extra; e != nil {
		for _, one := range e.Exemplars {
			fmt.Fprintf(&b, " # %s %v %d", one.Labels, one.Value, one.Ts)
		}
	}
	return b.String()
}

func describedAll(samples []sample.Sample) []string {
	var all []string
	for _, s := range samples[:len(samples)-5] {
		all = append(all, described(s))
	}
	slices.Sort(all)
	return all
}

func TestProtobuf(t *testing.T) {
	// What native(1) and native(2) are as intervals.
	buckets := func(n int) string {
		return fmt.Sprintf(" int {count:%[1]d, sum:5, [-1,-0.9170040432046711):%[2]d, [-0.001,0.001]:%[2]d, (0.7711054127039704,0.8408964152537144]:%[2]d, "+
			"(0.8408964152537144,0.9170040432046711]:%[2]d, (1.189207115002721,1.2968395546510096]:%[2]d} hint ", 5*n, n)
	}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.open(producer())
		r.typed(protobuf, messages(
			`name: "c_total" help: "Help." type: COUNTER unit: "u"
				metric { label { name: "x" value: "1" } counter { value: 2 exemplar { label { name: "id" value: "e" } value: 0.5 timestamp { seconds: 7 } } } }
				metric { label { name: "x" value: "2" } counter { value: 3 } timestamp_ms: 946684800001 }`,
			`name: "g" type: GAUGE metric { gauge { value: 4 } }`,
			`name: "q" type: SUMMARY metric { summary { sample_count: 2 sample_sum: 3 quantile { quantile: 1 value: 9 } } }`,
			`name: "h" type: HISTOGRAM metric { histogram { sample_count: 2 sample_sum: 3
				bucket { cumulative_count: 1 upper_bound: 1 exemplar { label { name: "id" value: "b" } value: 0.7 } } } }`,
			`name: "n" type: HISTOGRAM
				metric { label { name: "x" value: "1" } histogram { `+native(1)+` bucket { cumulative_count: 1 upper_bound: 1 }
					exemplars { label { name: "id" value: "late" } value: 2 timestamp { seconds: 9 } }
					exemplars { label { name: "id" value: "early" } value: 1 timestamp { seconds: 8 } } } }
				metric { label { name: "x" value: "2" } histogram { `+native(2)+`
					exemplars { label { name: "id" value: "second" } value: 1 timestamp { seconds: 8 } } } }`,
			`name: "f" type: HISTOGRAM metric { histogram { sample_count_float: 1.5 sample_sum: 2 schema: 0 positive_span { offset: 1 length: 1 } positive_count: 1.5 } }`,
			`name: "gh" type: GAUGE_HISTOGRAM metric { histogram { `+native(1)+` } }`,
		))
		samples, at, result := r.collect(c)
		if result.Reason != schedule.ReasonNone {
			t.Fatalf("%+v", result)
		}
		if result.Samples != 14 {
			t.Errorf("%d samples, want 14", result.Samples)
		}
		equal(t, describedAll(samples), []string{
			series("c_total", "x", "1") + ` 2 # {id="e"} 0.5 7000`,
			series("c_total", "x", "2") + " 3",
			series("f") + " float {count:1.5, sum:2, (1,2]:1.5} hint 0",
			series("g") + " 4",
			series("gh") + buckets(1) + "3",
			series("h_bucket", "le", "+Inf") + " 2",
			series("h_bucket", "le", "1.0") + fmt.Sprintf(` 1 # {id="b"} 0.7 %d`, at.UnixMilli()),
			series("h_count") + " 2",
			series("h_sum") + " 3",
			series("n", "x", "1") + buckets(1) + `0 # {id="early"} 1 8000 # {id="late"} 2 9000`,
			series("n", "x", "2") + buckets(2) + `0 # {id="second"} 1 8000`,
			series("q", "quantile", "1.0") + " 9",
			series("q_count") + " 2",
			series("q_sum") + " 3",
		})
		meta := map[string]string{}
		for _, s := range samples {
			if m := s.Series.Meta; m != nil && !strings.HasPrefix(s.Series.Labels().Get("__name__"), "scrape_") {
				meta[s.Series.Labels().Get("__name__")] = fmt.Sprint(m.Type, " ", m.Unit, " ", m.Help)
			}
		}
		for name, want := range map[string]string{
			"c_total": "counter u Help.", "f": "histogram  ", "gh": "gaugehistogram  ", "n": "histogram  ", "h_bucket": "histogram  ", "q_sum": "summary  ",
		} {
			if meta[name] != want {
				t.Errorf("metadata of %s: %q, want %q", name, meta[name], want)
			}
		}

		// Gone, all of it, under the same series.
		r.typed(protobuf, messages(one))
		samples, _, _ = r.collect(c)
		if n := count(samples, isStale); n != 13 { // The one with a time stamp is owed nothing.
			t.Errorf("%d stale markers, want 13", n)
		}
	})
}

// Exemplars of a native histogram: its own or else those of its classic buckets,
// those with a time, and those that can be stored.
func TestExemplarsOfHistograms(t *testing.T) {
	const bucket = ` bucket { cumulative_count: 1 upper_bound: 1 exemplar { label { name: "id" value: "bucket" } value: 1 timestamp { seconds: 8 } } }`
	exemplar := func(id string, rest string) string {
		return fmt.Sprintf(" exemplars { label { name: %q value: %q } value: 1 %s }", "id", id, rest)
	}
	const timed = "timestamp { seconds: 9 nanos: 5000000 }"
	for name, tc := range map[string]struct {
		histogram string
		want      []string
		skipped   float64
	}{
		"none":               {native(1), nil, 0},
		"its own":            {native(1) + bucket + exemplar("a", timed), []string{`{id="a"} 1 9005`}, 0},
		"of a bucket":        {native(1) + bucket, []string{`{id="bucket"} 1 8000`}, 0},
		"without a time":     {native(1) + exemplar("a", "") + exemplar("b", timed) + exemplar("c", ""), []string{`{id="b"} 1 9005`}, 0},
		"labels too long":    {native(1) + exemplar(strings.Repeat("x", 127), timed), nil, 1},
		"labels twice":       {native(1) + ` exemplars { label { name: "a" value: "" } label { name: "a" value: "" } timestamp { } }`, nil, 1},
		"far ahead":          {native(1) + ` exemplars { timestamp { seconds: 9223372036854775 } }`, nil, 1},
		"beyond all numbers": {native(1) + ` exemplars { timestamp { seconds: 9223372036854775807 } }`, []string{"{} 0 -1000"}, 0},
		"only a zero bucket": {`sample_count: 1 zero_count: 1` + exemplar("a", timed), []string{`{id="a"} 1 9005`}, 0},
		"an empty one":       {`zero_threshold: 1` + exemplar("a", timed), []string{`{id="a"} 1 9005`}, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := scrape.NewMetrics()
			r := newRig(t, func(cfg *scrape.Config) { cfg.Metrics = m })
			// Histograms of another type are none, and those before and after have
			// none of this one's.
			r.typed(protobuf, messages(
				`name: "x" type: GAUGE metric { gauge { } histogram { `+native(1)+exemplar("x", timed)+` } }`,
				`name: "n" type: HISTOGRAM metric { label { name: "i" value: "1" } histogram { `+native(1)+bucket+bucket+` } }
					metric { label { name: "i" value: "2" } histogram { `+tc.histogram+` } }`,
				`name: "o" type: HISTOGRAM metric { histogram { `+native(1)+` } }`))
			samples, _, result := r.collect(r.open(producer()))
			if result.Reason != schedule.ReasonNone {
				t.Fatalf("%s: %+v", name, result)
			}
			for i, want := range [][]string{nil, {`{id="bucket"} 1 8000`, `{id="bucket"} 1 8000`}, tc.want, nil} {
				_, rest, _ := strings.Cut(described(samples[i]), " # ")
				if got := strings.Split(rest, " # "); rest != "" && !slices.Equal(got, want) || rest == "" && want != nil {
					t.Errorf("%s: exemplars of sample %d are %q, want %q", name, i, got, want)
				}
			}
			if got := metric(t, m, "rollcall_collector_scrape_skipped_exemplars_total", ""); got != tc.skipped {
				t.Errorf("%s: %v skipped, want %v", name, got, tc.skipped)
			}
		})
	}
}

// A producer that goes from one format to the other keeps its series, and is not
// fooled by a name of the one that reads as labels of the other.
func TestBetweenFormats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.open(producer())
		r.text("a 1\nb{c=\"d\"} 2\n")
		equal(t, r.good(c), []string{series("a") + " 1", series("b", "c", "d") + " 2"})
		r.typed(protobuf, messages(one, `name: "b{c=\"d\"}" type: GAUGE metric { gauge { value: 3 } }`))
		equal(t, r.good(c), []string{series("a") + " 1", series("b", "c", "d") + " stale", series(`b{c=\"d\"}`) + " 3"})
		r.typed(openMetrics, "a 1\nb{c=\"d\"} 4\n# EOF\n")
		equal(t, r.good(c), []string{series("a") + " 1", series("b", "c", "d") + " 4", series(`b{c=\"d\"}`) + " stale"})
		r.typed(protobuf, messages(`name: "a" type: HISTOGRAM metric { histogram { `+native(1)+` } }`))
		samples, _, _ := r.collect(c)
		if len(samples) != 7 || samples[0].Extra == nil || samples[1].Series.Labels().Get("__name__") != "b" {
			t.Errorf("%v, want a histogram for a, and b stale", describedAll(samples))
		}
	})
}
