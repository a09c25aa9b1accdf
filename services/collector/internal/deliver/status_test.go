package deliver_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// A brokenLog gives an error that a log does not give.
type brokenLog struct{ *fakeLog }

func (brokenLog) Next(context.Context, *sample.Record) error { return errors.New("broken") }

// value is the sum of a metric over all labels but those told.
func value(t *testing.T, m *deliver.Metrics, name string, want prometheus.Labels) float64 {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(m)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum, found := 0.0, false
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, metric := range f.GetMetric() {
			have := prometheus.Labels{}
			for _, l := range metric.GetLabel() {
				have[l.GetName()] = l.GetValue()
			}
			matches := true
			for k, v := range want {
				matches = matches && have[k] == v
			}
			if matches {
				found = true
				sum += metric.GetCounter().GetValue() + metric.GetGauge().GetValue() + float64(metric.GetHistogram().GetSampleCount())
			}
		}
	}
	if !found {
		t.Errorf("there is no %s%v", name, want)
	}
	return sum
}

func TestStatusAndMetricsTellTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		metrics := deliver.NewMetrics()
		g := run(t, deliver.Config{MaxSamplesPerSend: 100, MaxConcurrency: 1, Metrics: metrics})
		began := time.Now()
		outcomes := []deliver.Outcome{
			{Code: "200", Bytes: 1000},
			{Code: "200", Bytes: 1000, Refused: 3, Reason: deliver.ReasonDuplicate, Err: errors.New("three of them")},
			{Result: deliver.Rejected, Code: "400", Reason: "what is this", Bytes: 10, Err: errors.New(strings.Repeat("long", 1000))},
			{Result: deliver.Retry, Code: "500"},
		}
		var next atomic.Int64
		g.receiver.reply(func(_ context.Context, r *deliver.Request) (deliver.Outcome, int) {
			time.Sleep(time.Second)
			o := outcomes[min(next.Add(1)-1, int64(len(outcomes)-1))]
			if o.Result != deliver.Delivered {
				return o, 0
			}
			return o, len(r.Items) - o.Refused
		})
		g.log.dropped = map[string]int64{deliver.ReasonOverflow: 5, deliver.ReasonDuplicate: 1, deliver.ReasonCorrupt: 0}
		g.fill(4, 1, 100)
		sleep(4 * time.Second)
		st := g.sink.Status()
		want := deliver.Status{
			Name: "one", Protocol: "fake", LagBytes: 1000, LagDuration: 4 * time.Second, OldestTime: began,
			SamplesPerSecond: 197.0 / 4, Delivered: 197,
			Dropped: map[string]int64{
				deliver.ReasonOverflow: 5, deliver.ReasonDuplicate: 4, deliver.ReasonRejected: 100,
			},
			Concurrency: 1, LastSuccess: began.Add(2 * time.Second),
			LastErrorTime: began.Add(4 * time.Second), Failing: true,
		}
		if diff := cmp.Diff(want, st, cmp.Comparer(time.Time.Equal)); diff != "" {
			t.Error(diff)
		}
		for name, want := range map[string]float64{
			"rollcall_sink_requests_total":                 4,
			"rollcall_sink_request_duration_seconds":       4,
			"rollcall_sink_retries_total":                  1,
			"rollcall_sink_sent_bytes_total":               2010,
			"rollcall_sink_refused_samples_total":          103,
			"rollcall_sink_delivered_samples_total":        197,
			"rollcall_sink_dropped_samples_total":          109,
			"rollcall_sink_in_flight_requests":             0,
			"rollcall_sink_concurrency_limit":              1,
			"rollcall_sink_lag_bytes":                      1000,
			"rollcall_sink_lag_seconds":                    4,
			"rollcall_sink_failing":                        1,
			"rollcall_sink_panics_total":                   0,
			"rollcall_sink_last_success_timestamp_seconds": float64(began.Unix() + 2),
		} {
			if got := value(t, metrics, name, prometheus.Labels{"sink": "one"}); got != want {
				t.Errorf("%s = %v, want %v", name, got, want)
			}
		}
		problems, err := testutil.CollectAndLint(metrics)
		if err != nil || len(problems) > 0 {
			t.Error(err, problems)
		}
		g.receiver.reply(nil)
	})
}

func TestMetricsForgetASinkThatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		metrics := deliver.NewMetrics()
		l := newLog()
		first := start(t.Context(), l, newReceiver(l), deliver.Config{Metrics: metrics})
		second := start(t.Context(), l, newReceiver(l), deliver.Config{Metrics: metrics}) // after a reload
		if err := first.stop(); err != nil {
			t.Error(err)
		}
		if n := value(t, metrics, "rollcall_sink_concurrency_limit", nil); n != 1 {
			t.Errorf("%v", n)
		}
		if err := second.stop(); err != nil {
			t.Error(err)
		}
		if n := testutil.CollectAndCount(metrics); n != 0 {
			t.Errorf("%d metrics are left", n)
		}
	})
}

func TestTheLogIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		g := run(t, deliver.Config{
			MaxSamplesPerSend: 10, Logger: slog.New(slog.NewTextHandler(&text, nil)),
		})
		var gone atomic.Bool
		gone.Store(true)
		g.receiver.reply(func(_ context.Context, r *deliver.Request) (deliver.Outcome, int) {
			if gone.Load() {
				return unreachable(), 0
			}
			return deliver.Outcome{Result: deliver.Delivered, Refused: 1, Reason: deliver.ReasonTooOld}, len(r.Items) - 1
		})
		g.fill(1, 1, 10)
		sleep(time.Hour)
		gone.Store(false)
		sleep(time.Minute)
		for range 600 {
			g.fill(1, 1, 10)
			sleep(time.Second)
		}
		count := func(s string) int { return strings.Count(text.String(), s) }
		if n := count("does not take samples"); n < 55 || n > 61 {
			t.Errorf("%d lines in an hour", n)
		}
		if n := count("takes samples again"); n != 1 {
			t.Errorf("%d lines", n)
		}
		if n := count("samples dropped"); n < 60 || n > 62 {
			t.Errorf("%d lines in ten minutes", n)
		}
		if !strings.Contains(text.String(), "sink=one reason=too_old samples=10 ") {
			t.Error(text.String())
		}
	})
}

func TestAPanicCostsWhatPanics(t *testing.T) {
	for name, c := range map[string]struct {
		when      string
		delivered int64
		dropped   map[string]int64
	}{
		"Send":      {"send", 90, map[string]int64{deliver.ReasonRejected: 10}},
		"Add":       {"add", 94, map[string]int64{deliver.ReasonInvalid: 6}},
		"NewSeries": {"new", 0, map[string]int64{deliver.ReasonInvalid: 100}},
	} {
		synctest.Test(t, func(t *testing.T) {
			metrics := deliver.NewMetrics()
			l := newLog()
			for i := range 100 {
				l.settled[i] = true
			}
			bomb := &bomb{receiver: newReceiver(l), when: c.when}
			s := deliver.New(deliver.Config{Name: "one", Log: l, Transport: bomb, MaxSamplesPerSend: 10, Metrics: metrics})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- s.Run(ctx) }()
			for range 4 {
				l.write(1, 10)
				l.write(2, 10)
			}
			l.write(1, 10)
			l.write(3, 10)
			sleep(time.Second)
			st := s.Status()
			if st.Delivered != c.delivered || !maps.Equal(st.Dropped, c.dropped) || !l.idle() {
				t.Errorf("%s: %+v", name, st)
			}
			if value(t, metrics, "rollcall_sink_panics_total", nil) == 0 {
				t.Errorf("%s: no panic", name)
			}
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}
