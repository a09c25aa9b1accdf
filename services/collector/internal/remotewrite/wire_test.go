package remotewrite_test

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"pgregory.net/rapid"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/remotewrite"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// confirm answers as a receiver of 2.0 that takes all.
func confirm(t testing.TB) func(http.ResponseWriter, call) {
	return func(w http.ResponseWriter, c call) {
		if !c.v2() {
			w.WriteHeader(http.StatusUnsupportedMediaType)
			return
		}
		samples, histograms := 0, 0
		for _, s := range c.decode2(t).Timeseries {
			samples += len(s.Samples)
			histograms += len(s.Histograms)
		}
		written(w, samples, histograms)
		w.WriteHeader(http.StatusNoContent)
	}
}

func written(w http.ResponseWriter, samples, histograms int) {
	w.Header().Set("X-Prometheus-Remote-Write-Samples-Written", strconv.Itoa(samples))
	w.Header().Set("X-Prometheus-Remote-Write-Histograms-Written", strconv.Itoa(histograms))
	w.Header().Set("X-Prometheus-Remote-Write-Exemplars-Written", "0")
}

// told is a sample in the words of neither protocol. Floats are bits: all of
// them are to arrive.
type told struct {
	Labels      string
	Type        model.MetricType
	Help, Unit  string
	Time, Start int64
	Bits        uint64
	Histogram   string
	Exemplars   []string
}

func bits(all []float64) string {
	text := ""
	for _, v := range all {
		text += fmt.Sprintf("%x,", math.Float64bits(v))
	}
	return text
}

func spans(all []histogram.Span) string {
	text := ""
	for _, s := range all {
		text += fmt.Sprintf("%d+%d,", s.Offset, s.Length)
	}
	return text
}

func tellInt(h *histogram.Histogram) string {
	return fmt.Sprint("int ", h.CounterResetHint, h.Schema, h.Count, h.ZeroCount, bits([]float64{h.Sum, h.ZeroThreshold}),
		spans(h.PositiveSpans), append([]int64{}, h.PositiveBuckets...), spans(h.NegativeSpans), append([]int64{}, h.NegativeBuckets...), bits(h.CustomValues))
}

func tellFloat(h *histogram.FloatHistogram) string {
	return fmt.Sprint("float ", h.CounterResetHint, h.Schema, bits([]float64{h.Count, h.ZeroCount, h.Sum, h.ZeroThreshold}),
		spans(h.PositiveSpans), bits(h.PositiveBuckets), spans(h.NegativeSpans), bits(h.NegativeBuckets), bits(h.CustomValues))
}

func tellExemplar(e exemplar.Exemplar, otherwise int64) string {
	at := e.Ts
	if !e.HasTs {
		at = otherwise
	}
	return fmt.Sprintf("%v %x %d", e.Labels, math.Float64bits(e.Value), at)
}

// want is what should arrive of samples: by 1.0 without what it cannot say.
func want(samples []one, v2 bool) []told {
	var all []told
	for _, s := range samples {
		p := s.point
		w := told{Labels: s.labels.String(), Time: p.Time, Type: model.MetricTypeUnknown}
		if v2 {
			w.Start = p.Start
			if s.meta != nil {
				w.Type, w.Help, w.Unit = s.meta.Type, s.meta.Help, s.meta.Unit
			}
		}
		switch {
		case p.Extra != nil && p.Extra.Histogram != nil:
			if !v2 && p.Extra.Histogram.Schema == histogram.CustomBucketsSchema {
				continue
			}
			w.Histogram = tellInt(p.Extra.Histogram)
		case p.Extra != nil && p.Extra.FloatHistogram != nil:
			if !v2 && p.Extra.FloatHistogram.Schema == histogram.CustomBucketsSchema {
				continue
			}
			w.Histogram = tellFloat(p.Extra.FloatHistogram)
		default:
			w.Bits = math.Float64bits(p.Value)
		}
		if p.Extra != nil {
			for _, e := range p.Extra.Exemplars {
				w.Exemplars = append(w.Exemplars, tellExemplar(e, p.Time))
			}
		}
		all = append(all, w)
	}
	return all
}

// merged gives the exemplars of samples of one message to its first one, as a
// receiver cannot tell whose they are.
func merged(all []told, sizes []int) []told {
	at := 0
	for _, n := range sizes {
		for i := at + 1; i < at+n && i < len(all); i++ {
			all[at].Exemplars = append(all[at].Exemplars, all[i].Exemplars...)
			all[i].Exemplars = nil
		}
		at += n
	}
	return all
}

