package simulation

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
)

const clocksAddress = "clocks:9100"

// clocks are producers whose counter tells the seconds since the Unix epoch, so
// that it grows by exactly one in each.
func (w *world) clocks(ids ...string) {
	w.t.Helper()
	lis := w.network.listen(clocksAddress)
	w.done.Go(func() {
		_ = process.ServeHTTP(w.ctx, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "application/openmetrics-text; version=1.0.0")
			now := float64(time.Now().UnixMilli()) / 1000
			_, _ = fmt.Fprintf(rw, "# TYPE clock counter\nclock_total %v # {trace_id=\"t%d\"} 1\n# EOF\n", now, time.Now().Unix())
		}), lis, time.Second, w.logger("clocks"))
	})
	w.labelled(interval, ids, func(p *registryv1.Producer) { p.Endpoint = "http://" + clocksAddress + "/" + p.GetProducerId() })
}

// storing starts a collector with an embedded store, which answers queries at
// port 7481.
func (w *world) storing(id string) *host {
	w.t.Helper()
	metrics := prometheus.NewRegistry()
	k, err := collector.New(w.ctx, collector.Config{
		ID: id, Registries: []string{registryAddress}, DataDir: w.fleet.dir + "/" + id,
		Listener: w.network.listen(id + ":7480"), HTTPListener: w.network.listen(id + ":7481"), Advertise: id + ":7480",
		Logger: w.logger(id), Metrics: metrics,
		DialRegistry: w.network.dialer(id), DialPeer: w.network.dialer(id), DialProducer: w.network.dialerTCP(id),
	})
	if err != nil {
		w.fatalf("collector: %v", err)
	}
	h := w.run(metrics, k.Run)
	w.settle()
	return h
}

// A reply is the answer to a query.
type reply struct {
	Status   string
	Data     json.RawMessage
	Error    string
	Warnings []string

	code int
	took time.Duration
}

