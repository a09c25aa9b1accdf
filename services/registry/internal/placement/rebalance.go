package placement

import (
	"cmp"
	"math"
	"slices"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A party is a bin in rebalancing.
type party struct {
	*bin
	index int32
	taker bool

	// items is what can be moved from it; lightest first, and equals by id, once
	// it is sorted.
	items  []int32
	sorted bool

	// giving is set from when its load exceeds the band until it has settled.
	giving bool
	// done is set in a round when nothing more of it can usefully be moved.
	done bool
	// effort is the first one that may still help in this round. What an effort
	// could not find once is hardly there later: takers only fill up.
	effort effort
}

// An effort is how much is taken into account to find a move: each a little more
// than the one before.
type effort uint8

const (
	inZone      effort = iota // the taker stays settled, and nobody leaves its zone
	settled                   // the taker stays settled
	banded                    // the taker stays in the band
	worthwhile                // the taker ends Band below where the giver was
	noMoreToTry               // not an effort
)

// A round of rebalancing works on the bins that take part.
type rebalancing struct {
	*planner
	parties []*party // least loaded first
	dealt   bool
	mean    float64
	left    int // how many moves may still be made
}

// enoughSteps bounds the steps of a plan, for each producer. The bound stands
// there for what loads so huge that a step is lost in rounding could do.
const enoughSteps = 64

// rebalance relieves those outside the band, most loaded first. Every step ends
// with its taker below where its giver was, so the loads in falling order get
// smaller with each, and it ends.
func (p *planner) rebalance() {
	r := &rebalancing{planner: p, left: enoughSteps * len(p.producers)}
	if p.options.MaxMoves > 0 {
		r.left = min(r.left, p.options.MaxMoves)
	}
	for i, b := range p.bins {
		if p.gives(i) {
			r.parties = append(r.parties, &party{bin: b, index: int32(i), taker: p.gets(i)})
		}
	}
	slices.SortFunc(r.parties, func(a, b *party) int { return compare(a.bin, b.bin) })
	// One that is not open may count no more once it has given, and the mean of
	// the others is then higher: it is reckoned anew until it stays.
	for mean := p.balance().Mean; mean != r.mean; mean = p.balance().Mean {
		r.mean = mean
		if !slices.ContainsFunc(r.parties, r.outside) {
			return
		}
		r.deal()
		for r.round() {
		}
	}
}

// outside reports whether a party's load exceeds the band.
func (r *rebalancing) outside(of *party) bool { return of.load > r.limit(of.bin, r.options.Band) }

// limit is the most that a bin may carry to be so far above the mean, in units.
// Whatever compares loads does it in whole units: what fits is not over.
func (r *rebalancing) limit(b *bin, above float64) int64 {
	return int64(math.Floor((1 + above) * r.mean * b.capacity))
}

// deal writes down who has what that can be moved, once.
func (r *rebalancing) deal() {
	if r.dealt {
		return
	}
	r.dealt = true
	of := make([]*party, len(r.bins))
	count := make([]int, len(r.bins))
	for n, at := range r.owner {
		if at != none && !r.producers[n].Fixed {
			count[at]++
		}
	}
	for _, party := range r.parties {
		of[party.index] = party
		party.items = make([]int32, 0, count[party.index])
	}
	for n, at := range r.owner {
		if at != none && of[at] != nil && !r.producers[n].Fixed {
			of[at].items = append(of[at].items, int32(n))
		}
	}
}

// round relieves everybody as far as it can. It reports whether another round
// may find more: somebody was given up before another, by giving, made room.
func (r *rebalancing) round() bool {
	for _, party := range r.parties {
		party.done, party.effort = false, inZone
	}
	moved, givenUp := false, false
	for {
		giver := r.giver()
		if giver == nil {
			return moved && givenUp
		}
		if r.left == 0 {
			return false
		}
		if r.relieve(giver) {
			moved = true
			r.left--
		} else {
			giver.done, givenUp = true, true
		}
	}
}

// giver is the most loaded that has to give, or nil.
func (r *rebalancing) giver() *party {
	for _, g := range slices.Backward(r.parties) {
		if g.load <= r.limit(g.bin, r.options.Settle) {
			g.giving = false
			continue
		}
		g.giving = g.giving || r.outside(g)
		if g.giving && !g.done {
			return g
		}
	}
	return nil
}

// relieve moves one producer from a giver to the least loaded taker that can
// usefully have one of its producers. Where a giver and a taker can only share a
// burden, it is to the taker with which that goes best.
func (r *rebalancing) relieve(g *party) bool {
	for ; g.effort < noMoreToTry; g.effort++ {
		if g.effort >= banded && !r.outside(g) {
			return false
		}
		var to *party
		item, least := none, math.Inf(1)
		for _, taker := range r.parties {
			if taker.relative >= g.relative {
				break
			}
			if !taker.taker {
				continue
			}
			i := r.pick(g, taker)
			if i == none {
				continue
			}
			moving := r.costs[g.items[i]]
			if most := max(taker.with(moving), g.with(-moving)); most < least {
				to, item, least = taker, i, most
			}
			if g.effort < worthwhile {
				break
			}
		}
		if to != nil {
			r.shift(g, to, item)
			return true
		}
	}
	return false
}

// pick chooses what a giver had best give to a taker, as an index into its
// items, or none. It is the lightest that is enough by itself; where none is, the
// heaviest that fits. When the two can only share the burden, it is the one that
// comes nearest to equal shares from below, or else from above.
func (r *rebalancing) pick(g, taker *party) int {
	r.sort(g)
	var limit, enough int64
	switch g.effort {
	case inZone, settled:
		limit, enough = r.limit(taker.bin, r.options.Settle), g.load-r.limit(g.bin, r.options.Settle)
	case banded:
		limit, enough = r.limit(taker.bin, r.options.Band), g.load-r.limit(g.bin, r.options.Settle)
	default:
		limit = int64(math.Ceil((g.relative-r.options.Band*r.mean)*taker.capacity)) - 1
		both := float64(g.load + taker.load)
		enough = g.load - int64(both*(g.capacity/(g.capacity+taker.capacity)))
	}
	room := limit - taker.load
	if len(g.items) == 0 || r.costs[g.items[0]] > room {
		return none
	}
	from := r.search(g, enough, "")
	if g.effort == worthwhile {
		if i := r.down(g, taker, from-1, room); i != none {
			return i
		}
		return r.up(g, taker, from, room)
	}
	if i := r.up(g, taker, from, room); i != none {
		return i
	}
	return r.down(g, taker, min(from, r.search(g, room+1, ""))-1, room)
}

// up finds the first item from i on that fits and may go to the taker, or none.
func (r *rebalancing) up(g, taker *party, i int, room int64) int {
	for ; i < len(g.items) && r.costs[g.items[i]] <= room; i++ {
		if r.may(g, taker, g.items[i]) {
			return i
		}
	}
	return none
}

// down finds the last item up to i that fits and may go to the taker, or none.
func (r *rebalancing) down(g, taker *party, i int, room int64) int {
	for ; i >= 0; i-- {
		if r.costs[g.items[i]] <= room && r.may(g, taker, g.items[i]) {
			return i
		}
	}
	return none
}

// may tells whether the giver's effort lets a producer go to a taker.
func (r *rebalancing) may(g, taker *party, n int32) bool {
	if zone := r.producers[n].Zone; g.effort == inZone && zone != "" && zone == g.zone && zone != taker.zone {
		return false
	}
	return r.options.Avoid == nil || !r.options.Avoid(r.producers[n].ID, taker.id)
}

// search finds where in a sorted party's items a producer of a cost and an id
// stands, or would.
func (r *rebalancing) search(of *party, cost int64, id assignment.ProducerID) int {
	at, _ := slices.BinarySearchFunc(of.items, cost, func(n int32, cost int64) int {
		return cmp.Or(cmp.Compare(r.costs[n], cost), cmp.Compare(r.producers[n].ID, id))
	})
	return at
}

func (r *rebalancing) sort(of *party) {
	if of.sorted {
		return
	}
	slices.SortFunc(of.items, func(a, b int32) int {
		return cmp.Or(cmp.Compare(r.costs[a], r.costs[b]), cmp.Compare(r.producers[a].ID, r.producers[b].ID))
	})
	of.sorted = true
}

// shift moves the giver's i-th item to a taker.
func (r *rebalancing) shift(g, taker *party, i int) {
	n := g.items[i]
	r.touch(n, Rebalance)
	g.items = slices.Delete(g.items, i, i+1)
	at := len(taker.items)
	if taker.sorted {
		at = r.search(taker, r.costs[n], r.producers[n].ID)
	}
	taker.items = slices.Insert(taker.items, at, n)

	r.lift(g)
	r.lift(taker)
	r.move(n, taker.index)
	r.lower(g)
	r.lower(taker)
}

// lift takes a party out of the order, before its load changes.
func (r *rebalancing) lift(of *party) {
	at := r.stand(of)
	r.parties = slices.Delete(r.parties, at, at+1)
}

// lower puts it back in.
func (r *rebalancing) lower(of *party) {
	r.parties = slices.Insert(r.parties, r.stand(of), of)
}

// stand finds where in the order a party stands, or would.
func (r *rebalancing) stand(of *party) int {
	at, _ := slices.BinarySearchFunc(r.parties, of, func(a, b *party) int { return compare(a.bin, b.bin) })
	return at
}
