package placement

import (
	"cmp"
	"slices"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A Load is what a collector carries already.
type Load struct {
	Collector assignment.CollectorID

	// Load is the Cost of its producers, in samples/s. What is no positive
	// number counts as zero.
	Load float64

	// Capacity is how much it can take, in samples/s; zero means not told.
	Capacity float64

	// Zone is where it runs, or empty.
	Zone string
}

// A Chooser hands out collectors to one producer after the other, each time the
// relatively least loaded one, and counts what it has handed out. It is for
// handlers that place a few new producers; Decide is for all. It is not safe for
// concurrent use.
type Chooser struct {
	all   rack
	zones map[string]rack
	band  float64

	load     int64   // units, of all
	capacity float64 // units, of all
}

// NewChooser makes a Chooser among collectors, each named once. Up to band above
// the mean, 0.1 for 10 %, a producer is placed in its own zone; zero means
// DefaultBand.
func NewChooser(loads []Load, band float64) *Chooser {
	ordered := slices.SortedFunc(slices.Values(loads), func(a, b Load) int { return cmp.Compare(a.Collector, b.Collector) })
	told := make([]float64, len(ordered))
	for i := range ordered {
		told[i] = ordered[i].Capacity
	}
	bins := make([]*bin, len(ordered))
	for i, c := range capacities(told) {
		bins[i] = &bin{id: ordered[i].Collector, zone: ordered[i].Zone, capacity: c * grain}
		bins[i].add(units(ordered[i].Load))
	}
	return choose(bins, bandOf(band))
}

// choose makes a Chooser among bins in the order of their ids.
func choose(bins []*bin, band float64) *Chooser {
	c := &Chooser{band: band, zones: map[string]rack{}}
	inZone := map[string][]*bin{}
	for _, b := range bins {
		c.load += b.load
		c.capacity += b.capacity
		if b.zone != "" {
			inZone[b.zone] = append(inZone[b.zone], b)
		}
	}
	c.all = newRack(bins, 0)
	for zone, bins := range inZone {
		c.zones[zone] = newRack(bins, 1)
	}
	return c
}

// Next is the collector for one more producer of a weight, in samples/s, that
// names a zone or none. It is empty when there is no collector.
//
// The collector chosen is the one that is relatively least loaded with the
// producer; where capacities differ, up to twice what the producer adds may be
// missed. One in the producer's zone is preferred while the producer does not
// push it outside the band.
func (c *Chooser) Next(weight float64, zone string) assignment.CollectorID {
	return c.NextBut(weight, zone, nil)
}

// NextBut is Next among the collectors that avoid does not name; nil names none.
func (c *Chooser) NextBut(weight float64, zone string, avoid func(assignment.CollectorID) bool) assignment.CollectorID {
	var not func(*bin) bool
	if avoid != nil {
		not = func(b *bin) bool { return avoid(b.id) }
	}
	units := cost(weight)
	b := c.next(units, zone, float64(c.load+units)/c.capacity, not)
	if b == nil {
		return ""
	}
	c.load += units
	b.add(units)
	return b.id
}

// next chooses and counts nothing. mean is the relative load that the band is
// above; a nil avoid avoids none.
func (c *Chooser) next(units int64, zone string, mean float64, avoid func(*bin) bool) *bin {
	best := c.all.best(units, avoid)
	if best == nil || zone == "" || best.zone == zone {
		return best
	}
	// Where the best of all would be outside the band as well, staying inside
	// it is no reason to leave the zone for an equal.
	limit := max((1+c.band)*mean, best.with(units))
	if near := c.zones[zone].best(units, avoid); near != nil && near.with(units) <= limit {
		return near
	}
	return best
}