// ask asks a collector; the parameters follow in pairs.
func (w *world) ask(id, path string, pairs ...string) reply {
	w.t.Helper()
	values := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		values.Add(pairs[i], pairs[i+1])
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return w.network.dial(ctx, address)
		},
	}
	begin := time.Now()
	req, err := http.NewRequestWithContext(w.ctx, http.MethodPost, "http://"+id+":7481/api/v1/"+path, strings.NewReader(values.Encode()))
	if err != nil {
		w.fatalf("ask: %v", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if strings.HasSuffix(path, "/values") { // Which is for GET only.
		req.Method, req.Body, req.URL.RawQuery = http.MethodGet, http.NoBody, values.Encode()
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		w.fatalf("ask %s: %v", id, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.fatalf("ask %s: %v", id, err)
	}
	r := reply{code: resp.StatusCode, took: time.Since(begin)}
	if err := json.Unmarshal(body, &r); err != nil {
		w.fatalf("ask %s: %v: %.200s", id, err, body)
	}
	return r
}

// A line is a series with its samples.
type line struct {
	Metric map[string]string
	Values []point
}

// A point is a sample.
type point struct {
	ms    int64
	value float64
}

// UnmarshalJSON reads a point as Prometheus writes it.
func (p *point) UnmarshalJSON(b []byte) error {
	var seconds float64
	var text string
	if err := json.Unmarshal(b, &[]any{&seconds, &text}); err != nil {
		return err
	}
	p.ms = int64(seconds*1000 + 0.5)
	var err error
	p.value, err = strconv.ParseFloat(text, 64)
	return err
}

// lines are the series of an answer without an error.
func (w *world) lines(r reply) []line {
	w.t.Helper()
	var data struct{ Result []line }
	if err := json.Unmarshal(r.Data, &data); err != nil || r.code != http.StatusOK || r.Status != "success" {
		w.fatalf("%d %s %s: %v", r.code, r.Status, r.Error, err)
	}
	return data.Result
}

// whole checks that an answer has one series, with each instant of the grid in a
// time exactly once and nothing else.
func (w *world) whole(name string, r reply, first, last time.Time) {
	w.t.Helper()
	all := w.lines(r)
	if len(all) != 1 || len(r.Warnings) > 0 {
		w.fatalf("%s: %d series, want one; warnings %q", name, len(all), r.Warnings)
	}
	points := all[0].Values
	for i, p := range points {
		if i > 0 && (p.ms-points[i-1].ms != interval.Milliseconds() || p.value <= points[i-1].value) {
			w.t.Errorf("%s: %v at %d behind %v at %d", name, p.value, p.ms, points[i-1].value, points[i-1].ms)
		}
	}
	if n := int(last.Sub(first) / interval); len(points) < n || len(points) > n+1 {
		w.t.Errorf("%s: %d points in %v", name, len(points), last.Sub(first))
	}
}

// TestMovedProducerIsOneSeries moves a producer from one collector to another:
// a query at either has its series without a gap, whichever of them has the
// samples, and says so when it cannot.
func TestMovedProducerIsOneSeries(t *testing.T) {
	simulate(t, func(w *world) {
		w.steadyRegistry()
		first := w.storing("c-1")
		w.clocks("moved")
		w.pass(time.Minute)
		w.storing("c-2")
		w.pass(5 * time.Minute)
		begin := time.Now().Add(-5 * time.Minute)
		w.move("c-2", "moved")
		w.pass(5 * time.Minute)
		w.collects("c-1")
		w.collects("c-2", "moved")

		raw := func(id string, more ...string) reply {
			return w.ask(id, "query", append([]string{"query", `clock_total{id="moved"}[10m]`}, more...)...)
		}
		for _, id := range []string{"c-1", "c-2"} {
			w.whole(id, raw(id), begin, time.Now())
			w.steady(id, begin)
			w.lists(id, begin)
		}
		own := w.lines(raw("c-1", "scope", "local"))
		other := w.lines(raw("c-2", "scope", "local"))
		if len(own) != 1 || len(other) != 1 || len(own[0].Values) > 32 || len(other[0].Values) > 32 {
			t.Errorf("the stores have %v and %v", own, other)
		}

		w.crash(first, "c-1:7480")
		w.network.refuse("c-1", true)
		r := raw("c-2")
		if got := w.lines(r); !slices.EqualFunc(got, w.lines(raw("c-2", "scope", "local")), sameLine) || !warns(r, "c-1") || r.took > 10*time.Second {
			t.Errorf("without c-1: %v, warnings %q, after %v", got, r.Warnings, r.took)
		}
		if r := raw("c-2", "scope", "local"); r.Warnings != nil {
			t.Errorf("the store itself warns: %q", r.Warnings)
		}
		w.network.refuse("c-1", false)
		w.storing("c-1")
		w.pass(5 * time.Second)
		if r := raw("c-2"); len(r.Warnings) > 0 || len(w.lines(r)[0].Values) < 55 {
			t.Errorf("with c-1 again: %d points, warnings %q", len(w.lines(r)[0].Values), r.Warnings)
		}
	})
}

func sameLine(a, b line) bool { return slices.Equal(a.Values, b.Values) }

func warns(r reply, id string) bool {
	return slices.ContainsFunc(r.Warnings, func(s string) bool {
		return strings.Contains(s, strconv.Quote(id)) && strings.Contains(s, "partial")
	})
}

// steady checks that the rate of the counter is one a second, and that it has a
// value, all the time: a stale marker would end it until the next sample.
func (w *world) steady(id string, begin time.Time) {
	w.t.Helper()
	for _, expr := range []string{
		`rate(clock_total{id="moved"}[1m])`, `increase(clock_total{id="moved"}[1m]) / 60`, `clock_total{id="moved"} > bool 0`,
	} {
		end := time.Now()
		r := w.ask(id, "query_range", "query", expr, "start", seconds(begin), "end", seconds(end), "step", "1")
		all := w.lines(r)
		if len(all) != 1 || len(all[0].Values) != int(end.Sub(begin)/time.Second)+1 {
			w.fatalf("%s: %s has %v", id, expr, all)
		}
		for _, p := range all[0].Values {
			if p.value < 0.95 || p.value > 1.05 {
				w.t.Errorf("%s: %s is %v at %d", id, expr, p.value, p.ms)
			}
		}
	}
}

func seconds(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }

// lists checks what else is asked of the fleet.
func (w *world) lists(id string, begin time.Time) {
	w.t.Helper()
	for path, want := range map[string]string{
		"series":          `"id":"moved"`,
		"labels":          `"id"`,
		"label/id/values": `["moved"]`,
	} {
		r := w.ask(id, path, "match[]", "clock_total", "start", seconds(begin), "end", seconds(begin.Add(time.Minute)))
		if r.code != http.StatusOK || len(r.Warnings) > 0 || !strings.Contains(string(r.Data), want) {
			w.t.Errorf("%s: %s: %d %s, warnings %q, error %s", id, path, r.code, r.Data, r.Warnings, r.Error)
		}
	}
	r := w.ask(id, "query_exemplars", "query", `clock_total`, "start", seconds(begin), "end", seconds(time.Now()))
	if n := strings.Count(string(r.Data), "trace_id"); r.code != http.StatusOK || len(r.Warnings) > 0 || n < 59 || n > 61 {
		w.t.Errorf("%s: %d exemplars, %d, warnings %q", id, n, r.code, r.Warnings)
	}
}

// TestHangingCollector: one collector does not answer. That costs a query a
// bounded time once, and hardly any from then on, until it is back.
func TestHangingCollector(t *testing.T) {
	simulate(t, func(w *world) {
		w.steadyRegistry()
		w.storing("c-1")
		w.storing("c-2")
		w.clocks(names(4)...)
		w.pass(time.Minute)
		count := func() reply { return w.ask("c-1", "query", "query", "count(clock_total)") }
		if r := count(); len(r.Warnings) > 0 || !strings.Contains(string(r.Data), `"4"`) {
			t.Fatalf("%s, warnings %q", r.Data, r.Warnings)
		}
		w.network.freeze("c-2", true)
		for i, bound := range []time.Duration{10 * time.Second, time.Second} {
			r := count()
			if r.code != http.StatusOK || !warns(r, "c-2") || strings.Contains(string(r.Data), `"4"`) || r.took > bound+time.Millisecond {
				t.Errorf("%d: %d %s, warnings %q, after %v", i, r.code, r.Data, r.Warnings, r.took)
			}
		}
		if r := w.ask("c-1", "query_exemplars", "query", "clock_total", "start", "0", "end", seconds(time.Now())); r.code != http.StatusOK || !warns(r, "c-2") {
			t.Errorf("exemplars: %d %s, warnings %q", r.code, r.Error, r.Warnings)
		}
		w.network.freeze("c-2", false)
		w.pass(time.Minute)
		if r := count(); len(r.Warnings) > 0 || !strings.Contains(string(r.Data), `"4"`) {
			t.Errorf("afterwards: %s, warnings %q", r.Data, r.Warnings)
		}
	})
}
