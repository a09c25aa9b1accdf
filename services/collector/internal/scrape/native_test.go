package scrape_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/relabel"
	"google.golang.org/grpc"

	producerv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/producer/v1"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/scrape"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A zoo has metrics of every kind, whose values and series change.
type zoo struct {
	registry  *prometheus.Registry
	requests  *prometheus.CounterVec
	level     prometheus.Gauge
	latency   *prometheus.HistogramVec
	native    *prometheus.HistogramVec
	quantiles prometheus.Summary
	err       error
}

func newZoo() *zoo {
	z := &zoo{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "requests_total", Help: "Requests."}, []string{"code", "job"}),
		level:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "level", Help: "A level."}),
		latency:  prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "latency_seconds", Help: "Time.", Buckets: []float64{0.1, 1, 2.5}}, []string{"path"}),
		native: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "size_bytes", Help: "Sizes.", NativeHistogramBucketFactor: 1.1, NativeHistogramMaxExemplars: 10,
		}, []string{"path"}),
		quantiles: prometheus.NewSummary(prometheus.SummaryOpts{Name: "quantiles", Help: "Some.", Objectives: map[float64]float64{0.5: 0.1, 1: 0.1}}),
	}
	z.registry.MustRegister(z.requests, z.level, z.latency, z.native, z.quantiles)
	return z
}

// Gather is the registry's, or an error.
func (z *zoo) Gather() ([]*dto.MetricFamily, error) {
	if z.err != nil {
		return nil, z.err
	}
	return z.registry.Gather()
}

// live is one step of the zoo's life.
func (z *zoo) live(step int) {
	z.err = nil
	z.requests.WithLabelValues("200", "api").Add(float64(step))
	z.level.Set(float64(step) / 3)
	z.latency.WithLabelValues("/").Observe(float64(step%4) / 2)
	z.native.WithLabelValues("/").Observe(float64(step) * 10)
	z.quantiles.Observe(float64(step))
	if o, ok := z.latency.WithLabelValues("/").(prometheus.ExemplarObserver); ok {
		o.ObserveWithExemplar(0.5, prometheus.Labels{"trace_id": fmt.Sprint(step)})
	}
	if o, ok := z.native.WithLabelValues("/").(prometheus.ExemplarObserver); ok {
		o.ObserveWithExemplar(7, prometheus.Labels{"trace_id": fmt.Sprint(step)})
	}
	switch step % 8 {
	case 2:
		z.requests.WithLabelValues("500", "api").Inc()
		z.native.WithLabelValues("/new").Observe(-1)
	case 4:
		z.err = errors.New("a collector is broken")
	case 6:
		z.requests.DeleteLabelValues("500", "api")
		z.native.DeleteLabelValues("/new")
		z.latency.WithLabelValues("/sometimes").Observe(1)
	case 7:
		z.latency.DeleteLabelValues("/sometimes")
	}
}

// full shows samples with all that they have but how long the collection took.
func full(samples []sample.Sample, at time.Time) []string {
	all := lines(samples, at)
	for _, s := range samples {
		line := s.Series.Labels.String()
		if m := s.Series.Meta; m != nil {
			line += fmt.Sprintf(" meta %s %q %q", m.Type, m.Unit, m.Help)
		}
		if x := s.Extra; x != nil {
			line += fmt.Sprint(" ", x.Histogram, " ", x.FloatHistogram)
			for _, e := range x.Exemplars {
				line += fmt.Sprint(" exemplar ", e.Labels, e.Value, e.HasTs, e.Ts)
			}
		}
		all = append(all, line)
	}
	slices.Sort(all)
	return all
}

