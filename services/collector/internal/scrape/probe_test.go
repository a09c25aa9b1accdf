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

// broken are the ways in which a probe may fail.
var broken = map[string]struct {
	handler http.HandlerFunc
	reason  schedule.Reason
}{
	"status":    {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, schedule.ReasonStatus},
	"malformed": {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "a 7\nnew 1\nb{") }, schedule.ReasonMalformed},
	"too slow":  {func(http.ResponseWriter, *http.Request) { time.Sleep(20 * time.Second) }, schedule.ReasonTimeout},
	"another producer": {func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(scrape.ProducerHeader, "p2")
		fmt.Fprint(w, "a 7\n")
	}, schedule.ReasonWrongProducer},
}

// A probe that fails stores nothing, and one that succeeds stores nothing without
// an instant; a removal then has nothing to end.
func TestProbeStoresNothingWithoutSuccess(t *testing.T) {
	for name, tc := range broken {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, nil)
				c := r.open(producer())
				r.answer(tc.handler)
				for _, at := range []time.Time{time.Now(), {}, time.Now()} {
					if result := c.Probe(t.Context(), at); result.Reason != tc.reason || result.Message == "" {
						t.Errorf("%+v, want reason %d", result, tc.reason)
					}
				}
				r.text("a 1\nb 2\n")
				if result := c.Probe(t.Context(), time.Time{}); result.Reason != schedule.ReasonNone || result.Samples != 2 || result.BodyBytes == 0 {
					t.Errorf("it succeeds: %+v", result)
				}
				c.End(time.Now(), true)
				if batches := r.sink.take(); len(batches) != 0 {
					t.Errorf("stored %q", lines(batches[0], time.Now()))
				}
			})
		})
	}
}

// A probe that is kept is stored as a collection at that instant. One that is not
// kept leaves nothing behind: not a stale marker, and not a series that is known.
func TestProbeIsKeptUnderItsInstant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.open(producer())
		r.text("gone 1\na 1\n")
		if result := c.Probe(t.Context(), time.Time{}); result.Reason != schedule.ReasonNone {
			t.Fatalf("%+v", result)
		}
		r.text("a 1\nb 2 1000\n")
		instant := time.Now().Add(-3 * time.Second).Truncate(time.Millisecond)
		if result := c.Probe(t.Context(), instant); result.Reason != schedule.ReasonNone {
			t.Fatalf("%+v", result)
		}
		batches := r.sink.take()
		if len(batches) != 1 {
			t.Fatalf("%d batches", len(batches))
		}
		equal(t, lines(batches[0], instant), []string{
			series("a") + " 1",
			series("b") + " 2 @1000",
			series("up") + " 1",
			series("scrape_duration_seconds") + " _",
			series("scrape_samples_scraped") + " 2",
			series("scrape_samples_post_metric_relabeling") + " 2",
			series("scrape_series_added") + " 2",
		})
		// From here on it is collected as any other.
		r.answer(broken["status"].handler)
		samples, at, _ := r.collect(c)
		if got := lines(samples, at); !slices.Contains(got, series("up")+" 0") || !slices.Contains(got, series("a")+" stale") {
			t.Errorf("a failure afterwards: %q", got)
		}
		for _, batch := range append(batches, samples) {
			if text := strings.Join(lines(batch, at), " "); strings.Contains(text, "gone") {
				t.Errorf("a series that was not kept: %s", text)
			}
		}
	})
}

// After a probe that was not kept, the first collection is a first one.
func TestFirstCollectionAfterAProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.open(producer())
		r.text("gone 1\na 1\n")
		c.Probe(t.Context(), time.Time{})
		r.text("a 1\n")
		samples, at, _ := r.collect(c)
		equal(t, exposed(samples, at), []string{series("a") + " 1"})
		if !slices.Contains(lines(samples, at), series("scrape_series_added")+" 1") {
			t.Errorf("a is not new: %q", lines(samples, at))
		}
	})
}

// What the sink does not take is a failure of the store, and no success; nothing
// tells of it but the result.
func TestProbeThatIsNotStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.open(producer())
		r.text("a 1\n")
		r.sink.fail(errors.New("disk full"))
		if result := c.Probe(t.Context(), time.Now()); result.Reason != schedule.ReasonStore {
			t.Errorf("%+v", result)
		}
		r.sink.fail(nil)
		r.answer(broken["status"].handler)
		c.Probe(t.Context(), time.Now())
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		c.Probe(ctx, time.Now())
		c.End(time.Now(), true)
		if batches := r.sink.take(); len(batches) != 0 {
			t.Errorf("stored %q", lines(batches[0], time.Now()))
		}
	})
}

// TestIdentity: what the endpoint says of who it is, also in a failure.
func TestIdentity(t *testing.T) {
	named := func(id string, status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if id != "" {
				w.Header().Set("rollcall-producer", id)
			}
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(status)
			fmt.Fprint(w, "a 1\n")
		}
	}
	for name, tc := range map[string]struct {
		handler  http.HandlerFunc
		reason   schedule.Reason
		identity schedule.Identity
	}{
		"own":            {named("p1", 200), schedule.ReasonNone, schedule.IdentityOwn},
		"none":           {named("", 200), schedule.ReasonNone, schedule.IdentityNameless},
		"another":        {named("p2", 200), schedule.ReasonWrongProducer, schedule.IdentityOther},
		"another's case": {named("P1", 200), schedule.ReasonWrongProducer, schedule.IdentityOther},
		"own, failing":   {named("p1", 503), schedule.ReasonStatus, schedule.IdentityOwn},
		"none, failing":  {named("", 503), schedule.ReasonStatus, schedule.IdentityNameless},
		"no answer":      {broken["too slow"].handler, schedule.ReasonTimeout, schedule.IdentityUnheard},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, nil)
				r.answer(tc.handler)
				result := r.open(producer()).Collect(t.Context(), time.Now())
				if result.Reason != tc.reason || result.Identity != tc.identity {
					t.Errorf("%+v, want reason %v, identity %v", result, tc.reason, tc.identity)
				}
			})
		})
	}
}
