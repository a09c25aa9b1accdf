package otlp

import (
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/histogram"
	"pgregory.net/rapid"
)

// startsOf are the starts of all points of a message, in ms.
func startsOf(t testing.TB, m *message) (starts []int64) {
	add := func(ns uint64) { starts = append(starts, int64(ns/1e6)) }
	for _, one := range metricsOf(decode(t, m)) {
		for _, p := range one.GetSum().GetDataPoints() {
			add(p.GetStartTimeUnixNano())
		}
		for _, p := range one.GetHistogram().GetDataPoints() {
			add(p.GetStartTimeUnixNano())
		}
		for _, p := range one.GetExponentialHistogram().GetDataPoints() {
			add(p.GetStartTimeUnixNano())
		}
		for _, p := range one.GetSummary().GetDataPoints() {
			add(p.GetStartTimeUnixNano())
		}
	}
	return starts
}

func TestStartsThatNobodyTells(t *testing.T) {
	c := newClient(t)
	b := newBuilder(c)
	at := func(ms int64, v float64) []one { return []one{{labels: "x_total", typ: counter, value: v, time: ms}} }
	for _, step := range []struct {
		what    string
		builder *builder
		record  []one
		want    []int64
	}{
		{"the first point", b, at(10, 5), []int64{10}},
		{"it goes on", b, at(20, 6), []int64{10}},
		{"it goes on, as high", b, at(30, 6), []int64{10}},
		{"it is away", b, at(40, staleNaN()), []int64{10}},
		{"it is back", b, at(50, 7), []int64{10}},
		{"a reset", b, at(60, 1), []int64{50}},
		{"in the next table", newBuilder(c), at(70, 2), []int64{50}},
		{"told at last", b, []one{{labels: "x_total", typ: counter, value: 3, time: 80, start: 55}}, []int64{55}},
		{"not told any more", b, at(90, 4), []int64{55}},
		{"another counter", b, []one{{labels: "x_total a b", typ: counter, value: 1, time: 90}}, []int64{90}},
		{"of another target", b, []one{{labels: "x_total job b", typ: counter, value: 1, time: 91}}, []int64{91}},
	} {
		if diff := cmp.Diff(step.want, startsOf(t, c.encode(step.builder.request(step.record)))); diff != "" {
			t.Errorf("%s: %s", step.what, diff)
		}
	}
}

func TestStartsOfHistograms(t *testing.T) {
	c := newClient(t)
	b := newBuilder(c)
	all := func(ms int64, n uint64) []one {
		return []one{
			{labels: "a_bucket le +Inf", typ: classic, value: float64(n), time: ms},
			{labels: "a_count", typ: classic, value: float64(n), time: ms},
			{labels: "b_count", typ: summary, value: float64(n), time: ms},
			{labels: "c", typ: classic, time: ms, extra: native(histogram.Histogram{Count: n, ZeroCount: n})},
		}
	}
	for _, step := range []struct {
		record []one
		want   int64
	}{{all(10, 5), 10}, {all(20, 6), 10}, {all(30, 1), 20}, {all(40, 1), 20}} {
		if diff := cmp.Diff([]int64{step.want, step.want, step.want}, startsOf(t, c.encode(b.request(step.record)))); diff != "" {
			t.Error(diff)
		}
	}
}

// TestStaleAsItWas is about the marker of a native histogram: its metric is that
// of its values.
func TestStaleAsItWas(t *testing.T) {
	c := newClient(t)
	b := newBuilder(c)
	custom := native(histogram.Histogram{Schema: histogram.CustomBucketsSchema, CustomValues: []float64{1}})
	c.encode(b.request([]one{{labels: "c", typ: classic, time: 1, extra: custom}}))
	got := metricsOf(decode(t, c.encode(newBuilder(c).request([]one{{labels: "c", typ: classic, time: 2, value: staleNaN()}}))))
	if p := got[0].GetHistogram().GetDataPoints(); len(p) != 1 || p[0].GetFlags() != 1 || p[0].GetStartTimeUnixNano() != 1e6 {
		t.Error(got)
	}
}

// TestStartsOfPartsSentAnew is about a request that is too large: its parts are
// made anew, and have to be what they were.
func TestStartsOfPartsSentAnew(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := newClient(t)
		b := newBuilder(c)
		var records [][]one
		reset := rapid.IntRange(0, 9).Draw(rt, "reset")
		for i := range 8 {
			v := float64(i + 10)
			if i >= reset {
				v = float64(i)
			}
			records = append(records, []one{{labels: "x_total", typ: counter, value: v, time: int64(10 * (i + 1))}})
		}
		lead := rapid.IntRange(0, 3).Draw(rt, "lead")
		c.encode(b.request(records[:lead]...))
		want := startsOf(t, c.encode(b.request(records[lead:]...)))
		cut := rapid.IntRange(lead, len(records)).Draw(rt, "cut")
		got := append(startsOf(t, c.encode(b.request(records[lead:cut]...))), startsOf(t, c.encode(b.request(records[cut:]...)))...)
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Fatal(diff)
		}
	})
}

func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t)
		defer c.Close()
		record := func(n int) []one {
			return []one{{labels: fmt.Sprintf("x_total a %d", n), typ: counter, value: 1, time: 1000}}
		}
		b := newBuilder(c)
		for n := range 100 {
			c.encode(b.request(record(n)))
		}
		for range 13 {
			time.Sleep(5*time.Minute + time.Second)
			c.encode(newBuilder(c).request(record(7)))
		}
		c.NewSeries()
		if n := len(c.memory.streams); n != 1 {
			t.Errorf("%d streams are remembered", n)
		}
		if n := len(c.memory.targets); n != 1 {
			t.Errorf("%d targets are remembered", n)
		}
	})
}

// TestStartsOutliveAnOutage has the receiver be away for longer than a stream is
// remembered that ended.
func TestStartsOutliveAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t)
		defer c.Close()
		record := func(at int64) []one { return []one{{labels: "x_total", typ: counter, value: 5, time: at}} }
		time.Sleep(time.Minute)
		c.encode(newBuilder(c).request(record(1000)))
		time.Sleep(2 * forgetAfter)
		b := newBuilder(c)
		time.Sleep(time.Second)
		if got := startsOf(t, c.encode(b.request(record(2000)))); got[0] != 1000 {
			t.Errorf("a counter that went on starts at %d", got[0])
		}
	})
}

func TestStartNeverAfterTime(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := &stream{}
		for range 20 {
			at := rapid.Int64Range(1, 30).Draw(rt, "at")
			told := rapid.Int64Range(-3, 30).Draw(rt, "told")
			s.create(rapid.Int64Range(-3, 30).Draw(rt, "created"), rapid.Int64Range(1, 30).Draw(rt, "createdAt"))
			v := rapid.SampledFrom([]float64{0, 1, 2, math.NaN(), math.Inf(1)}).Draw(rt, "value")
			if got := s.startOf(told, at, v, 0); got > at || got <= 0 {
				rt.Fatalf("start %d of a point at %d", got, at)
			}
		}
	})
}