// The same registry pulled as protobuf over HTTP and in columns over gRPC makes
// the same batches, over minutes in which series come and go, and collections
// fail.
func TestParityOfColumnsAndProtobuf(t *testing.T) {
	for _, honor := range []bool{false, true} {
		t.Run(fmt.Sprint("honor_labels ", honor), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				z := newZoo()
				byHTTP := newRig(t, nil)
				byHTTP.answer(promhttp.HandlerFor(z, promhttp.HandlerOpts{}).ServeHTTP)
				byGRPC := newNativeRig(t, nil, exposing(z))
				a, b := producer(), nativeProducer()
				a.HonorLabels, b.HonorLabels = honor, honor
				left, right := byHTTP.open(a), byGRPC.open(b)
				natives, exemplars, stale := 0, 0, 0
				for step := range 48 {
					z.live(step)
					one, at, result := byHTTP.collect(left)
					two, _, same := byGRPC.collect(right)
					if (result.Reason == schedule.ReasonNone) != (same.Reason == schedule.ReasonNone) || (same.Reason != schedule.ReasonNone) != (z.err != nil) {
						t.Fatalf("step %d: %+v and %+v", step, result, same)
					}
					got, want := full(two, at), full(one, at)
					if !slices.Equal(got, want) {
						t.Fatalf("step %d: columns\n%s\nprotobuf\n%s", step, strings.Join(got, "\n"), strings.Join(want, "\n"))
					}
					for _, s := range two {
						if s.Extra != nil && s.Extra.Histogram != nil {
							natives++
						}
						if s.Extra != nil {
							exemplars += len(s.Extra.Exemplars)
						}
					}
					stale += strings.Count(strings.Join(got, "\n"), " stale")
					time.Sleep(15 * time.Second)
				}
				if natives < 40 || exemplars < 80 || stale < 50 {
					t.Errorf("only %d native histograms, %d exemplars, %d stale markers", natives, exemplars, stale)
				}
			})
		})
	}
}

// A steady producer sends its layout once.
func TestLayoutIsSentOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZoo()
		r := newNativeRig(t, nil, exposing(z))
		c := r.open(nativeProducer())
		var sizes []int64
		for step := range 3 {
			z.requests.WithLabelValues("200", "api").Inc()
			z.level.Set(float64(step))
			_, _, result := r.collect(c)
			if result.Reason != schedule.ReasonNone || result.Identity != schedule.IdentityOwn {
				t.Fatalf("%+v", result)
			}
			sizes = append(sizes, result.BodyBytes)
		}
		if sizes[1] > sizes[0]/2 || sizes[2] > sizes[0]/2 {
			t.Errorf("answers of %d bytes", sizes)
		}
		// Other labels make other series: what was known of them is forgotten.
		a := nativeProducer()
		a.Labels = append(a.Labels, assignment.Label{Name: "zone", Value: "b"})
		if err := c.(*scrape.Collection).Update(a); err != nil { //nolint:errcheck,forcetypeassert // it is
			t.Fatal(err)
		}
		samples, _, result := r.collect(c)
		if result.Reason != schedule.ReasonNone || result.BodyBytes < sizes[0] || len(samples) < 2*result.Samples {
			t.Errorf("%+v, %d samples", result, len(samples))
		}
	})
}

// begun is the first chunk of the default producer.
func begun(layoutID string) *producerv1.CollectResponse {
	return &producerv1.CollectResponse{Begin: &producerv1.Begin{ProducerId: "p1", LayoutId: []byte(layoutID)}}
}

// whole is a sound answer of one chunk: a 1, b{x="y"} 2.
func whole() *producerv1.CollectResponse {
	m := begun("l1")
	m.Layout = &producerv1.Layout{
		Symbols: []string{"a", "b", "x", "y"}, FamilyNames: []uint32{1, 2}, FamilyTypes: []producerv1.MetricType{2, 2},
		FamilyHelps: []uint32{0, 0}, FamilyUnits: []uint32{0, 0},
		SeriesFamilies: []uint32{0, 1}, SeriesNames: []uint32{1, 2}, SeriesLabelCounts: []uint32{0, 1}, LabelSymbols: []uint32{3, 4},
	}
	m.Values = []float64{1, 2}
	m.Seal = &producerv1.Seal{ChunkCount: 1, SampleCount: 2}
	return m
}

// withNative is a sound answer with a native histogram: h.
func withNative() *producerv1.CollectResponse {
	m := begun("l2")
	m.Layout = &producerv1.Layout{
		Symbols: []string{"h"}, FamilyNames: []uint32{1}, FamilyTypes: []producerv1.MetricType{3}, FamilyHelps: []uint32{0},
		FamilyUnits: []uint32{0}, SeriesFamilies: []uint32{0}, SeriesNames: []uint32{1}, SeriesLabelCounts: []uint32{0}, HistogramSeries: []uint32{0},
	}
	m.Histograms = &producerv1.Histograms{
		Schemas: []int32{0}, Floats: []bool{false}, CounterResets: []producerv1.CounterReset{0}, Sums: []float64{3},
		ZeroThresholds: []float64{0}, Counts: []uint64{3, 0}, SpanCounts: []uint32{1, 0}, SpanOffsets: []int32{0}, SpanLengths: []uint32{2},
		BucketDeltas: []int64{1, 1}, CustomBoundCounts: []uint32{0},
	}
	m.Seal = &producerv1.Seal{ChunkCount: 1, SampleCount: 1}
	return m
}