func arrived2(t testing.TB, r *writev2.Request) (all []told, sizes []int) {
	t.Helper()
	if r.Symbols[0] != "" {
		t.Errorf("the first symbol is %q", r.Symbols[0])
	}
	b := labels.NewScratchBuilder(0)
	for _, s := range r.Timeseries {
		ls, err := s.ToLabels(&b, r.Symbols)
		if err != nil {
			t.Fatal(err)
		}
		m, err := s.ToMetadata(r.Symbols)
		if err != nil {
			t.Fatal(err)
		}
		at := len(all)
		w := told{Labels: ls.String(), Type: m.Type, Help: m.Help, Unit: m.Unit}
		for _, v := range s.Samples {
			w.Time, w.Start, w.Bits = v.Timestamp, v.StartTimestamp, math.Float64bits(v.Value)
			all = append(all, w)
		}
		w.Bits = 0
		for _, h := range s.Histograms {
			w.Time, w.Start = h.Timestamp, h.StartTimestamp
			if h.IsFloatHistogram() {
				w.Histogram = tellFloat(h.ToFloatHistogram())
			} else {
				w.Histogram = tellInt(h.ToIntHistogram())
			}
			all = append(all, w)
		}
		if len(s.Samples) > 0 && len(s.Histograms) > 0 || len(all) == at {
			t.Errorf("a series with %d samples and %d histograms", len(s.Samples), len(s.Histograms))
		}
		for _, e := range s.Exemplars {
			x, err := e.ToExemplar(&b, r.Symbols)
			if err != nil {
				t.Fatal(err)
			}
			all[at].Exemplars = append(all[at].Exemplars, tellExemplar(x, 0))
		}
		sizes = append(sizes, len(all)-at)
	}
	return all, sizes
}

func arrived1(t testing.TB, r *prompb.WriteRequest) (all []told, sizes []int) {
	t.Helper()
	b := labels.NewScratchBuilder(0)
	for _, s := range r.Timeseries {
		at := len(all)
		w := told{Labels: s.ToLabels(&b, nil).String(), Type: model.MetricTypeUnknown}
		for _, v := range s.Samples {
			w.Time, w.Bits = v.Timestamp, math.Float64bits(v.Value)
			all = append(all, w)
		}
		w.Bits = 0
		for _, h := range s.Histograms {
			w.Time = h.Timestamp
			if h.IsFloatHistogram() {
				w.Histogram = tellFloat(h.ToFloatHistogram())
			} else {
				w.Histogram = tellInt(h.ToIntHistogram())
			}
			all = append(all, w)
		}
		for _, e := range s.Exemplars {
			all[at].Exemplars = append(all[at].Exemplars, tellExemplar(e.ToExemplar(&b, nil), 0))
		}
		sizes = append(sizes, len(all)-at)
	}
	return all, sizes
}

// TestEverySampleArrives compares what is sent with what Prometheus's own types
// read, over a connection.
func TestEverySampleArrives(t *testing.T) {
	both := listen(t, confirm(t))
	old := listen(t, func(w http.ResponseWriter, _ call) { w.WriteHeader(http.StatusNoContent) })
	v2 := newClient(t, both.url, nil)
	v1 := newClient(t, old.url, func(c *remotewrite.Config) { c.Protocol = remotewrite.V1 })
	rapid.Check(t, func(r *rapid.T) {
		samples := drawSamples(r)
		o := v2.Send(t.Context(), request(v2, samples...))
		if o.Result != deliver.Delivered || o.Refused != 0 || o.Err != nil || o.Code != "204" {
			r.Fatalf("2.0: %+v", o)
		}
		got, sizes := arrived2(t, both.take()[0].decode2(t))
		if diff := cmp.Diff(merged(want(samples, true), sizes), got); diff != "" {
			r.Fatalf("2.0 (-want +got):\n%s", diff)
		}

		o = v1.Send(t.Context(), request(v1, samples...))
		expected := want(samples, false)
		if o.Result != deliver.Delivered || o.Refused != len(samples)-len(expected) {
			r.Fatalf("1.0: %+v, want %d of %d", o, len(expected), len(samples))
		}
		if o.Refused > 0 && o.Reason != deliver.ReasonUnsupported {
			r.Fatalf("1.0: %+v", o)
		}
		calls := old.take()
		if len(expected) == 0 {
			if len(calls) != 0 {
				r.Fatalf("an empty request was sent")
			}
			return
		}
		got, sizes = arrived1(t, calls[0].decode1(t))
		if diff := cmp.Diff(merged(expected, sizes), got); diff != "" {
			r.Fatalf("1.0 (-want +got):\n%s", diff)
		}
	})
}

