package lease

import (
	"maps"
	"slices"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

const (
	// DefaultGrace is for how long a collector may be without a subscription
	// until it is gone (collector_grace).
	DefaultGrace = 60 * time.Second

	// DefaultSettle is for how long the set of live collectors must be quiet
	// before producers are handed off.
	DefaultSettle = 10 * time.Second

	// recovery is that time after an absence of more than half: they come back one by
	// one, each after a backoff of up to 30 s. It is no longer than a grace.
	recovery = 45 * time.Second

	// flapInterval is within how long a collector that is gone twice flaps, and
	// steadyFor how long it must then be live before it is given anything new.
	flapInterval = time.Hour
	steadyFor    = 10 * time.Minute
)

// A Collector is one as it stands at a tick.
type Collector struct {
	ID assignment.CollectorID

	// Live tells that it has a subscription, on any replica.
	Live bool

	// Assigned is how many producers it has, or is the source of in a handoff.
	Assigned int

	// Leaving tells that it is drained or expunged, which is another's affair: it
	// is not counted here at all.
	Leaving bool
}

// Absences are what a tick finds.
type Absences struct {
	// Gone are the collectors whose producers are to be handed off, for as long
	// as they have any and do not come back; New are those of them that were not
	// gone at the last tick. Both in the order of the input.
	Gone, New []assignment.CollectorID

	// Half tells that more than half of the collectors are not live now. Then it
	// is the registry that is ill, more likely than they; whoever sees it should
	// be loud about it.
	Half bool

	// Settling tells that there are collectors to be gone as soon as the set of
	// those that are live is quiet.
	Settling bool
}

// Graces know since when collectors are not live, and decide which are gone. All
// times are as seen by this machine: its owner makes a new one whenever it is
// elected, and whenever its view was not complete or it did not serve, for what
// happened meanwhile it has not seen. Time that nobody ticked counts for
// DefaultMaxTick at most.
type Graces struct {
	grace, settle time.Duration

	ticked   bool
	last     time.Duration // as the caller tells it
	seen     time.Duration // what of it was seen
	attended time.Duration // what of that somebody was live

	live    map[assignment.CollectorID]bool
	changed time.Duration // when live did, of seen

	absent map[assignment.CollectorID]*absence
}

// absence is one of a collector.
type absence struct {
	since time.Duration // of seen

	// extended tells that it has been one of more than half. It keeps the longer
	// grace when others come back before it: they all recover from one illness,
	// some later than others.
	extended bool

	// over tells that its grace is, and waits since when, of the time attended.
	over  bool
	waits time.Duration

	gone bool
}

// NewGraces makes a machine that has seen nothing yet. 0 stands for DefaultGrace
// and DefaultSettle.
func NewGraces(grace, settle time.Duration) *Graces {
	return &Graces{
		grace: or(grace, DefaultGrace), settle: or(settle, DefaultSettle),
		absent: make(map[assignment.CollectorID]*absence),
	}
}

// Tick takes the collectors as they stand, each once. now is the time since some
// fixed moment, by a monotonic clock.
//
// A collector is gone after a grace without a subscription; of more than half,
// after two. Those whose grace is over wait until nobody has come or gone for the
// settle time, but for no longer than one more grace, so that a rolling restart
// makes one plan. While nobody is live there is nobody to hand anything to, and none
// is gone: the first one that comes back must not be given what the others have,
// who are on their way, however long all were away. So that grace is of the time
// in which somebody is live, and every absence ends with it.
func (g *Graces) Tick(now time.Duration, collectors []Collector) Absences {
	if g.ticked {
		passed := min(max(now-g.last, 0), DefaultMaxTick)
		g.seen += passed
		if len(g.live) > 0 {
			g.attended += passed
		}
	}
	g.ticked, g.last = true, now
	var a Absences
	a.Half = g.look(collectors)

	var over []assignment.CollectorID
	pressing, quiet := false, g.settle
	for _, c := range collectors {
		x := g.absent[c.ID]
		if x == nil || x.gone || c.Assigned <= 0 {
			continue
		}
		x.extended = x.extended || a.Half
		due := x.since + g.grace
		if x.extended {
			due += g.grace
		}
		if g.seen < due {
			x.over = false
			continue
		}
		if !x.over {
			x.over, x.waits = true, g.attended
		}
		over = append(over, c.ID)
		pressing = pressing || g.attended-x.waits >= g.grace
		if x.extended {
			quiet = max(g.settle, min(recovery, g.grace))
		}
	}
	if len(g.live) == 0 || g.seen-g.changed < quiet && !pressing {
		a.Settling = len(over) > 0
	} else {
		a.New = over
	}
	for _, id := range a.New {
		g.absent[id].gone = true
	}
	for _, c := range collectors {
		if x := g.absent[c.ID]; x != nil && x.gone && c.Assigned > 0 {
			a.Gone = append(a.Gone, c.ID)
		}
	}
	return a
}

// look takes notice of who is live, and tells whether more than half are not.
// Those that are not live and have nothing do not count: they may be machines
// that were given up long ago.
func (g *Graces) look(collectors []Collector) bool {
	live := make(map[assignment.CollectorID]bool)
	known := make(map[assignment.CollectorID]bool)
	without := 0
	for _, c := range collectors {
		switch {
		case c.Leaving:
		case c.Live:
			live[c.ID] = true
		default:
			known[c.ID] = true
			if g.absent[c.ID] == nil {
				g.absent[c.ID] = &absence{since: g.seen}
			}
			if c.Assigned > 0 {
				without++
			}
		}
	}
	maps.DeleteFunc(g.absent, func(id assignment.CollectorID, _ *absence) bool { return !known[id] })
	if g.live == nil || !maps.Equal(g.live, live) {
		g.live, g.changed = live, g.seen
	}
	return without > len(live)
}

// Closed tells whether a collector flaps, and is to be given nothing new: it was
// gone twice within an hour, and has not been live for ten minutes since.
// goneTimes is when it was found gone, one for each absence, in any order; only
// the last two matter, and not after an hour. liveSince is since when it has had a
// subscription, absences within its grace included; zero while it has none.
func Closed(goneTimes []time.Time, liveSince, now time.Time) bool {
	if len(goneTimes) < 2 {
		return false
	}
	times := slices.SortedFunc(slices.Values(goneTimes), time.Time.Compare)
	last, before := times[len(times)-1], times[len(times)-2]
	return last.Sub(before) <= flapInterval && now.Sub(last) <= flapInterval && (liveSince.IsZero() || now.Sub(liveSince) < steadyFor)
}
