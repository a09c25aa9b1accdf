// Package placement decides which collector should have which producer.
//
// Decide plans for the whole fleet: it keeps every owner, gives a collector to
// those that have none or must leave theirs, and moves more only when a
// collector carries too much. A Chooser places a few new producers at a time.
// Both are functions of what they are given, in whatever order it comes: there
// is no clock and no chance in them, and equals are taken by id.
//
// Its invariant: a producer that has a collector is moved only when it must
// leave that collector, or when the collector's load exceeds the band.
//
// # Load
//
// A producer costs its weight and one sample/s more, see Cost. A collector's
// load is the cost of its producers, its relative load that over its capacity.
// A capacity that is not told counts as the mean of those that are, and as 1
// when none is. The mean load is the sum of loads over the sum of capacities.
//
// # Band
//
// A collector whose relative load exceeds 1+Band times the mean gives producers
// away until it carries at most 1+Settle times the mean: that it starts later
// than it ends keeps a load that sways around the edge from moving something
// every minute. See Decide for what that attains.
package placement

import (
	"fmt"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A Producer is one to be placed, as far as placement goes.
type Producer struct {
	ID assignment.ProducerID

	// Weight is what it yields, in samples/s. What is no positive finite number
	// counts as zero, and more than MaxWeight as that; see Cost.
	Weight float64

	// Zone is where it would rather be collected, or empty. The zone decides
	// where a producer goes and never whether it does.
	Zone string

	// Owner is the collector that has it, or empty. One that Decide is not told
	// of counts as one that everything must leave.
	Owner assignment.CollectorID

	// Fixed is set on a producer that was moved just now or is in a handoff: it
	// counts as load, and rebalancing leaves it where it is.
	Fixed bool
}

// A Collector is one that has producers or may be given some.
type Collector struct {
	ID assignment.CollectorID

	// Capacity is how much it can take, in samples/s. What is no positive finite
	// number counts as not told.
	Capacity float64

	// Zone is where it runs, or empty.
	Zone string

	// Open tells that it may be given producers.
	Open bool

	// Leave tells that everything must move off: it is drained, gone or
	// expunged. It is then given nothing, whether Open or not.
	Leave bool

	// Silent tells that its producers have not been weighed yet. It may be given
	// those that have no collector, and stays out of rebalancing: it neither
	// gives nor gets, and counts in no mean.
	Silent bool
}

// Options say how far a plan may go. Their zero value places and rebalances
// nothing else.
type Options struct {
	// Rebalance allows moves that are for balance only.
	Rebalance bool

	// Band is how far above the mean a collector's relative load may be: 0.1 for
	// 10 %. Zero means DefaultBand; less than a thousandth counts as that.
	Band float64

	// Settle is how far above the mean a collector ends that exceeded the band.
	// Zero means four fifths of Band, and more than Band counts as Band.
	Settle float64

	// MaxMoves bounds the moves for balance; zero means that they are not. Those
	// of producers that have no collector or must leave theirs are never bounded.
	MaxMoves int

	// Avoid tells of pairs that must not be: a producer is given to no collector
	// that it names. It may be nil, and must give equal answers to equal
	// questions while a plan is made. An owner is kept even if it is avoided.
	Avoid func(assignment.ProducerID, assignment.CollectorID) bool
}

// DefaultBand is the Band of who names none.
const DefaultBand = 0.10

const (
	defaultSettle = 0.8 // of the band
	minBand       = 0.001
)

// withDefaults returns options in which every number can be reckoned with.
func (o Options) withDefaults() Options {
	o.Band = bandOf(o.Band)
	if !(o.Settle > 0) {
		o.Settle = defaultSettle * o.Band
	}
	o.Settle = min(o.Settle, o.Band)
	return o
}

func bandOf(band float64) float64 {
	if !(band > 0) {
		return DefaultBand
	}
	return max(band, minBand)
}

// A Reason says why a producer is moved.
type Reason uint8

const (
	// Orphan is the reason of a producer that had no collector.
	Orphan Reason = iota + 1
	// Leave is the reason of one whose collector everything must leave.
	Leave
	// Rebalance is the reason of one whose collector carries too much.
	Rebalance
)

// String is the reason as a word of lower case.
func (r Reason) String() string {
	switch r {
	case Orphan:
		return "orphan"
	case Leave:
		return "leave"
	case Rebalance:
		return "rebalance"
	default:
		return fmt.Sprintf("Reason(%d)", uint8(r))
	}
}

// A Move is one change of collector.
type Move struct {
	Producer assignment.ProducerID
	From     assignment.CollectorID // empty when it had none
	To       assignment.CollectorID
	Reason   Reason
}

// A Plan is what Decide decided, and what it comes to.
type Plan struct {
	// Moves has at most one of a producer: those that had none or must leave,
	// heaviest first, then those for balance in the order in which they help.
	Moves []Move

	// Stuck is how many producers must leave a collector and stay, for want of
	// one that could have them.
	Stuck int

	// Unplaced is how many have no collector and get none.
	Unplaced int

	// Before and After are the balance without and with the moves.
	Before, After Balance

	// Collectors has the loads of all collectors, by id.
	Collectors []CollectorLoad
}

// A Balance tells how evenly the collectors are loaded that take part in
// rebalancing: those that are neither left nor silent. Of those that are not
// open only what carries more than the mean counts, because nothing can raise
// the others to it. All of it is zero when none is open.
type Balance struct {
	// Mean and Max are relative loads: samples/s for each sample/s of capacity.
	Mean, Max float64
}

// Ratio is Max over Mean, and zero without load.
func (b Balance) Ratio() float64 {
	if !(b.Mean > 0) {
		return 0
	}
	return b.Max / b.Mean
}

// A CollectorLoad is what a plan means for one collector.
type CollectorLoad struct {
	Collector assignment.CollectorID

	// Capacity is what was reckoned with, in samples/s.
	Capacity float64

	// LoadBefore and LoadAfter are the Cost of its producers, in samples/s,
	// without and with the moves.
	LoadBefore, LoadAfter float64

	// ProducersBefore and ProducersAfter are how many they are.
	ProducersBefore, ProducersAfter int
}