// TestManySeries is a request with 10,000 series, symbols of all lengths, and
// each twice.
func TestManySeries(t *testing.T) {
	both := listen(t, confirm(t))
	old := listen(t, func(w http.ResponseWriter, _ call) { w.WriteHeader(http.StatusNoContent) })
	v2 := newClient(t, both.url, nil)
	v1 := newClient(t, old.url, func(c *remotewrite.Config) { c.Protocol = remotewrite.V1 })
	var samples []one
	for n := range 20000 {
		i := n % 10000
		long := make([]byte, i%300)
		for j := range long {
			long[j] = 'x'
		}
		if i%1000 == 0 {
			long = make([]byte, 20000)
			for j := range long {
				long[j] = byte('a' + i/1000)
			}
		}
		samples = append(samples, one{
			labels: labels.FromStrings("__name__", fmt.Sprintf("metric_%d", i%977), "instance", strconv.Itoa(i), "long", string(long), "ünï", "cödé"),
			meta:   &metadata.Metadata{Type: model.MetricTypeGauge, Help: string(long)},
			point:  sample.Point{Time: int64(1700000000000 + n), Value: float64(n)},
		})
	}
	for range 2 { // buffers are used again
		if o := v2.Send(t.Context(), request(v2, samples...)); o.Result != deliver.Delivered || o.Refused != 0 {
			t.Fatalf("2.0: %+v", o)
		}
		got, _ := arrived2(t, both.take()[0].decode2(t))
		same(t, want(samples, true), got)
		if o := v1.Send(t.Context(), request(v1, samples...)); o.Result != deliver.Delivered || o.Refused != 0 {
			t.Fatalf("1.0: %+v", o)
		}
		got, _ = arrived1(t, old.take()[0].decode1(t))
		same(t, want(samples, false), got)
	}
}

// same compares without reflection, which takes long for many.
func same(t *testing.T, want, got []told) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d samples, want %d", len(got), len(want))
	}
	for i, g := range got {
		w := want[i]
		if g.Labels != w.Labels || g.Bits != w.Bits || g.Time != w.Time || g.Type != w.Type || g.Help != w.Help || len(g.Exemplars) > 0 {
			t.Fatalf("sample %d (-want +got):\n%.3000s", i, cmp.Diff(w, g))
		}
	}
}

// TestOnlyUTF8IsSent has text that a receiver would refuse the whole request for.
func TestOnlyUTF8IsSent(t *testing.T) {
	const odd = "a\xffb\xc3"
	bad := one{
		labels: labels.FromStrings("__name__", "m", odd, odd),
		meta:   &metadata.Metadata{Help: odd, Unit: odd},
		point:  sample.Point{Time: 1, Value: 1, Extra: &sample.Extra{Exemplars: []exemplar.Exemplar{{Labels: labels.FromStrings(odd, odd)}}}},
	}
	both := listen(t, func(w http.ResponseWriter, _ call) { written(w, 1, 0) })
	for _, p := range []remotewrite.Protocol{remotewrite.V2, remotewrite.V1} {
		c := newClient(t, both.url, func(c *remotewrite.Config) { c.Protocol = p })
		if o := c.Send(t.Context(), request(c, bad)); o.Result != deliver.Delivered {
			t.Fatalf("%+v", o)
		}
		var sent []string
		if p == remotewrite.V2 {
			sent = both.take()[0].decode2(t).Symbols
		} else {
			s := both.take()[0].decode1(t).Timeseries[0]
			for _, l := range slices.Concat(s.Labels, s.Exemplars[0].Labels) {
				sent = append(sent, l.Name, l.Value)
			}
		}
		if !slices.ContainsFunc(sent, func(s string) bool { return s == "a\uFFFDb\uFFFD" }) {
			t.Errorf("sent %q", sent)
		}
		for _, s := range sent {
			if !utf8.ValidString(s) {
				t.Errorf("sent %q", s)
			}
		}
	}
}