func changed(m *producerv1.CollectResponse, change func(*producerv1.CollectResponse)) []*producerv1.CollectResponse {
	change(m)
	return []*producerv1.CollectResponse{m}
}

// lies are answers that are no answers, and why.
func lies() map[string]struct {
	chunks []*producerv1.CollectResponse
	reason schedule.Reason
} {
	type lie = struct {
		chunks []*producerv1.CollectResponse
		reason schedule.Reason
	}
	one := func(change func(*producerv1.CollectResponse)) lie {
		return lie{changed(whole(), change), schedule.ReasonMalformed}
	}
	native := func(change func(*producerv1.Histograms)) lie {
		return lie{changed(withNative(), func(m *producerv1.CollectResponse) { change(m.GetHistograms()) }), schedule.ReasonMalformed}
	}
	type response = *producerv1.CollectResponse
	sealed := func() response {
		return &producerv1.CollectResponse{Seal: &producerv1.Seal{ChunkCount: 2, SampleCount: 2}}
	}
	all := map[string]lie{
		"nothing":                 {nil, schedule.ReasonMalformed},
		"no seal":                 one(func(m response) { m.Seal = nil }),
		"two seals":               {[]response{whole(), sealed()}, schedule.ReasonMalformed},
		"a chunk behind the seal": {[]response{whole(), {}}, schedule.ReasonMalformed},
		"seal of other chunks":    one(func(m response) { m.Seal.ChunkCount = 2 }),
		"seal of other samples":   one(func(m response) { m.Seal.SampleCount = 3 }),
		"no begin":                one(func(m response) { m.Begin = nil }),
		"two begins":              {[]response{begun("l1"), whole()}, schedule.ReasonMalformed},
		"no layout id":            one(func(m response) { m.Begin.LayoutId = nil }),
		"long layout id":          one(func(m response) { m.Begin.LayoutId = make([]byte, 65) }),
		"layout never sent":       one(func(m response) { m.Layout = nil }),
		"empty symbol":            one(func(m response) { m.Layout.Symbols[3] = "" }),
		"symbol beyond":           one(func(m response) { m.Layout.LabelSymbols[1] = 5 }),
		"symbol far beyond":       one(func(m response) { m.Layout.SeriesNames[0] = 1 << 31 }),
		"family beyond":           one(func(m response) { m.Layout.SeriesFamilies[1] = 2 }),
		"family name beyond":      one(func(m response) { m.Layout.FamilyNames[1] = 99 }),
		"family without a name":   one(func(m response) { m.Layout.FamilyNames[1] = 0 }),
		"series without a name":   one(func(m response) { m.Layout.SeriesNames[1] = 0 }),
		"families descend":        one(func(m response) { m.Layout.SeriesFamilies = []uint32{1, 0} }),
		"too few helps":           one(func(m response) { m.Layout.FamilyHelps = nil }),
		"too few label counts":    one(func(m response) { m.Layout.SeriesLabelCounts = []uint32{0} }),
		"labels disagree":         one(func(m response) { m.Layout.SeriesLabelCounts[1] = 2 }),
		"start times disagree":    one(func(m response) { m.Layout.SeriesStartTimesMs = []int64{1} }),
		"histogram beyond":        one(func(m response) { m.Layout.HistogramSeries = []uint32{7} }),
		"histogram without one":   one(func(m response) { m.Layout.HistogramSeries = []uint32{1} }),
		"too few values":          one(func(m response) { m.Values = m.GetValues()[:1]; m.Seal.SampleCount = 1 }),
		"too many values":         one(func(m response) { m.Values = append(m.Values, 1); m.Seal.SampleCount = 3 }),
		"duplicate labels": one(func(m response) {
			m.Layout.SeriesLabelCounts[1], m.Layout.LabelSymbols = 2, []uint32{3, 4, 3, 4}
		}),
		"2^31 labels":        {changed(whole(), func(m response) { m.Layout.SeriesLabelCounts[1] = 1 << 31 }), schedule.ReasonTooLarge},
		"another's":          {changed(whole(), func(m response) { m.Begin.ProducerId = "p2" }), schedule.ReasonWrongProducer},
		"time stamps beyond": one(func(m response) { m.Timestamps = &producerv1.Timestamps{Series: []uint32{2}, TimesMs: []int64{1}} }),
		"time stamps twice": one(func(m response) {
			m.Timestamps = &producerv1.Timestamps{Series: []uint32{1, 1}, TimesMs: []int64{1, 2}}
		}),
		"time stamps missing": one(func(m response) { m.Timestamps = &producerv1.Timestamps{Series: []uint32{1}} }),
		"exemplar labels": one(func(m response) {
			m.Exemplars = &producerv1.Exemplars{Series: []uint32{1}, Values: []float64{1}, TimesMs: []int64{0}, LabelCounts: []uint32{1 << 31}, Labels: []string{"a", "b"}}
		}),
		"exemplars descend": one(func(m response) {
			m.Exemplars = &producerv1.Exemplars{Series: []uint32{1, 0}, Values: []float64{1, 1}, TimesMs: []int64{0, 0}, LabelCounts: []uint32{0, 0}}
		}),
		"two exemplars of a value": one(func(m response) {
			m.Exemplars = &producerv1.Exemplars{Series: []uint32{1, 1}, Values: []float64{1, 1}, TimesMs: []int64{0, 0}, LabelCounts: []uint32{0, 0}}
		}),
		"2^31 buckets":     {changed(withNative(), func(m response) { m.Histograms.SpanLengths[0] = 1 << 31 }), schedule.ReasonTooLarge},
		"2^31 spans":       {changed(withNative(), func(m response) { m.Histograms.SpanCounts[1] = 1 << 31 }), schedule.ReasonTooLarge},
		"2^31 bounds":      native(func(h *producerv1.Histograms) { h.CustomBoundCounts[0] = 1 << 31 }),
		"no such span":     native(func(h *producerv1.Histograms) { h.SpanCounts[0] = 2 }),
		"a span too many":  native(func(h *producerv1.Histograms) { h.SpanCounts[0] = 0 }),
		"no such buckets":  native(func(h *producerv1.Histograms) { h.SpanLengths[0] = 3 }),
		"counts disagree":  native(func(h *producerv1.Histograms) { h.Counts[0] = 4 }),
		"counts are short": native(func(h *producerv1.Histograms) { h.Counts = h.GetCounts()[:1] }),
		"spans overflow":   native(func(h *producerv1.Histograms) { h.SpanOffsets[0] = 1<<31 - 1 }),
		"unknown schema":   native(func(h *producerv1.Histograms) { h.Schemas[0] = 77 }),
	}
	return all
}

