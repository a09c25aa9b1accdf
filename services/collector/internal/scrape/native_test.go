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
		line := s.Series.Labels().String()
		if m := s.Series.Meta; m != nil {
			line += fmt.Sprintf(" meta %s %q %q", m.Type, m.Unit, m.Help)
		}
		line += fmt.Sprint(" since ", s.Start)
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
				natives, exemplars, stale, starts := 0, 0, 0, 0
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
						if s.Start > 0 {
							starts++
						}
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
				if natives < 40 || exemplars < 80 || stale < 50 || starts < 400 {
					t.Errorf("only %d native histograms, %d exemplars, %d stale markers, %d start times", natives, exemplars, stale, starts)
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

// Samples of a layout that is neither sent nor the one that is known fail, and
// the known one is asked for again.
func TestAnotherLayoutThanTheKnownOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		r := newNativeRig(t, nil, answering(func(req *producerv1.CollectRequest, stream grpc.ServerStreamingServer[producerv1.CollectResponse]) error {
			m := whole()
			if n++; n > 1 {
				m.Layout = nil
				if string(req.GetKnownLayoutId()) != "l1" {
					t.Errorf("call %d: layout %q is known", n, req.GetKnownLayoutId())
				}
			}
			if n == 2 {
				m.Begin.LayoutId = []byte("l2")
			}
			return stream.Send(m)
		}))
		c := r.open(nativeProducer())
		want := r.good(c)
		if _, _, result := r.collect(c); result.Reason != schedule.ReasonMalformed {
			t.Errorf("%+v", result)
		}
		equal(t, r.good(c), want)
	})
}

// A series whose stale marker could not be stored gets it later, and is
// forgotten then, though the layout stays.
func TestColumnsForgetVanishedSeries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		metrics, n := scrape.NewMetrics(), 0
		r := newNativeRig(t, func(cfg *scrape.Config) { cfg.Metrics = metrics },
			answering(func(req *producerv1.CollectRequest, stream grpc.ServerStreamingServer[producerv1.CollectResponse]) error {
				m := whole()
				if n++; n > 1 {
					m.Begin.LayoutId, m.Values, m.Seal.SampleCount = []byte("l2"), []float64{1}, 1
					m.Layout.SeriesFamilies, m.Layout.SeriesNames = []uint32{0}, []uint32{1}
					m.Layout.SeriesLabelCounts, m.Layout.LabelSymbols = []uint32{0}, nil
				}
				if string(req.GetKnownLayoutId()) == string(m.GetBegin().GetLayoutId()) {
					m.Layout = nil
				}
				return stream.Send(m)
			}))
		c := r.open(nativeProducer())
		r.good(c)
		r.sink.fail(errors.New("the disk is full"))
		c.Collect(t.Context(), time.Now())
		r.sink.fail(nil)
		time.Sleep(15 * time.Second)
		equal(t, r.good(c), []string{series("a") + " 1", series("b", "x", "y") + " stale"})
		if got := gauge(t, metrics, "rollcall_collector_scrape_cached_series"); got != 1 {
			t.Errorf("%v series are known", got)
		}
	})
}
