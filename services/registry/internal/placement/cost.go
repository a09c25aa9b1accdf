package placement

import "math"

// MaxWeight is the most that a producer's weight counts, in samples/s: more than
// any process yields, and little enough that a fleet's sum can be reckoned.
const MaxWeight = 1e8

const (
	// grain is how many units a sample/s is. Loads are summed as whole numbers,
	// so that a sum does not depend on the order of its parts.
	grain = 1000

	// each is what a producer costs beyond its weight, in samples/s: a
	// collection is work even if it yields nothing, and producers whose weight
	// is not known must not all end on one collector.
	each = 1

	maxLoad     = 1e15 // samples/s; in units it is well inside an int64
	minCapacity = 1e-3 // samples/s
	maxCapacity = 1e15 // samples/s
)

// Cost is what a producer of a weight adds to a collector's load, in samples/s:
// its weight and one more. A weight that is no positive finite number counts as
// zero.
func Cost(weight float64) float64 { return float64(cost(weight)) / grain }

// cost is Cost in units.
func cost(weight float64) int64 {
	if !(weight > 0) || math.IsInf(weight, 0) {
		weight = 0
	}
	return int64((min(weight, MaxWeight) + each) * grain)
}

// units reads a load, in samples/s.
func units(load float64) int64 {
	if !(load > 0) {
		return 0
	}
	return int64(min(load, maxLoad) * grain)
}

// capacities replaces the capacities that are not told. The order of what is
// told must not depend on chance: floating sums do.
func capacities(told []float64) []float64 {
	reckoned := make([]float64, len(told))
	sum, n := 0.0, 0
	for i, c := range told {
		if c > 0 && !math.IsInf(c, 0) {
			reckoned[i] = max(minCapacity, min(c, maxCapacity))
			sum += reckoned[i]
			n++
		}
	}
	mean := 1.0
	if n > 0 {
		mean = sum / float64(n)
	}
	for i, c := range reckoned {
		if c == 0 {
			reckoned[i] = mean
		}
	}
	return reckoned
}
