package scrape_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/scrape"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// All hostile producers at once, on the real schedule, and a hundred good ones
// beside them: these miss nothing, and no memory stays taken.
func TestHostileProducersHurtNobodyElse(t *testing.T) {
	const good, window = 100, 30 * time.Second
	villains := slices.DeleteFunc(slices.Concat(hostile, hostileProtobuf(), hostileZstd()), func(v villain) bool {
		return v.reason == schedule.ReasonNone || v.format != 0
	})
	if raceDetector { // Minutes otherwise; what is raced for is the same.
		few := villains[:0]
		for i := 0; i < len(villains); i += 6 {
			few = append(few, villains[i])
		}
		villains = few
	}
	synctest.Test(t, func(t *testing.T) {
		m := scrape.NewMetrics()
		r := newRig(t, func(cfg *scrape.Config) { cfg.Metrics = m })
		r.answer(func(w http.ResponseWriter, req *http.Request) {
			host, _, _ := strings.Cut(req.Host, ":")
			if bad, ok := strings.CutPrefix(host, "bad"); ok {
				i, _ := strconv.Atoi(bad)
				villains[i].handler(w, req)
				return
			}
			body("good 1\nalso_good 2\n")(w, req)
		})
		var all []*assignment.Assignment
		add := func(name string) {
			a := producer()
			a.ProducerID = assignment.ProducerID(name)
			a.Endpoint = fmt.Sprintf("http://%s:9100/metrics", name)
			a.Labels = []assignment.Label{{Name: "producer", Value: name}}
			all = append(all, a)
		}
		for i := range good {
			add(fmt.Sprint("good", i))
		}
		for i := range villains {
			add(fmt.Sprint("bad", i))
		}
		s := schedule.New(schedule.Config{Opener: r.scraper})
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- s.Run(ctx) }()
		s.Apply(schedule.Change{Upserts: all})
		time.Sleep(producer().Interval)
		from := time.Now()
		time.Sleep(window)
		to := time.Now()
		time.Sleep(producer().Timeout + time.Second)
		cancel()
		if err := <-ran; err != nil {
			t.Fatal(err)
		}
		// Each by its name: how often it was there, how often it was not, and its
		// samples.
		up, down, samples := map[string]int{}, map[string]int{}, map[string]int{}
		for _, batch := range r.sink.take() {
			for _, one := range batch {
				if one.Time <= from.UnixMilli() || one.Time > to.UnixMilli() {
					continue
				}
				who := one.Series.Labels().Get("producer")
				switch name := one.Series.Labels().Get("__name__"); {
				case name == "up" && one.Value == 1:
					up[who]++
				case name == "up":
					down[who]++
				case strings.HasSuffix(name, "good") && !isStale(one):
					samples[who]++
				}
			}
		}
		want := int(window / producer().Interval)
		for i := range good {
			if who := fmt.Sprint("good", i); up[who] != want || down[who] != 0 || samples[who] != 2*want {
				t.Errorf("%s: up %d times, down %d times, %d samples; want %d, 0 and %d", who, up[who], down[who], samples[who], want, 2*want)
			}
		}
		for i, v := range villains {
			if who := fmt.Sprint("bad", i); up[who] != 0 || down[who] != want {
				t.Errorf("%s (%s): up %d times, down %d times; want 0 and %d", who, v.name, up[who], down[who], want)
			}
		}
		if n := metric(t, m, "rollcall_collector_scrape_in_flight_bytes", ""); n != 0 {
			t.Errorf("%v bytes in flight afterwards", n)
		}
	})
}
