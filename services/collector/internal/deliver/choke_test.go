package deliver_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
)

// TestTheFirstRequestIsNotAllThatIsTried has the receiver choke on what comes
// first, when one request at a time is at work.
func TestTheFirstRequestIsNotAllThatIsTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := run(t, deliver.Config{MaxSamplesPerSend: 100, WindowSamples: 1 << 20})
		g.receiver.reply(func(_ context.Context, r *deliver.Request) (deliver.Outcome, int) {
			if slices.ContainsFunc(r.Items, func(i deliver.Item) bool { return i.Value == 0 }) {
				return deliver.Outcome{Result: deliver.Retry, Code: "500"}, 0
			}
			return deliver.Outcome{Code: "200"}, len(r.Items)
		})
		g.fill(30, 64, 10)
		sleep(5 * time.Minute)
		if st := g.sink.Status(); st.Delivered < 15_000 {
			t.Errorf("%d of %d samples delivered beside what the receiver chokes on", st.Delivered, g.log.samples)
		}
		g.receiver.reply(lasting(time.Millisecond))
		sleep(time.Minute)
		g.expectAll(t)
	})
}

// TestOneRecordDoesNotHoldUpAllOthers has the receiver choke on one record for
// ever, with more behind it than the window holds: it alone is dropped.
func TestOneRecordDoesNotHoldUpAllOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := run(t, deliver.Config{MaxSamplesPerSend: 100, WindowSamples: 5000})
		g.receiver.reply(func(_ context.Context, r *deliver.Request) (deliver.Outcome, int) {
			if slices.ContainsFunc(r.Items, func(i deliver.Item) bool { return i.Value == 1234 }) {
				g.log.mu.Lock()
				for id := 1230; id < 1240; id++ { // its record, which may be committed
					g.log.settled[id] = true
				}
				g.log.mu.Unlock()
				return deliver.Outcome{Result: deliver.Retry, Code: "500"}, 0
			}
			return deliver.Outcome{Code: "200"}, len(r.Items)
		})
		g.fill(100, 64, 10)
		sleep(time.Hour)
		st := g.sink.Status()
		if st.Delivered != int64(g.log.samples)-10 || st.Dropped[deliver.ReasonRejected] != 10 || !g.log.idle() {
			t.Errorf("of %d samples: %+v", g.log.samples, st)
		}
	})
}

// TestAnErrorForAllIsNoChoke: a receiver that answers everything with an error
// for hours, or every third request, costs no sample.
func TestAnErrorForAllIsNoChoke(t *testing.T) {
	for _, every := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			g := run(t, deliver.Config{MaxSamplesPerSend: 100, WindowSamples: 5000})
			g.fill(1, 64, 10)
			sleep(10 * time.Second)
			var n atomic.Int64
			g.receiver.reply(func(_ context.Context, r *deliver.Request) (deliver.Outcome, int) {
				if n.Add(1)%int64(every) == 0 {
					return deliver.Outcome{Result: deliver.Retry, Code: "500"}, 0
				}
				return deliver.Outcome{Code: "200"}, len(r.Items)
			})
			for range 60 {
				g.fill(10, 64, 10)
				sleep(2 * time.Minute)
			}
			g.receiver.reply(nil)
			sleep(10 * time.Minute)
			g.expectAll(t)
			if st := g.sink.Status(); len(st.Dropped) > 0 {
				t.Errorf("every %d: %+v", every, st)
			}
		})
	}
}
