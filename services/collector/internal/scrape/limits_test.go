package scrape_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/scrape"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// Exactly the limit is allowed, one more is not.
func TestLimits(t *testing.T) {
	limit := func(f func(*assignment.Limits)) func(*assignment.Assignment) {
		return func(a *assignment.Assignment) { f(&a.Limits) }
	}
	filled := func(n int) string { return "a 1\n#" + strings.Repeat("x", n-6) + "\n" }
	value := func(n int) string { return `a{b="` + strings.Repeat("x", n) + `"} 1` + "\n" }
	labels := func(n int) string { // with the name, job and instance
		s := "a{"
		for i := range n - 3 {
			s += fmt.Sprintf("l%d=\"1\",", i)
		}
		return s + "} 1\n"
	}
	for name, tc := range map[string]struct {
		change func(*assignment.Assignment)
		body   func(n int) string
		limit  int
		reason schedule.Reason
	}{
		"body": {limit(func(l *assignment.Limits) { l.MaxBodyBytes = 1000 }), filled, 1000, schedule.ReasonTooLarge},
		"body, default": {nil, func(n int) string {
			return strings.Repeat("#"+strings.Repeat("x", 1000)+"\n", n/1002) + strings.Repeat("\n", n%1002)
		}, 16 << 20, schedule.ReasonTooLarge},
		"samples":        {limit(func(l *assignment.Limits) { l.MaxSamples = 7 }), numbered, 7, schedule.ReasonTooManySamples},
		"samples again":  {limit(func(l *assignment.Limits) { l.MaxSamples = 7 }), func(n int) string { return strings.Repeat("a 1\n", n) }, 7, schedule.ReasonTooManySamples},
		"default":        {nil, numbered, 50_000, schedule.ReasonTooManySamples},
		"negative":       {limit(func(l *assignment.Limits) { l.MaxSamples, l.MaxLabels = -1, -1 }), labels, 64, schedule.ReasonTooLarge},
		"labels":         {limit(func(l *assignment.Limits) { l.MaxLabels = 5 }), labels, 5, schedule.ReasonTooLarge},
		"labels default": {nil, labels, 64, schedule.ReasonTooLarge},
		"value":          {limit(func(l *assignment.Limits) { l.MaxLabelValueBytes = 100 }), value, 100, schedule.ReasonTooLarge},
		"value default":  {nil, value, 16 << 10, schedule.ReasonTooLarge},
		"value at most":  {limit(func(l *assignment.Limits) { l.MaxLabelValueBytes = 1 << 30 }), value, 1 << 20, schedule.ReasonTooLarge},
		"escaped value":  {limit(func(l *assignment.Limits) { l.MaxLabelValueBytes = 1 << 20 }), func(n int) string { return `a{b="` + strings.Repeat(`\\`, n) + `"} 1` + "\n" }, 1 << 20, schedule.ReasonTooLarge},
		"metric name":    {nil, func(n int) string { return strings.Repeat("x", n) + " 1\n" }, 16 << 10, schedule.ReasonTooLarge},
		"label name":     {nil, func(n int) string { return "a{" + strings.Repeat("x", n) + "=\"1\"} 1\n" }, 4 << 10, schedule.ReasonTooLarge},
		"help":           {nil, func(n int) string { return "# HELP a " + strings.Repeat("x", n) + "\n" }, 16 << 10, schedule.ReasonTooLarge},
		"line":           {nil, func(n int) string { return "#" + strings.Repeat("x", n-2) + "\n" }, 1 << 20, schedule.ReasonTooLarge},
		"families": {limit(func(l *assignment.Limits) { l.MaxSamples = 3 }), func(n int) string {
			s := ""
			for i := range n {
				s += fmt.Sprintf("# TYPE a%d gauge\n# HELP a%d x\n# TYPE a%d gauge\n", i, i, i)
			}
			return s
		}, 3, schedule.ReasonTooManySamples},
	} {
		t.Run(name, func(t *testing.T) {
			for _, packed := range []bool{false, true} {
				if packed && !strings.HasPrefix(name, "body") {
					continue
				}
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t, nil)
					a := producer()
					if tc.change != nil {
						tc.change(a)
					}
					c := r.open(a)
					for over, reason := range []schedule.Reason{schedule.ReasonNone, tc.reason, schedule.ReasonNone} {
						text := tc.body(tc.limit + over%2)
						r.answer(body(text))
						if packed {
							r.answer(gzipped(func(w io.Writer) { _, _ = io.WriteString(w, text) }))
						}
						if _, _, result := r.collect(c); result.Reason != reason {
							t.Errorf("%d over %d: %+v, want reason %d", over%2, tc.limit, result, reason)
						}
					}
				})
			}
		})
	}
}

// Bodies of running collections are bounded together.
func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := scrape.NewMetrics()
		r := newRig(t, func(cfg *scrape.Config) { cfg.Metrics, cfg.MaxInFlightBytes = m, 1<<20 })
		release := make(chan struct{})
		half := strings.Repeat("# half a megabyte\n", 20_000) // a buffer of 512 KiB, for a moment with one of 256 KiB
		r.answer(func(w http.ResponseWriter, req *http.Request) {
			fmt.Fprint(w, half)
			_ = http.NewResponseController(w).Flush()
			if req.URL.Path == "/slow" {
				<-release
			}
		})
		slow, quick := producer(), producer()
		slow.Endpoint, quick.ProducerID = "http://node1:9100/slow", "p2"
		cSlow, cQuick := r.open(slow), r.open(quick)
		done := make(chan schedule.Result)
		go func() { done <- cSlow.Collect(t.Context(), time.Now()) }()
		synctest.Wait()
		if n := metric(t, m, "rollcall_collector_scrape_in_flight_bytes", ""); n < 512<<10 || n > 1<<20 {
			t.Errorf("%v bytes in flight", n)
		}
		if result := cQuick.Collect(t.Context(), time.Now()); result.Reason != schedule.ReasonBudget {
			t.Errorf("%+v, want reason budget", result)
		}
		close(release)
		if result := <-done; result.Reason != schedule.ReasonNone {
			t.Errorf("%+v", result)
		}
		if result := cQuick.Collect(t.Context(), time.Now()); result.Reason != schedule.ReasonNone {
			t.Errorf("%+v", result)
		}
		if n := metric(t, m, "rollcall_collector_scrape_in_flight_bytes", ""); n != 0 {
			t.Errorf("%v bytes in flight afterwards", n)
		}
	})
}
