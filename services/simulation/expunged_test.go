package simulation

import (
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestExpungedIsHeld: a collector that is told it is expunged goes on with all it
// had, also after a restart, and holds nobody when it is a member again.
func TestExpungedIsHeld(t *testing.T) {
	simulate(t, func(w *world) {
		all := names(30)
		var member atomic.Bool
		member.Store(true)
		roll := callRoll(7, 2, all...)
		play := func(s *stage) error {
			if member.Load() {
				return roll.once(s)
			}
			refusal, err := status.New(codes.FailedPrecondition, "expunged").WithDetails(
				&errdetails.ErrorInfo{Domain: "rollcall", Reason: "EXPUNGED"})
			if err != nil {
				return err
			}
			return refusal.Err()
		}
		w.scriptedRegistry(play)
		c := w.collector("c-1")
		w.pass(time.Second)
		start := time.Now()
		w.collects("c-1", all...)
		member.Store(false)
		w.pass(time.Hour)
		want := func(when string, held, accepted int64) {
			t.Helper()
			w.collects("c-1", all...)
			if m := w.membership("c-1"); m.GetHeldCount() != held || m.GetAcceptedCount() != accepted {
				t.Errorf("%s: %v", when, m)
			}
		}
		want("expunged", 30, 0)
		w.noGap(start, time.Now(), all...)
		if n := c.metric(t, "rollcall_collector_holds_total"); n != 30 {
			t.Errorf("%v holds were counted", n)
		}
		w.crash(c, "c-1:7480")
		w.collector("c-1")
		w.pass(time.Minute)
		want("after a restart", 30, 0)
		member.Store(true)
		w.pass(time.Minute)
		want("a member again", 0, 30)
	})
}
