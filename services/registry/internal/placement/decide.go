package placement

import (
	"cmp"
	"slices"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// Decide plans who goes where. No two producers, and no two collectors, may have
// the same id; it changes neither slice. Carried out, a plan that no MaxMoves cut
// short leaves nothing to do: another one of the same fleet has no moves.
//
// It is quick when there is little to do: N producers are summed, the W that
// wait for a place cost W log W, and rebalancing costs N and then something for
// each move.
//
// What it attains: all that have no collector are placed and all that must leave
// do, as long as some collector is open and not avoided. With Rebalance, and
// MaxMoves not reached, for every collector T that takes part and is open one of
// these holds of every collector G that takes part, in units of After.Mean:
//
//   - G's relative load is at most 1+Band;
//   - G has nothing that can be moved to T: all it has is fixed or to be avoided;
//   - G's relative load is at most that of T, and Band, and what the lightest
//     that can be moved from G would add to T; and that one would push T outside
//     the band.
//
// So a G of many small producers ends inside the band, and every G that can give
// to a T which is not above the mean ends within its lightest of it. What would
// end less than Band below where it was is not moved, unless to inside the band:
// it would be moved back soon.
func Decide(producers []Producer, collectors []Collector, options Options) *Plan {
	p := read(producers, collectors, options.withDefaults())
	before := p.balance()
	for i, b := range p.bins {
		p.result.Collectors[i] = CollectorLoad{
			Collector: b.id, Capacity: b.capacity / grain,
			LoadBefore: float64(b.load) / grain, ProducersBefore: p.count[i],
		}
	}
	p.place()
	if p.options.Rebalance {
		p.rebalance()
	}
	p.report()
	p.result.Before, p.result.After = before, p.balance()
	return p.result
}

// none is in place of the index of a bin where there is none.
const none = -1

// A planner is a plan in the making. Producers and bins go by their index.
type planner struct {
	producers  []Producer
	collectors []Collector // by id
	options    Options

	bins  []*bin  // of each collector
	count []int   // how many producers it has
	costs []int64 // of each producer, in units
	owner []int32 // the bin that each has now, or none
	waits []int32 // those without a collector or on one that they must leave

	steps  []step // of each producer the first one
	moved  []bool // who has one
	result *Plan
}

// A step is the first change of a producer in a plan.
type step struct {
	producer int32
	reason   Reason
	from     int32 // the bin that it had before
}

// read takes stock: who has what, and who waits.
func read(producers []Producer, collectors []Collector, options Options) *planner {
	p := &planner{producers: producers, options: options, result: &Plan{Collectors: make([]CollectorLoad, len(collectors))}}
	p.collectors = slices.SortedFunc(slices.Values(collectors), func(a, b Collector) int { return cmp.Compare(a.ID, b.ID) })
	told := make([]float64, len(collectors))
	for i := range p.collectors {
		told[i] = p.collectors[i].Capacity
	}
	index := make(map[assignment.CollectorID]int32, len(collectors))
	p.bins, p.count = make([]*bin, len(collectors)), make([]int, len(collectors))
	for i, c := range capacities(told) {
		p.bins[i] = &bin{id: p.collectors[i].ID, zone: p.collectors[i].Zone, capacity: c * grain}
		index[p.collectors[i].ID] = int32(i)
	}

	p.costs, p.owner, p.moved = make([]int64, len(producers)), make([]int32, len(producers)), make([]bool, len(producers))
	loads := make([]int64, len(collectors))
	for n := range producers {
		p.costs[n] = cost(producers[n].Weight)
		at, known := index[producers[n].Owner]
		if !known || producers[n].Owner == "" {
			p.owner[n] = none
			p.waits = append(p.waits, int32(n))
			continue
		}
		p.owner[n] = at
		p.count[at]++
		loads[at] += p.costs[n]
		if p.collectors[at].Leave {
			p.waits = append(p.waits, int32(n))
		}
	}
	for i, b := range p.bins {
		b.add(loads[i])
	}
	return p
}

// place gives a collector to all that wait, heaviest first.
func (p *planner) place() {
	var open []*bin
	position := map[*bin]int32{}
	for i, b := range p.bins {
		if p.collectors[i].Open && !p.collectors[i].Leave {
			open = append(open, b)
			position[b] = int32(i)
		}
	}
	if len(open) == 0 {
		for _, n := range p.waits {
			p.strand(n)
		}
		return
	}
	p.steps = make([]step, 0, len(p.waits))
	chooser := choose(open, p.options.Band)
	total := chooser.load
	for _, n := range p.waits {
		total += p.costs[n]
	}
	mean := float64(total) / chooser.capacity
	for _, n := range p.heaviestFirst(p.waits) {
		b := chooser.next(p.costs[n], p.producers[n].Zone, mean, p.avoid(n))
		if b == nil {
			p.strand(n)
			continue
		}
		reason := Leave
		if p.producers[n].Owner == "" {
			reason = Orphan
		}
		p.touch(n, reason)
		p.move(n, position[b])
	}
	for _, b := range open {
		b.on = [2]*shelf{} // nobody asks for the least loaded again
	}
}

// strand counts a producer that can go nowhere.
func (p *planner) strand(n int32) {
	if p.producers[n].Owner == "" {
		p.result.Unplaced++
	} else {
		p.result.Stuck++
	}
}

// avoid is Options.Avoid of one producer, or nil.
func (p *planner) avoid(n int32) func(*bin) bool {
	if p.options.Avoid == nil {
		return nil
	}
	return func(b *bin) bool { return p.options.Avoid(p.producers[n].ID, b.id) }
}

// heaviestFirst orders producers by cost, and equals by id.
func (p *planner) heaviestFirst(some []int32) []int32 {
	// The costs stand beside the indices: that halves the time of a million.
	type weighed struct {
		cost int64
		n    int32
	}
	all := make([]weighed, len(some))
	for i, n := range some {
		all[i] = weighed{p.costs[n], n}
	}
	slices.SortFunc(all, func(a, b weighed) int {
		if a.cost != b.cost {
			return cmp.Compare(b.cost, a.cost)
		}
		return cmp.Compare(p.producers[a.n].ID, p.producers[b.n].ID)
	})
	ordered := make([]int32, len(all))
	for i := range all {
		ordered[i] = all[i].n
	}
	return ordered
}

// touch notes that a producer is about to be moved.
func (p *planner) touch(n int32, reason Reason) {
	if !p.moved[n] {
		p.moved[n] = true
		p.steps = append(p.steps, step{producer: n, reason: reason, from: p.owner[n]})
	}
}

// move changes the owner and the loads.
func (p *planner) move(n, to int32) {
	if from := p.owner[n]; from != none {
		p.bins[from].add(-p.costs[n])
		p.count[from]--
	}
	p.owner[n] = to
	p.bins[to].add(p.costs[n])
	p.count[to]++
}

// report writes down what was moved and what it comes to.
func (p *planner) report() {
	if len(p.steps) > 0 {
		p.result.Moves = make([]Move, 0, len(p.steps))
	}
	for _, s := range p.steps {
		to := p.owner[s.producer]
		if to == s.from {
			continue
		}
		from := &p.producers[s.producer]
		p.result.Moves = append(p.result.Moves, Move{Producer: from.ID, From: from.Owner, To: p.bins[to].id, Reason: s.reason})
	}
	for i, b := range p.bins {
		p.result.Collectors[i].LoadAfter = float64(b.load) / grain
		p.result.Collectors[i].ProducersAfter = p.count[i]
	}
}

// gets tells whether rebalancing may give a bin more, and gives whether it may
// take from it.
func (p *planner) gets(i int) bool { return p.gives(i) && p.collectors[i].Open }

func (p *planner) gives(i int) bool { return !p.collectors[i].Leave && !p.collectors[i].Silent }

// balance reckons the mean of those that take part, and the most that one of
// them has.
func (p *planner) balance() Balance {
	var load int64
	var capacity, most float64
	var closed []*bin
	for i, b := range p.bins {
		switch {
		case p.gets(i):
			load, capacity = load+b.load, capacity+b.capacity
		case p.gives(i):
			closed = append(closed, b)
		default:
			continue
		}
		most = max(most, b.relative)
	}
	if capacity == 0 {
		return Balance{}
	}
	// Those that are not open count while they are above the mean of the rest,
	// which each of them raises.
	slices.SortFunc(closed, func(a, b *bin) int { return compare(b, a) })
	for _, b := range closed {
		if b.relative <= float64(load)/capacity {
			break
		}
		load, capacity = load+b.load, capacity+b.capacity
	}
	return Balance{Mean: float64(load) / capacity, Max: most}
}
