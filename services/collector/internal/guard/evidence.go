package guard

import (
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

const (
	// minFailing and minFailures are how long and how often the collections of a
	// producer must have failed before it is taken for dead.
	minFailing  = 10 * time.Minute
	minFailures = 3

	// intervals is how many intervals, its own and those of others, it must
	// have failed for.
	intervals = 3

	// maxTickGap is the longest time between two ticks that says anything about
	// the time between them. In a longer one this process stood still, and so
	// did its collections.
	maxTickGap = time.Minute
)

// Evidence is what a collector's own collections say of one producer. The zero
// value says nothing.
type Evidence struct {
	// Interval is that of its collections.
	Interval time.Duration

	// FailingSince is when the first of the failures in a row came to its end.
	// Failures counts them; 0 says that the last collection succeeded, or that
	// there was none.
	FailingSince time.Time
	Failures     int
}

// A Witness gives the evidence on a producer.
type Witness func(id assignment.ProducerID) Evidence

// A Survey is what the collections say of all applied producers.
type Survey struct {
	// Applied is the number of applied producers, Run of those that are run
	// here, and Answering of those whose last collection succeeded.
	Applied, Run, Answering int

	// MedianInterval is that of the applied producers; of two in the middle the
	// longer one.
	MedianInterval time.Duration

	// Failing is the evidence on the held producers whose last collection
	// failed.
	Failing map[assignment.ProducerID]Evidence
}

// health is whether this collector is fit to be a witness. Its own network may
// be what fails; but then others fail, too, within their interval.
type health struct {
	ticked time.Time

	// since is from when on at least half of the producers answered at every
	// tick; zero when they do not. A collector that has just started has seen
	// nothing yet.
	since time.Time

	median time.Duration
}

func (h *health) tick(s *Survey, now time.Time) {
	if now.Sub(h.ticked) > maxTickGap || s.Run == 0 || 2*s.Answering < s.Run {
		h.since = time.Time{}
	}
	if h.since.IsZero() && s.Run > 0 && 2*s.Answering >= s.Run {
		h.since = now
	}
	h.ticked, h.median = now, s.MedianInterval
}

// dead tells whether a producer's own collections say that it is dead: they have
// failed for long enough, and all that time this collector was fit to say so.
//
// Three times the median interval, because half of the others have been tried by
// then: when the fault is this collector's, its health has broken meanwhile, and
// everyone begins anew after it.
func (g *Guard) dead(e Evidence, now time.Time) bool {
	if g.health.since.IsZero() || e.Failures < minFailures {
		return false
	}
	failing := now.Sub(e.FailingSince)
	healthy := now.Sub(g.health.since)
	return min(failing, healthy) >= max(minFailing, intervals*e.Interval, intervals*g.health.median)
}
