package schedule_test

import (
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"pgregory.net/rapid"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// onGrid is the rule as the design has it.
func onGrid(id assignment.ProducerID, interval time.Duration, unixMs int64) bool {
	ms := uint64(interval.Milliseconds())
	return (uint64(unixMs)-xxhash.Sum64String(string(id))%ms)%ms == 0
}

func TestGridNextIsTheFirstInstantOfTheRule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := assignment.ProducerID(rapid.StringMatching(`[a-z]{1,20}`).Draw(t, "id"))
		interval := time.Duration(rapid.Int64Range(1, 86_400_000).Draw(t, "interval")) * time.Millisecond
		after := rapid.Int64Range(86_400_000, 1<<50).Draw(t, "after")
		grid := schedule.GridOf(id, interval)
		next := grid.Next(after)
		if next <= after || next > after+interval.Milliseconds() {
			t.Fatalf("Next(%d) = %d is not within one interval of %v", after, next, interval)
		}
		if !onGrid(id, interval, next) || !grid.Has(next) {
			t.Fatalf("Next(%d) = %d is not on the grid", after, next)
		}
		if last := grid.Last(after); last != next-interval.Milliseconds() || last > after || !grid.Has(last) || grid.Last(next) != next {
			t.Fatalf("Last(%d) = %d, Next is %d", after, last, next)
		}
		if other := rapid.Int64Range(after+1, next).Draw(t, "other"); other != next && (onGrid(id, interval, other) || grid.Has(other)) {
			t.Fatalf("Next(%d) = %d, but %d is on the grid", after, next, other)
		}
	})
}

func TestGridOfOddTimes(t *testing.T) {
	for _, after := range []int64{-1 << 62, -1, 0, 1, 999} {
		for _, interval := range []time.Duration{-time.Hour, 0, time.Microsecond, time.Second, 24 * time.Hour} {
			grid := schedule.GridOf("a", interval)
			if next := grid.Next(after); next < 0 || !grid.Has(next) || next > max(after, 0)+max(1, interval.Milliseconds()) {
				t.Errorf("interval %v: Next(%d) = %d", interval, after, next)
			}
		}
	}
	if last := schedule.GridOf("a", 24*time.Hour).Last(0); last >= 0 {
		t.Errorf("an instant %d before 1970", last)
	}
	if schedule.GridOf("a", time.Second).Has(-1) {
		t.Error("a time before 1970 is on the grid")
	}
}
