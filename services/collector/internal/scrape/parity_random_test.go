package scrape_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"
)

// startMs is when bubbles begin.
const startMs = 946684800000

// A writer draws the pages of random lives.
type writer struct {
	*rapid.T

	ms     int64 // of the page at hand
	native bool  // its format has native histograms
}

func (w writer) one(in int, what string) bool { return rapid.IntRange(1, in).Draw(w.T, what) == 1 }

func (w writer) number(from, to int, what string) float64 {
	return float64(rapid.IntRange(from, to).Draw(w.T, what))
}

// page draws the answer at a step, and tells how its series are spelled, "" when
// none is read. Faults stand in front of all series: what Prometheus does about
// series before a fault is a difference that is meant.
func (w writer) page(step int) (p page, spelling expfmt.FormatType) {
	w.ms = startMs + int64(step)*parityStep.Milliseconds()
	format := rapid.SampledFrom([]expfmt.Format{
		expfmt.NewFormat(expfmt.TypeTextPlain), expfmt.NewFormat(expfmt.TypeTextPlain), "application/openmetrics-text; version=0.0.1; charset=utf-8", "application/openmetrics-text; version=1.0.0; charset=utf-8",
		expfmt.NewFormat(expfmt.TypeProtoDelim), expfmt.NewFormat(expfmt.TypeProtoDelim), expfmt.NewFormat(expfmt.TypeProtoDelim),
	}).Draw(w.T, "format").WithEscapingScheme(model.NoEscaping)
	w.native = format.FormatType() == expfmt.TypeProtoDelim
	p = page{contentType: string(format), encoding: rapid.SampledFrom([]string{"", "gzip", "zstd"}).Draw(w.T, "encoding")}
	if w.one(2, "version 1.0.0 of the text") { // Written alike.
		p.contentType = strings.Replace(p.contentType, "version=0.0.4", "version=1.0.0", 1)
	}
	body := w.exposition(format)
	spelling = format.FormatType()
	fault := rapid.IntRange(0, 15).Draw(w.T, "fault")
	if fault <= 5 || body == "" {
		spelling = expfmt.TypeUnknown
	}
	switch fault {
	case 0:
		p.status = 503
	case 1:
		p.fault = faultHang
	case 2:
		p.fault = faultCut
	case 3:
		if body = "broken{\n" + body; w.native {
			body = "\x02\xff\xff" + body
		}
	case 4:
		body = strings.Repeat("#\n", parityBody)
	case 5:
		body = ""
	case 6:
		if p.contentType = "text/html"; format.FormatType() != expfmt.TypeTextPlain {
			body, spelling = "fallback 1\n", expfmt.TypeTextPlain
		}
	}
	p.body = body
	return p, spelling
}

func (w writer) exposition(format expfmt.Format) string {
	var b bytes.Buffer
	enc := expfmt.NewEncoder(&b, format, expfmt.WithCreatedLines())
	for _, f := range w.families() {
		if err := enc.Encode(f); err != nil {
			w.Fatal(err)
		}
	}
	if c, ok := enc.(expfmt.Closer); ok {
		_ = c.Close()
	}
	return b.String()
}

// families draws which families there are, with which series.
func (w writer) families() (all []*dto.MetricFamily) {
	for _, name := range []string{"g", "a.b", "c_total", "s", "h", "u", "changing"} {
		if w.one(5, "without "+name) {
			continue
		}
		f := &dto.MetricFamily{Name: &name, Type: w.kind(name).Enum()}
		if w.one(2, "help") {
			f.Help = new(rapid.SampledFrom([]string{"Help.", "Other \"help\"\n\\.", ""}).Draw(w.T, "text"))
		}
		for _, labels := range [][]*dto.LabelPair{nil, {pair("x", "1")}, {pair("job", "own"), pair("x", "ü\"\n\\")}, {pair("exported_job", "e"), pair("instance", "i"), pair("job", "own")}} {
			// Prometheus loses the exemplars of the second native histogram.
			if labels != nil && f.GetType() == dto.MetricType_HISTOGRAM && w.native {
				break
			}
			times := rapid.SampledFrom([]int{1, 1, 1, 1, 0, 0, 2}).Draw(w.T, "times")
			for range times {
				m := w.metric(f.GetType(), labels)
				// Of two of one series, Prometheus takes the second when the store
				// has refused the first. Here the store is asked later.
				if times == 2 {
					m.TimestampMs = nil
				}
				f.Metric = append(f.Metric, m)
			}
		}
		if len(f.Metric) > 0 {
			all = append(all, f)
		}
	}
	return all
}

func pair(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }

func (w writer) kind(name string) dto.MetricType {
	switch name {
	case "c_total":
		return dto.MetricType_COUNTER
	case "s":
		return dto.MetricType_SUMMARY
	case "h":
		return dto.MetricType_HISTOGRAM
	case "u":
		return dto.MetricType_UNTYPED
	case "changing":
		return rapid.SampledFrom([]dto.MetricType{dto.MetricType_GAUGE, dto.MetricType_HISTOGRAM}).Draw(w.T, "type")
	default:
		return dto.MetricType_GAUGE
	}
}

