package schedule

import (
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A Grid is the instants at which one producer is due, in milliseconds of Unix
// time: t is one of them when (t - XXH64(id) mod interval) mod interval = 0. It
// depends on nothing else, so that the collectors of a handoff agree on it.
type Grid struct{ interval, phase uint64 }

// GridOf is the grid of a producer. The interval counts in whole milliseconds,
// at least one.
func GridOf(id assignment.ProducerID, interval time.Duration) Grid {
	ms := uint64(max(1, interval.Milliseconds()))
	return Grid{interval: ms, phase: xxhash.Sum64String(string(id)) % ms}
}

// Next is the first instant of the grid after a time; both are in milliseconds
// of Unix time. It is at most one interval away, unless the time is before 1970,
// which counts as 1970.
func (g Grid) Next(after int64) int64 {
	t := uint64(max(0, after))
	if t < g.phase {
		return int64(g.phase)
	}
	return int64(t - (t-g.phase)%g.interval + g.interval)
}

// Last is the last instant of the grid that is not after a time, negative when
// there is none since 1970.
func (g Grid) Last(until int64) int64 { return g.Next(until) - int64(g.interval) }

// Has reports whether a time, in milliseconds of Unix time, is on the grid.
func (g Grid) Has(t int64) bool {
	return t >= int64(g.phase) && (uint64(t)-g.phase)%g.interval == 0
}
