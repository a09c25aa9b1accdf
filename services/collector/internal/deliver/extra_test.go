package deliver_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

func TestHistogramsArriveAndCountMoreInTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog()
		extras := map[float64]*sample.Extra{}
		for range 100 {
			l.write(1, 10)
			point := &l.records[len(l.records)-1].Points[3]
			point.Extra = &sample.Extra{Histogram: &histogram.Histogram{Sum: point.Value}}
			extras[point.Value] = point.Extra
		}
		wrong, found := 0, 0
		c := newReceiver(l)
		c.reply(func(_ context.Context, r *deliver.Request) (deliver.Outcome, int) {
			time.Sleep(time.Second)
			for _, i := range r.Items {
				if i.Extra != extras[i.Value] {
					wrong++
				}
				if i.Extra != nil {
					found++
				}
			}
			return deliver.Outcome{Code: "200"}, len(r.Items)
		})
		g := start(t.Context(), l, c, deliver.Config{MaxSamplesPerSend: 20, MaxConcurrency: 1, WindowSamples: 1 << 20})
		sleep(time.Millisecond)
		if n := g.sink.Window(); n != 100*(10+4+32) {
			t.Errorf("%d in the window", n)
		}
		sleep(time.Minute)
		g.expectAll(t)
		if wrong > 0 || found != 100 {
			t.Errorf("%d samples have another histogram or none; %d of 100 histograms arrived", wrong, found)
		}
		if err := g.stop(); err != nil {
			t.Error(err)
		}
	})
}