func (w writer) metric(kind dto.MetricType, labels []*dto.LabelPair) *dto.Metric {
	m := &dto.Metric{Label: labels}
	if w.one(6, "with a time stamp") {
		// No time that another collection has: what the store refuses, Prometheus
		// does not count as new.
		m.TimestampMs = new(w.ms - rapid.SampledFrom([]int64{0, 1, 5000, 40002}).Draw(w.T, "age"))
	}
	v := new(rapid.SampledFrom([]float64{0, 1, 2, 3.5, 1e9, -1}).Draw(w.T, "value"))
	switch kind {
	case dto.MetricType_COUNTER:
		m.Counter = &dto.Counter{Value: v, Exemplar: w.exemplar()}
		m.Counter.CreatedTimestamp = &timestamppb.Timestamp{Seconds: startMs/1000 - 5}
	case dto.MetricType_SUMMARY:
		m.Summary = &dto.Summary{SampleCount: proto.Uint64(3), SampleSum: v}
		for _, q := range []float64{0.5, 1} {
			m.Summary.Quantile = append(m.Summary.Quantile, &dto.Quantile{Quantile: new(q), Value: v})
		}
	case dto.MetricType_HISTOGRAM:
		m.Histogram = w.histogram()
	case dto.MetricType_UNTYPED:
		m.Untyped = &dto.Untyped{Value: v}
	default:
		m.Gauge = &dto.Gauge{Value: v}
	}
	return m
}

// histogram draws a classic one, or one that is also native, of integers or
// floats.
func (w writer) histogram() *dto.Histogram {
	n := uint64(w.number(0, 5, "count"))
	h := &dto.Histogram{SampleCount: new(2 * n), SampleSum: proto.Float64(3), Bucket: []*dto.Bucket{
		{CumulativeCount: &n, UpperBound: new(0.5), Exemplar: w.exemplar()},
		{CumulativeCount: new(2 * n), UpperBound: proto.Float64(2), Exemplar: w.exemplar()},
	}}
	if !w.native {
		return h
	}
	spans := []*dto.BucketSpan{
		{Offset: new(int32(w.number(-2, 2, "offset"))), Length: proto.Uint32(1)},
		{Offset: new(int32(w.number(0, 2, "gap"))), Length: proto.Uint32(1)},
	}
	schema := new(int32(w.number(0, 1, "schema")))
	switch rapid.IntRange(0, 2).Draw(w.T, "nativeness") {
	case 0:
		h.Schema, h.PositiveSpan, h.PositiveDelta = schema, spans, []int64{int64(n), 0}
	case 1:
		h.Schema, h.NegativeSpan, h.NegativeCount = schema, spans, []float64{float64(n) + 0.5, float64(n)}
		h.SampleCountFloat = new(2*float64(n) + 0.5)
	}
	for range rapid.IntRange(0, 3).Draw(w.T, "exemplars") {
		if e := w.exemplar(); e != nil {
			h.Exemplars = append(h.Exemplars, e)
		}
	}
	return h
}

func (w writer) exemplar() *dto.Exemplar {
	if w.one(2, "no exemplar") {
		return nil
	}
	e := &dto.Exemplar{Value: new(w.number(0, 3, "exemplar")), Label: []*dto.LabelPair{pair("id", fmt.Sprint(w.number(0, 3, "id")))}}
	if !w.one(3, "no time") {
		ms := w.ms - int64(w.number(0, 20, "age"))*1000
		e.Timestamp = &timestamppb.Timestamp{Seconds: ms / 1000}
	}
	return e
}

// TestParityOfRandomLives is TestParityWithPrometheus with lives that are drawn:
// up to ten collections, so that no family is forgotten.
func TestParityOfRandomLives(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := writer{T: rt}
		l := life{honorLabels: w.one(2, "honor labels"), ignoreTimestamps: w.one(3, "ignore timestamps")}
		c := comparison{used: map[difference]bool{}}
		last := expfmt.TypeUnknown
		for step := range rapid.IntRange(2, 10).Draw(rt, "steps") {
			p, spelling := w.page(step)
			l.pages = append(l.pages, p)
			if spelling != last && last != expfmt.TypeUnknown && spelling != expfmt.TypeUnknown {
				c.respelled = append(c.respelled, fmt.Sprintf("step %d:", step))
			}
			if spelling != expfmt.TypeUnknown {
				last = spelling
			}
		}
		var differences []string
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := l.live(t)
			differences = c.all(ours, theirs)
		})
		if differences != nil {
			for i, p := range l.pages {
				rt.Logf("step %d: %+v", i, p)
			}
			rt.Fatalf("%+v\n%s", l.honorLabels, strings.Join(differences, "\n"))
		}
	})
}
