package scrape_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/scrape"
)

func TestVanishedSeriesGoesStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.open(producer())
		steps := []struct {
			body string
			want []string
		}{
			{"a 1\nb 2\nc 3 1000\n", []string{series("a") + " 1", series("b") + " 2", series("c") + " 3 @1000"}},
			// c had a time stamp of its own: no marker.
			{"a 1\n", []string{series("a") + " 1", series("b") + " stale"}},
			// Once only.
			{"a 1\n", []string{series("a") + " 1"}},
			// Written otherwise, it is the same series.
			{"a{} 1\n", []string{series("a") + " 1"}},
			{`a{x=""} 1` + "\nb 2\n", []string{series("a") + " 1", series("b") + " 2"}},
			// From now on with a time stamp.
			{"a 1\nb 2 2000\n", []string{series("a") + " 1", series("b") + " 2 @2000", series("b") + " stale"}},
			{"a 1\nb 2 3000\n", []string{series("a") + " 1", series("b") + " 2 @3000"}},
			{"a 1\nb 2\n", []string{series("a") + " 1", series("b") + " 2"}},
			// A marker at that time would hide the value.
			{"a 1\nb 2 %d\n", []string{series("a") + " 1", series("b") + " 2"}},
			// An empty body is an exposition.
			{"", []string{series("a") + " stale"}},
			{"", nil},
			{"a 1\n", []string{series("a") + " 1"}},
		}
		for i, step := range steps {
			r.text(strings.ReplaceAll(step.body, "%d", fmt.Sprint(time.Now().UnixMilli())))
			samples, at, result := r.collect(c)
			if result.Reason != schedule.ReasonNone {
				t.Fatalf("step %d: %+v", i, result)
			}
			t.Logf("step %d", i)
			equal(t, exposed(samples, at), step.want)
			time.Sleep(15 * time.Second)
		}
	})
}

func TestFailureMarksAllStale(t *testing.T) {
	for name, broken := range map[string]struct {
		handler http.HandlerFunc
		reason  schedule.Reason
		scraped string
	}{
		"status": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, schedule.ReasonStatus, "0"},
		"half": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			fmt.Fprint(w, "a 7\nnew 1\nb{")
		}, schedule.ReasonMalformed, "2"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, nil)
				r.text("a 1\nb 2\nc 3 1000\n")
				c := r.open(producer())
				r.good(c)
				for i := range 3 {
					r.answer(broken.handler)
					samples, at, result := r.collect(c)
					if result.Reason != broken.reason || result.Message == "" {
						t.Errorf("%+v, want reason %d", result, broken.reason)
					}
					want := []string{
						series("up") + " 0",
						series("scrape_duration_seconds") + " _",
						series("scrape_samples_scraped") + " " + broken.scraped,
						series("scrape_samples_post_metric_relabeling") + " " + broken.scraped,
						series("scrape_series_added") + " 0",
					}
					if i == 0 {
						want = append(want, series("a")+" stale", series("b")+" stale")
					}
					equal(t, lines(samples, at), want)
				}
				r.text("a 1\nb 2\n")
				equal(t, r.good(c), []string{series("a") + " 1", series("b") + " 2"})
			})
		})
	}
}

// What a failed exposition had is not known afterwards.
func TestRejectedSeriesAreNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.open(producer())
		r.text("a 1\nb{")
		r.collect(c)
		r.text("a 1\n")
		samples, at, _ := r.collect(c)
		equal(t, exposed(samples, at), []string{series("a") + " 1"})
		if !slices.Contains(lines(samples, at), series("scrape_series_added")+" 1") {
			t.Errorf("a is not new: %q", lines(samples, at))
		}
		r.text("b 1\n")
		equal(t, r.good(c), []string{series("a") + " stale", series("b") + " 1"})
	})
}

// A producer that fails for long is not remembered, and comes back as new.
func TestCacheIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := scrape.NewMetrics()
		r := newRig(t, func(cfg *scrape.Config) { cfg.Metrics = m })
		cached := func() float64 { return metric(t, m, "rollcall_collector_scrape_cached_series", "") }
		c := r.open(producer())
		body := func(n int, labels string) string {
			var b strings.Builder
			for i := range n {
				fmt.Fprintf(&b, labels, i)
			}
			return b.String()
		}
		r.text(body(100, "a{i=\"%d\"} 1\n"))
		r.good(c)
		if n := cached(); n != 100 {
			t.Errorf("%v series cached, want 100", n)
		}
		// Churn, good and failed, and the same series spelled anew each time.
		for i := range 50 {
			r.text(body(100, fmt.Sprintf("a{churn=\"%d\",i=\"%%d\"} 1\n", i)))
			r.good(c)
			r.text(body(100, fmt.Sprintf("a{fail=\"%d\",i=\"%%d\"} 1\n", i)) + "{")
			r.collect(c)
			r.sink.fail(errors.New("full"))
			r.text(body(100, fmt.Sprintf("a{store=\"%d\",i=\"%%d\"} 1\n", i)))
			if result := c.Collect(t.Context(), time.Now()); result.Reason != schedule.ReasonStore || result.Message != "not stored: full" {
				t.Fatalf("%+v", result)
			}
			r.sink.fail(nil)
			r.text(strings.Repeat(" ", 0) + body(100, "a{i=\"%d\""+strings.Repeat(",", i%2)+"} 1\n"))
			r.good(c)
			if n := cached(); n != 100 {
				t.Fatalf("%v series cached, want 100", n)
			}
		}
		r.answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) })
		for i := range 10 {
			if n := cached(); n != 100 {
				t.Fatalf("%v series cached after %d failures, want 100", n, i)
			}
			r.collect(c)
		}
		if n := cached(); n != 0 {
			t.Errorf("%v series cached, want 0", n)
		}
		r.text(body(100, "a{i=\"%d\"} 1\n"))
		r.good(c)
		c.End(time.Now(), false)
		if n := cached(); n != 0 {
			t.Errorf("%v series cached after the end, want 0", n)
		}
	})
}

