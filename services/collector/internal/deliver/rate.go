package deliver

import "time"

// rateSeconds is how far back a rate looks.
const rateSeconds = 16

// A rate counts what has happened in the last seconds. It is not safe for
// concurrent use.
type rate struct {
	began   time.Time
	second  int64 // since began, of the newest count
	buckets [rateSeconds]int
}

func newRate(now time.Time) rate { return rate{began: now} }

// add counts n more.
func (r *rate) add(now time.Time, n int) {
	r.advance(now)
	r.buckets[r.second%rateSeconds] += n
}

// perSecond is the mean of the last seconds.
func (r *rate) perSecond(now time.Time) float64 {
	r.advance(now)
	sum := 0
	for _, n := range r.buckets {
		sum += n
	}
	elapsed := now.Sub(r.began)
	span := min(elapsed, (rateSeconds-1)*time.Second+elapsed%time.Second)
	return float64(sum) / max(span.Seconds(), 1)
}

func (r *rate) advance(now time.Time) {
	second := int64(now.Sub(r.began) / time.Second)
	if second-r.second >= rateSeconds {
		r.buckets, r.second = [rateSeconds]int{}, second
	}
	for r.second < second {
		r.second++
		r.buckets[r.second%rateSeconds] = 0
	}
}
