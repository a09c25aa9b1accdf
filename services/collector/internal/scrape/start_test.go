package scrape_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// starts are the start times that samples tell, by their names.
func starts(samples []sample.Sample) (all []string) {
	for _, s := range samples {
		if s.Start != 0 {
			all = append(all, fmt.Sprint(s.Series.Labels().Get("__name__"), " ", s.Start))
		}
	}
	slices.Sort(all)
	return all
}

// Start times are told by protobuf. Those that cannot be are not told.
func TestStartTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.open(producer())
		r.typed(protobuf, messages(
			`name: "c_total" type: COUNTER metric { counter { value: 2 created_timestamp { seconds: 7 nanos: 5000000 } } }`,
			`name: "late_total" type: COUNTER metric { counter { value: 2 created_timestamp { seconds: 99999999999 } } }`,
			`name: "huge_total" type: COUNTER metric { counter { value: 2 created_timestamp { seconds: 9223372036854775807 } } }`,
			`name: "early_total" type: COUNTER metric { counter { value: 2 created_timestamp { seconds: -7 } } }`,
			`name: "untold_total" type: COUNTER metric { counter { value: 2 } }`,
			`name: "g" type: GAUGE metric { gauge { value: 4 } }`,
			`name: "q" type: SUMMARY metric { summary { sample_count: 2 sample_sum: 3 created_timestamp { seconds: 8 } quantile { quantile: 1 value: 9 } } }`,
			`name: "h" type: HISTOGRAM metric { histogram { sample_count: 2 created_timestamp { seconds: 9 } bucket { cumulative_count: 1 upper_bound: 1 } } }`,
			`name: "n" type: HISTOGRAM metric { histogram { `+native(1)+` created_timestamp { seconds: 10 } } }`,
		))
		samples, _, _ := r.collect(c)
		equal(t, starts(samples), []string{
			"c_total 7005", "h_bucket 9000", "h_bucket 9000", "h_count 9000", "h_sum 9000", "n 10000", "q 8000", "q_count 8000", "q_sum 8000",
		})

		// A _created line of OpenMetrics is a series like others.
		r.typed(openMetrics, "# TYPE c counter\nc_total 1\nc_created 7\n# EOF\n")
		samples, at, _ := r.collect(c)
		if told := starts(samples); told != nil || !slices.Contains(exposed(samples, at), series("c_created")+" 7") {
			t.Error(told, exposed(samples, at))
		}
	})
}

// Columns of values alone tell start times, too.
func TestStartTimesOfPlainColumns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		registry.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "c_total", Help: "Some."}), prometheus.NewGauge(prometheus.GaugeOpts{Name: "g", Help: "Some."}))
		began := time.Now().UnixMilli()
		time.Sleep(time.Minute)
		r := newNativeRig(t, nil, exposing(registry))
		c := r.open(nativeProducer())
		for range 2 { // with the layout, and without it
			samples, _, _ := r.collect(c)
			equal(t, starts(samples), []string{fmt.Sprint("c_total ", began)})
		}
	})
}