// What the sink did not take is neither seen nor stale: the next batch tells
// the difference to what it has.
func TestSinkError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.open(producer())
		r.text("a 1\nb 1\n")
		r.good(c)

		r.sink.fail(errors.New("disk full"))
		r.text("a 2\nc 2\n")
		if result := c.Collect(t.Context(), time.Now()); result.Reason != schedule.ReasonStore || result.Samples != 2 {
			t.Errorf("%+v, want reason store", result)
		}
		r.answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
		result := c.Collect(t.Context(), time.Now())
		if result.Reason != schedule.ReasonStatus || !strings.Contains(result.Message, "disk full") {
			t.Errorf("%+v, want reason status with both messages", result)
		}

		r.sink.fail(nil)
		r.text("b 3\nd 3\n")
		equal(t, r.good(c), []string{series("a") + " stale", series("b") + " 3", series("d") + " 3"})
	})
}

func TestSinkIsBoundedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(cfg *scrape.Config) { cfg.WriteTimeout = 3 * time.Second })
		c := r.open(producer())
		r.text("a 1\n")
		r.sink.block = true
		start := time.Now()
		if result := c.Collect(t.Context(), start); result.Reason != schedule.ReasonStore {
			t.Errorf("%+v, want reason store", result)
		}
		c.End(time.Now(), true) // has nothing to say
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("took %s, want 3s", took)
		}
	})
}

func TestEnd(t *testing.T) {
	for _, stale := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, nil)
			c := r.open(producer())
			r.text("a 1\nb 1 1000\n")
			r.good(c)
			at := time.Now()
			c.End(at, stale)
			batches := r.sink.take()
			if !stale {
				if len(batches) != 0 {
					t.Errorf("%d batches, want none", len(batches))
				}
			} else if len(batches) != 1 {
				t.Errorf("%d batches, want 1", len(batches))
			} else {
				equal(t, lines(batches[0], at), []string{
					series("a") + " stale", series("up") + " stale", series("scrape_duration_seconds") + " stale",
					series("scrape_samples_scraped") + " stale", series("scrape_samples_post_metric_relabeling") + " stale",
					series("scrape_series_added") + " stale",
				})
			}
			if _, ok := r.scraper.Find("p1"); ok {
				t.Error("still open")
			}
		})
	}
}

func TestEndOfUncollected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.open(producer()).End(time.Now(), true)
		if n := len(r.sink.take()); n != 0 {
			t.Errorf("%d batches, want none", n)
		}
	})
}

func TestEndWithBrokenSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := scrape.NewMetrics()
		r := newRig(t, func(cfg *scrape.Config) { cfg.Metrics = m })
		c := r.open(producer())
		r.text("a 1\n")
		r.good(c)
		r.sink.fail(errors.New("full"))
		c.End(time.Now(), true)
		if got := metric(t, m, "rollcall_collector_scrape_lost_stale_markers_total", ""); got != 6 {
			t.Errorf("%v lost, want 6", got)
		}
	})
}

func TestCancelledStoresNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.open(producer())
		r.text("a 1\n")
		r.good(c)
		r.answer(func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() })
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		result := c.Collect(ctx, start)
		if took := time.Since(start); took != time.Second || result.Reason == schedule.ReasonNone {
			t.Errorf("after %s: %+v", took, result)
		}
		if n := len(r.sink.take()); n != 0 {
			t.Errorf("%d batches, want none", n)
		}
		// It goes on as if nothing had been.
		r.text("b 1\n")
		equal(t, r.good(c), []string{series("a") + " stale", series("b") + " 1"})
	})
}

// A deadline is not a cancellation, be it the schedule's or the assignment's.
func TestTimeoutIsStored(t *testing.T) {
	for name, outer := range map[string]time.Duration{"own": time.Hour, "schedule's": 10 * time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, nil)
				a := producer()
				if name == "schedule's" {
					a.Timeout = 12 * time.Second
				}
				c := r.open(a)
				r.answer(func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() })
				ctx, cancel := context.WithTimeout(t.Context(), outer)
				defer cancel()
				start := time.Now()
				result := c.Collect(ctx, start)
				if result.Reason != schedule.ReasonTimeout || result.Duration != 10*time.Second {
					t.Errorf("%+v, want a timeout after 10s", result)
				}
				if batches := r.sink.take(); len(batches) != 1 || lines(batches[0], start)[4] != series("up")+" 0" {
					t.Errorf("batches %v, want up 0", batches)
				}
			})
		})
	}
}
