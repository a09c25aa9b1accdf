// Package lease decides what goes because a time ran out: which producers are
// struck off, and which collectors are taken for gone.
//
// Its one invariant: nothing goes by a time in which it could not have been
// heard. The leader's loop feeds three small machines every few seconds and
// carries out what they return: a [Clock] that does not run while the registry
// is ill, a [Judge] of the producers that fail, and the [Graces] of collectors.
// None of them is safe for concurrent use, and none outlives the leadership that
// made it, so that every time is one under one leader.
package lease

import "time"

// DefaultMaxTick is the longest time between two ticks that counts. In a longer
// one the process stood still, and heard nobody.
const DefaultMaxTick = 15 * time.Second

// maxDrift is by how much the wall clock may move otherwise than the monotonic
// one between two ticks. Setting a clock right by slewing it stays far below.
const maxDrift = time.Second

// An Instant is a moment as both of a machine's clocks tell it. A monotonic
// reading inside Wall is not used.
type Instant struct {
	// Mono is the time since some fixed moment of this process, by a clock that
	// nobody sets.
	Mono time.Duration

	// Wall is the time of day.
	Wall time.Time
}

// A Loss is why the time before a tick was not credited; a closed set. The empty
// one says that it was.
type Loss string

// The losses.
const (
	// Ill: the registry was not healthy at one end of that time.
	Ill Loss = "ill"

	// Paused: the ticks are too far apart; the process stood still.
	Paused Loss = "paused"

	// Jumped: the wall clock and the monotonic one disagree. Somebody set the
	// clock, or the machine slept, which a monotonic clock may not notice.
	Jumped Loss = "jumped"
)

// Losses are all of them.
func Losses() []Loss { return []Loss{Ill, Paused, Jumped} }

// A Clock adds up the time in which this leader was able to hear a renewal:
// while the store refuses writes, or its own clock paused or jumped, it stands
// still (promise P5).
type Clock struct {
	maxTick  time.Duration
	credited time.Duration

	ticked  bool
	last    Instant
	healthy bool // at the last tick
}

// NewClock makes a clock that shows zero. maxTick is the longest time between
// two ticks that counts; 0 stands for DefaultMaxTick.
func NewClock(maxTick time.Duration) *Clock {
	return &Clock{maxTick: or(maxTick, DefaultMaxTick)}
}

// Credited is what the clock shows. It never goes back.
func (c *Clock) Credited() time.Duration { return c.credited }

// Tick credits the time since the last tick, all of it or nothing, and tells why
// it did not. Healthy says that the registry is able to hear renewals and to
// write them. The first tick has no time before it, and loses none.
//
// Where several losses apply it tells the one that explains most: a process that
// stood still finds its clocks apart and its store gone.
func (c *Clock) Tick(now Instant, healthy bool) Loss {
	first, last, wasHealthy := !c.ticked, c.last, c.healthy
	c.ticked, c.last, c.healthy = true, now, healthy
	if first {
		return ""
	}
	elapsed := now.Mono - last.Mono
	// Sub would compare the monotonic readings of two times that have them.
	drift := now.Wall.Round(0).Sub(last.Wall.Round(0)) - elapsed
	switch {
	case elapsed > c.maxTick:
		return Paused
	case elapsed < 0 || drift > maxDrift || drift < -maxDrift:
		return Jumped
	case !healthy || !wasHealthy:
		return Ill
	}
	c.credited += elapsed
	return ""
}

// or is an option, or its default where it is not set.
func or(option, standard time.Duration) time.Duration {
	if option <= 0 {
		return standard
	}
	return option
}
