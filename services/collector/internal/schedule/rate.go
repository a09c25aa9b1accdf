package schedule

import "time"

// A rate lets events through at a pace, with a burst. Times are on the
// schedule's monotonic clock.
type rate struct {
	period time.Duration // between two events
	slack  time.Duration // how far the burst may run ahead
	full   time.Duration // when the burst will be spent up to now's events
}

func newRate(perSecond, burst int) rate {
	period := time.Second / time.Duration(perSecond)
	return rate{period: period, slack: time.Duration(burst-1) * period}
}

// next is the earliest time at which take is allowed.
func (r *rate) next() time.Duration { return r.full - r.slack }

// take counts one event at a time that is not before next.
func (r *rate) take(now time.Duration) { r.full = max(r.full, now) + r.period }
