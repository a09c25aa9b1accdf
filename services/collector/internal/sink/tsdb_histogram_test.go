package sink_test

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sink"
)

// native has n observations from 1 to 2 and as many from 4 to 8; with wide also
// n from 16 to 32.
func native(n int64, wide bool) *histogram.Histogram {
	h := &histogram.Histogram{
		Count: uint64(2 * n), Sum: float64(n), Schema: 0,
		PositiveSpans:   []histogram.Span{{Offset: 1, Length: 1}, {Offset: 1, Length: 1}},
		PositiveBuckets: []int64{n, 0},
	}
	if wide {
		h.Count += uint64(n)
		h.PositiveSpans = append(h.PositiveSpans, histogram.Span{Offset: 1, Length: 1})
		h.PositiveBuckets = append(h.PositiveBuckets, 0)
	}
	return h
}

func ints(s *sample.Series, ms int64, h *histogram.Histogram) sample.Sample {
	return sample.Sample{Series: s, Time: ms, Extra: &sample.Extra{Histogram: h}}
}

func floats(s *sample.Series, ms int64, h *histogram.Histogram) sample.Sample {
	return sample.Sample{Series: s, Time: ms, Extra: &sample.Extra{FloatHistogram: h.ToFloat(nil)}}
}

// readAll shows all samples of a metric with one series, whatever they are.
func readAll(t testing.TB, store *sink.TSDB, name string) []string {
	t.Helper()
	q, err := store.Querier(math.MinInt64, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	var got []string
	set := q.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", name))
	for set.Next() {
		it := set.At().Iterator(nil)
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			switch kind {
			case chunkenc.ValFloat:
				ms, v := it.At()
				got = append(got, shown("value", ms, v, v))
			case chunkenc.ValHistogram:
				ms, h := it.AtHistogram(nil)
				got = append(got, shown("int", ms, h.Sum, h))
			default:
				ms, h := it.AtFloatHistogram(nil)
				got = append(got, shown("float", ms, h.Sum, h))
			}
		}
		if err := it.Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := set.Err(); err != nil {
		t.Fatal(err)
	}
	return got
}

func shown(kind string, ms int64, mark float64, what any) string {
	if value.IsStaleNaN(mark) {
		what = "stale"
	}
	return fmt.Sprintf("%s @%d %v", kind, ms, what)
}

func TestHistogramsAreStored(t *testing.T) {
	store := open(t, sink.TSDBConfig{OutOfOrderWindow: time.Hour})
	stale := math.Float64frombits(value.StaleNaN)
	now := nowMs()
	for name, tc := range map[string]struct {
		make func(*sample.Series, int64, *histogram.Histogram) sample.Sample
		kind string
	}{"i": {ints, "int"}, "f": {floats, "float"}} {
		s := series("__name__", name)
		// Buckets come and go; the marker takes the kind of what it ends, and a
		// plain value may follow.
		for i, one := range []sample.Sample{
			tc.make(s, now, native(1, false)),
			tc.make(s, now+1, native(2, true)),
			tc.make(s, now+2, native(3, false)),
			at(s, now+3, stale),
			tc.make(s, now+4, native(4, false)),
			tc.make(s, now-1, native(1, true)), // Out of order.
			at(s, now+5, 7),
			at(s, now+6, stale),
		} {
			if got := write(t, store, batch(one)); got != (sink.Refused{}) {
				t.Errorf("%s: sample %d: refused %+v", name, i, got)
			}
		}
		interval := func(n, count int) string {
			return fmt.Sprintf("{count:%d, sum:%d, (1,2]:%[2]d, (4,8]:%[2]d", count, n)
		}
		want := []string{
			fmt.Sprintf("%s @%d %s, (16,32]:1}", tc.kind, now-1, interval(1, 3)),
			fmt.Sprintf("%s @%d %s}", tc.kind, now, interval(1, 2)),
			fmt.Sprintf("%s @%d %s, (16,32]:2}", tc.kind, now+1, interval(2, 6)),
			fmt.Sprintf("%s @%d %s}", tc.kind, now+2, interval(3, 6)),
			fmt.Sprintf("%s @%d stale", tc.kind, now+3),
			fmt.Sprintf("%s @%d %s}", tc.kind, now+4, interval(4, 8)),
			fmt.Sprintf("value @%d 7", now+5),
			fmt.Sprintf("value @%d stale", now+6),
		}
		if diff := cmp.Diff(want, readAll(t, store, name)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// The store puts the buckets of earlier histograms into later ones; the one that
// was handed in stays as it was, for the other sinks.
func TestAHistogramIsNotChanged(t *testing.T) {
	store := open(t, sink.TSDBConfig{})
	now := nowMs()
	for name, make := range map[string]func(*sample.Series, int64, *histogram.Histogram) sample.Sample{"i": ints, "f": floats} {
		for _, hint := range []histogram.CounterResetHint{histogram.UnknownCounterReset, histogram.GaugeType} {
			s := series("__name__", name, "hint", fmt.Sprint(hint))
			var given []sample.Sample
			for i, h := range []*histogram.Histogram{native(1, true), native(2, false), native(3, true)} {
				h.CounterResetHint = hint
				if i == 1 { // With a bucket of its own, in front.
					h.PositiveSpans[0].Offset, h.PositiveSpans[1].Offset = -3, 5
				}
				one := make(s, now+int64(i), h)
				given = append(given, one)
				write(t, store, batch(one))
			}
			if e := given[1].Extra; e.Histogram != nil && len(e.Histogram.PositiveBuckets) != 2 || e.FloatHistogram != nil && len(e.FloatHistogram.PositiveBuckets) != 2 {
				t.Errorf("%s, hint %d: the histogram was changed: %+v", name, hint, e)
			}
		}
	}
}

func TestRefusedHistograms(t *testing.T) {
	now := nowMs()
	twisted := native(1, false)
	twisted.Count = 77
	short := native(1, false)
	short.PositiveBuckets = short.PositiveBuckets[:1]
	for name, tc := range map[string]struct {
		window time.Duration
		give   func(s *sample.Series) []sample.Sample
		want   sink.Refused
	}{
		"older":                    {give: func(s *sample.Series) []sample.Sample { return []sample.Sample{ints(s, now-1, native(1, false))} }, want: sink.Refused{OutOfOrder: 1}},
		"older, inside the window": {window: time.Hour, give: func(s *sample.Series) []sample.Sample { return []sample.Sample{ints(s, now-1, native(1, false))} }},
		"a stale marker behind the newest, inside the window": {window: time.Hour, give: func(s *sample.Series) []sample.Sample {
			return []sample.Sample{at(s, now-1, math.Float64frombits(value.StaleNaN))}
		}, want: sink.Refused{OutOfOrder: 1}},
		"the same":           {give: func(s *sample.Series) []sample.Sample { return []sample.Sample{ints(s, now, native(1, false))} }},
		"same time, another": {give: func(s *sample.Series) []sample.Sample { return []sample.Sample{ints(s, now, native(2, false))} }, want: sink.Refused{Duplicate: 1}},
		"same time, a value": {give: func(s *sample.Series) []sample.Sample { return []sample.Sample{at(s, now, 0)} }, want: sink.Refused{Duplicate: 1}},
		"too old": {give: func(s *sample.Series) []sample.Sample {
			return []sample.Sample{ints(s, now-int64(5*time.Hour/time.Millisecond), native(1, false))}
		}, want: sink.Refused{TooOld: 1}},
		"too new": {give: func(s *sample.Series) []sample.Sample {
			return []sample.Sample{ints(s, now+int64(time.Hour/time.Millisecond), native(1, false))}
		}, want: sink.Refused{TooNew: 1}},
		"its count is not that": {give: func(s *sample.Series) []sample.Sample {
			return []sample.Sample{ints(s, now+1, twisted), ints(s, now+2, native(2, false))}
		}, want: sink.Refused{Invalid: 1}},
		"spans of another length": {give: func(s *sample.Series) []sample.Sample { return []sample.Sample{floats(s, now+1, short)} }, want: sink.Refused{Invalid: 1}},
		"twice in the batch": {give: func(s *sample.Series) []sample.Sample {
			return []sample.Sample{ints(s, now+1, native(2, false)), ints(s, now+1, native(3, false))}
		}, want: sink.Refused{Duplicate: 1}},
		"twice, the same": {give: func(s *sample.Series) []sample.Sample {
			return []sample.Sample{floats(s, now+1, native(2, false)), floats(s, now+1, native(2, false))}
		}},
		"twice, int and float": {give: func(s *sample.Series) []sample.Sample {
			return []sample.Sample{floats(s, now+1, native(2, false)), ints(s, now+1, native(2, false))}
		}, want: sink.Refused{Duplicate: 1}},
		"twice, a value after it": {give: func(s *sample.Series) []sample.Sample {
			return []sample.Sample{floats(s, now+1, native(2, false)), at(s, now+1, 0)}
		}, want: sink.Refused{Duplicate: 1}},
		"twice, a value before it": {give: func(s *sample.Series) []sample.Sample {
			return []sample.Sample{at(s, now+1, 0), ints(s, now+1, native(2, false))}
		}, want: sink.Refused{Duplicate: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			store := open(t, sink.TSDBConfig{OutOfOrderWindow: tc.window})
			s := series("__name__", "h")
			write(t, store, batch(ints(s, now, native(1, false))))
			before := len(readAll(t, store, "h"))
			give := tc.give(s)
			if got := write(t, store, batch(give...)); got != tc.want {
				t.Errorf("refused %+v, want %+v", got, tc.want)
			}
			stored := len(readAll(t, store, "h")) - before
			if most := len(give) - tc.want.Samples(); stored > most {
				t.Errorf("%d stored, want at most %d", stored, most)
			}
			write(t, store, batch(ints(s, now+9, native(9, false)))) // The rest goes on.
		})
	}
}

// What is stored answers PromQL as native histograms do, also after a crash.
func TestHistogramsAnswerQueries(t *testing.T) {
	dir := t.TempDir()
	now := nowMs()
	store := open(t, sink.TSDBConfig{Dir: dir})
	s, f := series("__name__", "h", "kind", "int"), series("__name__", "h", "kind", "float")
	for i := range int64(5) {
		ms := now + i*15_000
		write(t, store, batch(ints(s, ms, native(10*(i+1), i > 2)), floats(f, ms, native(10*(i+1), false))))
	}
	write(t, store, batch(at(s, now+75_000, math.Float64frombits(value.StaleNaN))))
	for name, store := range map[string]*sink.TSDB{"running": store, "after a crash": open(t, sink.TSDBConfig{Dir: crash(t, dir)})} {
		for query, want := range map[string]string{
			`histogram_quantile(1, rate(h{kind="float"}[1m]))`: "8",
			`histogram_count(h{kind="float"})`:                 "100",
			`histogram_sum(h{kind="float"})`:                   "50",
			`histogram_fraction(4, 8, h{kind="float"})`:        "0.5",
			`h{kind="int"}`: "",
			`histogram_count(h{kind="int"} offset 20s)`: "120",
		} {
			if got := evaluate(t, store, query, now+76_000); got != want {
				t.Errorf("%s: %s is %s, want %s", name, query, got, want)
			}
		}
	}
}

func evaluate(t *testing.T, store *sink.TSDB, query string, ms int64) string {
	t.Helper()
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1000, Timeout: time.Minute})
	q, err := engine.NewInstantQuery(t.Context(), store, nil, query, time.UnixMilli(ms))
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	result := q.Exec(t.Context())
	vector, err := result.Vector()
	if err = errors.Join(result.Err, err); err != nil {
		t.Fatal(err)
	}
	if len(vector) == 0 {
		return ""
	}
	return fmt.Sprint(vector[0].F)
}