// Each lie fails the collection, with its reason, and costs nothing of what was
// known: the next good answer, of the layout from before, is stored.
func TestLiesInColumns(t *testing.T) {
	for name, lie := range lies() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				r := newNativeRig(t, nil, answering(func(_ *producerv1.CollectRequest, stream grpc.ServerStreamingServer[producerv1.CollectResponse]) error {
					n++
					if n != 2 {
						return stream.Send(whole())
					}
					for _, c := range lie.chunks {
						if err := stream.Send(c); err != nil {
							return err
						}
					}
					return nil
				}))
				// What is lied about for the first time.
				first := newNativeRig(t, nil, chunks(lie.chunks...))
				_, _, result := first.collect(first.open(nativeProducer()))
				if result.Reason != lie.reason {
					t.Errorf("first: %+v, want %v", result, lie.reason)
				}
				c := r.open(nativeProducer())
				want := []string{series("a") + " 1", series("b", "x", "y") + " 2"}
				equal(t, r.good(c), want)
				samples, at, result := r.collect(c)
				// With the layout from before, an answer without one is right.
				if name != "layout never sent" {
					if result.Reason != lie.reason {
						t.Errorf("%+v, want %v", result, lie.reason)
					}
					equal(t, exposed(samples, at), []string{series("a") + " stale", series("b", "x", "y") + " stale"})
				}
				equal(t, r.good(c), want)
			})
		})
	}
}

