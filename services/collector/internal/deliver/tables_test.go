package deliver_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
)

// TestShortTables: where each segment of the log has only a few records, most of
// what is read ahead would be series.
func TestShortTables(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const window = 5000
		g := run(t, deliver.Config{MaxSamplesPerSend: 500, WindowSamples: window, MaxConcurrency: 1})
		g.log.perSegment = 4
		g.receiver.reply(lasting(5 * time.Second))
		most := 0
		for range 100 {
			g.fill(1, 20, 50)
			sleep(time.Second)
			most = max(most, g.sink.Series())
		}
		if most < window/4 || most > window/4+50 {
			t.Errorf("%d series for what is in the window", most)
		}
		g.receiver.reply(nil)
		sleep(10 * time.Second)
		g.expectAll(t)
	})
}
