package scrape_test

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

func TestUpdateChangesLabels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.open(producer())
		r.text("a 1\nb 1\n")
		r.good(c)

		a := producer()
		a.Labels = []assignment.Label{{Name: "job", Value: "new"}}
		if err := c.Update(a); err != nil {
			t.Fatal(err)
		}
		samples, at, _ := r.collect(c)
		renamed := func(s string) string { return strings.Replace(s, `job="node"`, `job="new"`, 1) }
		want := []string{
			renamed(series("a")) + " 1", renamed(series("b")) + " 1",
			series("a") + " stale", series("b") + " stale",
		}
		for _, name := range []string{"up", "scrape_duration_seconds", "scrape_samples_scraped", "scrape_samples_post_metric_relabeling", "scrape_series_added"} {
			want = append(want, series(name)+" stale", renamed(series(name))+map[string]string{
				"up": " 1", "scrape_duration_seconds": " _",
			}[name]+strings.Repeat(" 2", btoi(strings.HasPrefix(name, "scrape_s"))))
		}
		equal(t, lines(samples, at), want)
		equal(t, r.good(c), []string{renamed(series("a")) + " 1", renamed(series("b")) + " 1"})

		// There and back without a collection: nothing happened.
		before, _, _ := r.collect(c)
		if err := c.Update(producer()); err != nil {
			t.Fatal(err)
		}
		if err := c.Update(a); err != nil {
			t.Fatal(err)
		}
		after, at, _ := r.collect(c)
		equal(t, exposed(after, at), []string{renamed(series("a")) + " 1", renamed(series("b")) + " 1"})
		if len(after) != len(before) {
			t.Errorf("%d samples, want %d: %q", len(after), len(before), lines(after, at))
		}
	})
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestUpdateChangesEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		a := producer()
		a.Labels = []assignment.Label{{Name: "instance", Value: "node1:9100"}, {Name: "job", Value: "node"}}
		c := r.open(a)
		r.text("a 1\n")
		first, _, _ := r.collect(c)
		<-r.requests
		b := *a
		b.Endpoint = "http://node2:9100/other"
		if err := c.Update(&b); err != nil {
			t.Fatal(err)
		}
		second, _, _ := r.collect(c)
		if req := <-r.requests; req.Host != "node2:9100" || req.URL.Path != "/other" {
			t.Errorf("pulled %s%s", req.Host, req.URL.Path)
		}
		if first[0].Series != second[0].Series {
			t.Error("another Series though no label has changed")
		}
		bad := *a
		bad.Endpoint = "ftp://node2/"
		if err := c.Update(&bad); err == nil {
			t.Error("no error")
		}
		r.good(c)
		if req := <-r.requests; req.Host != "node2:9100" {
			t.Errorf("pulled %s", req.Host)
		}
	})
}

// Tighter limits hold for series that are known already.
func TestUpdateChangesLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.open(producer())
		r.text(`a{x="0123456789"} 1` + "\n")
		r.good(c)
		a := producer()
		a.Limits.MaxLabels = 3
		if err := c.Update(a); err != nil {
			t.Fatal(err)
		}
		samples, at, result := r.collect(c)
		if result.Reason != schedule.ReasonTooLarge {
			t.Errorf("%+v, want reason too large", result)
		}
		equal(t, exposed(samples, at), []string{series("a", "x", "0123456789") + " stale"})
	})
}