// A registry that fails to gather, an answer by another protocol, and silence
// each have their reason.
func TestFailuresOfCalls(t *testing.T) {
	for name, c := range map[string]struct {
		register func(grpc.ServiceRegistrar)
		reason   schedule.Reason
		says     string
	}{
		"broken registry": {exposing(&zoo{err: errors.New(strings.Repeat("broken ", 1000))}), schedule.ReasonStatus, "gRPC status Internal: broken"},
		"no service":      {func(grpc.ServiceRegistrar) {}, schedule.ReasonStatus, "gRPC status Unimplemented"},
		"silence": {answering(func(_ *producerv1.CollectRequest, s grpc.ServerStreamingServer[producerv1.CollectResponse]) error {
			<-s.Context().Done()
			return io.ErrUnexpectedEOF
		}), schedule.ReasonTimeout, "timed out"},
		"slow drip": {answering(func(_ *producerv1.CollectRequest, s grpc.ServerStreamingServer[producerv1.CollectResponse]) error {
			for err := s.Send(begun("l1")); err == nil; err = s.Send(&producerv1.CollectResponse{Values: []float64{1}}) {
				time.Sleep(time.Second)
			}
			return nil
		}), schedule.ReasonTimeout, "timed out"},
		"empty chunks":      {endless(&producerv1.CollectResponse{}), schedule.ReasonTooLarge, "an answer of more than"},
		"endless values":    {endless(&producerv1.CollectResponse{Values: make([]float64, 20_000)}), schedule.ReasonTooManySamples, "more than 50000"},
		"endless symbols":   {endless(&producerv1.CollectResponse{Layout: &producerv1.Layout{Symbols: slices.Repeat([]string{"a"}, 50_000)}}), schedule.ReasonBudget, "running collections hold"},
		"a chunk too large": {chunks(begun("l1"), &producerv1.CollectResponse{Values: make([]float64, 40_000)}), schedule.ReasonTooLarge, "a chunk of more than"},
		"one symbol for all": {chunks(changed(whole(), func(m *producerv1.CollectResponse) {
			m.Layout.Symbols[3] = strings.Repeat("y", 16_000)
			m.Layout.SeriesFamilies, m.Layout.SeriesNames = make([]uint32, 5000), slices.Repeat([]uint32{1}, 5000)
			m.Layout.SeriesLabelCounts, m.Layout.LabelSymbols = slices.Repeat([]uint32{1}, 5000), slices.Repeat([]uint32{3, 4}, 5000)
			m.Values, m.Seal.SampleCount = make([]float64, 5000), 5000
		})...), schedule.ReasonTooLarge, "series of more than"},
		"bad UTF-8": {answering(func(_ *producerv1.CollectRequest, s grpc.ServerStreamingServer[producerv1.CollectResponse]) error {
			return s.SendMsg(rawChunk("\x12\x03\x0a\x01\xff"))
		}), schedule.ReasonMalformed, "UTF-8"},
		"no protobuf": {answering(func(_ *producerv1.CollectRequest, s grpc.ServerStreamingServer[producerv1.CollectResponse]) error {
			return s.SendMsg(rawChunk("\x1a\xff\xff\xff\xff\x0f"))
		}), schedule.ReasonMalformed, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				metrics := scrape.NewMetrics()
				r := newNativeRig(t, func(cfg *scrape.Config) { cfg.Metrics, cfg.MaxInFlightBytes = metrics, 16<<20 }, c.register)
				col := r.open(nativeProducer())
				_, _, result := r.collect(col)
				if result.Reason != c.reason || !strings.Contains(result.Message, c.says) || len(result.Message) > 350 {
					t.Errorf("%+v, want %v with %q", result, c.reason, c.says)
				}
				if got := gauge(t, metrics, "rollcall_collector_scrape_in_flight_bytes"); got != 0 {
					t.Errorf("%v bytes are still in flight", got)
				}
			})
		})
	}
}

// A producer that is another one refuses, and the collector knows whom it has
// found.
func TestAnotherProducerRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newNativeRig(t, nil, exposing(newZoo()))
		a := nativeProducer()
		a.ProducerID = "p2"
		_, _, result := r.collect(r.open(a))
		if result.Reason != schedule.ReasonWrongProducer || result.Identity != schedule.IdentityOther || !strings.Contains(result.Message, `"p1"`) {
			t.Errorf("%+v", result)
		}
	})
}

// A producer that was away is collected as soon as it is back: there is no
// backoff between collections.
func TestNoBackoffBetweenCollections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := newPipeNet()
		down.Close()
		z := newZoo()
		r := newNativeRig(t, nil, exposing(z))
		dial, refuse := r.net.dial, true
		s := scrape.New(scrape.Config{Sink: r.sink, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if refuse {
				return down.dial(ctx, network, address)
			}
			return dial(ctx, network, address)
		}})
		defer s.Close()
		c, err := s.Open(nativeProducer())
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if result := c.Collect(t.Context(), time.Now()); result.Reason != schedule.ReasonUnreachable || !strings.Contains(result.Message, "connection refused") {
				t.Fatalf("%+v", result)
			}
			time.Sleep(time.Second)
		}
		refuse = false
		if result := c.Collect(t.Context(), time.Now()); result.Reason != schedule.ReasonNone {
			t.Fatalf("%+v", result)
		}
	})
}

