package schedule_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
)

// TestStopLetsCollectionsFinish: what runs when Run is to end goes on for the
// grace, and no longer; nothing more is started.
func TestStopLetsCollectionsFinish(t *testing.T) {
	const grace = 3 * time.Second
	synctest.Test(t, func(t *testing.T) {
		cut := 0
		f := &fleet{collect: func(ctx context.Context, p *pull, _ time.Time) schedule.Result {
			if p.id != "endless" {
				return pass(ctx, 2*time.Second)
			}
			<-ctx.Done()
			cut++
			return schedule.Result{Reason: schedule.ReasonUnreachable}
		}}
		s, stop := run(t, f, schedule.Config{StopGrace: grace})
		slow, endless := newAssignment("slow", time.Minute), newAssignment("endless", time.Minute)
		slow.Timeout, endless.Timeout = 30*time.Second, 30*time.Second
		s.Apply(upserts(slow))
		synctest.Wait()
		s.Apply(upserts(endless))
		synctest.Wait()
		begin := time.Now()
		stop()
		if took := time.Since(begin); took != grace {
			t.Errorf("it took %v to stop, want %v", took, grace)
		}
		status := find(t, s, "slow")
		if status.Successes != 1 || len(f.only(t, "slow").log()) != 1 || len(f.only(t, "endless").log()) != 1 || cut != 1 {
			t.Errorf("%d successes, %d cut off", status.Successes, cut)
		}
	})
}