// Series that relabeling drops are relabeled once: a layout remembers them, and
// they count as not stored in each answer.
func TestColumnsRememberWhatIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rule := &relabel.Config{
			SourceLabels: []model.LabelName{"__name__"}, Regex: relabel.MustNewRegexp("b"),
			Action: relabel.Drop, NameValidationScheme: model.UTF8Validation,
		}
		r := newNativeRig(t, func(cfg *scrape.Config) { cfg.Setup.Series = []*relabel.Config{rule} },
			answering(func(req *producerv1.CollectRequest, stream grpc.ServerStreamingServer[producerv1.CollectResponse]) error {
				m := whole()
				if len(req.GetKnownLayoutId()) > 0 {
					m.Layout = nil
				}
				return stream.Send(m)
			}))
		c := r.open(nativeProducer())
		for range 30 {
			samples, at, result := r.collect(c)
			if result.Reason != schedule.ReasonNone {
				t.Fatalf("%+v", result)
			}
			equal(t, exposed(samples, at), []string{series("a") + " 1"})
			all := strings.Join(lines(samples, at), "\n")
			for _, want := range []string{series("scrape_samples_scraped") + " 2", series("scrape_samples_post_metric_relabeling") + " 1"} {
				if !strings.Contains(all, want) {
					t.Errorf("no %s in\n%s", want, all)
				}
			}
			time.Sleep(15 * time.Second)
		}
	})
}

// Limits of labels, of the assignment and of the collector, hold for columns;
// exactly the limit is allowed. So do ignored time stamps, and those far ahead.
func TestColumnsHeedTheAssignment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stamped := func(ms int64) *producerv1.CollectResponse {
			return changed(whole(), func(m *producerv1.CollectResponse) {
				m.Timestamps = &producerv1.Timestamps{Series: []uint32{1}, TimesMs: []int64{ms}}
			})[0]
		}
		now := time.Now().UnixMilli()
		b := series("b", "x", "y")
		for name, c := range map[string]struct {
			change func(*assignment.Assignment)
			chunk  *producerv1.CollectResponse
			reason schedule.Reason
			want   []string
		}{
			"labels fit":  {func(a *assignment.Assignment) { a.Limits.MaxLabels = 4 }, whole(), 0, []string{series("a") + " 1", b + " 2"}},
			"too many":    {func(a *assignment.Assignment) { a.Limits.MaxLabels = 3 }, whole(), schedule.ReasonTooLarge, nil},
			"samples fit": {func(a *assignment.Assignment) { a.Limits.MaxSamples = 2 }, whole(), 0, []string{series("a") + " 1", b + " 2"}},
			"samples":     {func(a *assignment.Assignment) { a.Limits.MaxSamples = 1 }, whole(), schedule.ReasonTooManySamples, nil},
			"body":        {func(a *assignment.Assignment) { a.Limits.MaxBodyBytes = 20 }, whole(), schedule.ReasonTooLarge, nil},
			"stamped":     {func(*assignment.Assignment) {}, stamped(now - 1000), 0, []string{series("a") + " 1", fmt.Sprintf("%s 2 @%d", b, now-1000)}},
			"ignored":     {func(a *assignment.Assignment) { a.IgnoreTimestamps = true }, stamped(now - 1000), 0, []string{series("a") + " 1", b + " 2"}},
			"far ahead":   {func(*assignment.Assignment) {}, stamped(now + 3600_000), 0, []string{series("a") + " 1"}},
			"exposed up": {func(*assignment.Assignment) {}, changed(whole(), func(m *producerv1.CollectResponse) {
				m.Layout.Symbols[0] = "up"
			})[0], 0, []string{b + " 2"}},
		} {
			r := newNativeRig(t, nil, chunks(c.chunk))
			a := nativeProducer()
			c.change(a)
			samples, at, result := r.collect(r.open(a))
			if result.Reason != c.reason {
				t.Errorf("%s: %+v", name, result)
			}
			equal(t, exposed(samples, at), c.want)
		}
	})
}
