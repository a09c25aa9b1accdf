package registrar

import (
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/placement"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// Wish says what a plan for the whole fleet is to do.
type Wish struct {
	// Leave are collectors that everything must move off, beside those that are
	// drained or expunged.
	Leave map[assignment.CollectorID]bool

	// Rebalance allows up to MaxMoves moves for balance only.
	Rebalance bool
	MaxMoves  int

	// Band is how far above the mean a collector may be, 0.1 for 10 %; 0: that.
	Band float64

	// Silent tells which collectors have not told what their producers yield, nil
	// for those that have not within silentAfter.
	Silent func(assignment.CollectorID) bool

	// Shun tells which collectors take no part in rebalancing; nil: none.
	Shun func(assignment.CollectorID) bool

	// Avoid tells of pairs that must not be; nil: none.
	Avoid func(assignment.ProducerID, assignment.CollectorID) bool
}

// silentAfter is how long what a collector told of its producers stands.
const silentAfter = 5 * time.Minute

// A Plan is a placement.Plan with what its moves are decided on.
type Plan struct {
	*placement.Plan
	Entries map[assignment.ProducerID]*roster.Entry
}

// Plan decides who should have what, on the view as it is. It writes nothing.
func (r *Registrar) Plan(wish Wish) (*Plan, error) {
	r.planning.Lock() // one at a time: it takes as much as the fleet is large
	defer r.planning.Unlock()
	r.mu.Lock() // not RLock: cloning a tree marks its nodes as shared
	if err := r.serving(); err != nil {
		r.mu.Unlock()
		return nil, err
	}
	roll := r.view.Snapshot()
	var collectors []placement.Collector
	now := time.Now()
	open := r.openAt(now)
	for c := range r.view.Collectors {
		collectors = append(collectors, r.placeable(c, wish, open(c), now))
	}
	r.mu.Unlock()

	producers := make([]placement.Producer, 0, roll.Len())
	r.weights.mu.RLock()
	roll.Ascend(func(e *roster.Entry) bool {
		producers = append(producers, placement.Producer{
			ID: e.ID, Weight: r.weights.of(e), Zone: e.Zone, Owner: e.Collector, Fixed: e.HandoffFrom != "",
		})
		return true
	})
	r.weights.mu.RUnlock()
	plan := &Plan{Plan: placement.Decide(producers, collectors, placement.Options{
		Rebalance: wish.Rebalance, MaxMoves: wish.MaxMoves, Band: wish.Band, Avoid: wish.Avoid,
	})}
	plan.Entries = make(map[assignment.ProducerID]*roster.Entry, len(plan.Moves))
	for _, m := range plan.Moves {
		plan.Entries[m.Producer] = roster.Find(roll, m.Producer)
	}
	return plan, nil
}

// placeable is a collector as placement sees it. The caller holds mu.
func (r *Registrar) placeable(c *roster.CollectorEntry, wish Wish, open bool, now time.Time) placement.Collector {
	id := c.Collector.ID
	silent := now.Sub(r.Heard(id)) > silentAfter && c.Assigned > 0
	if wish.Silent != nil {
		silent = wish.Silent(id)
	}
	if wish.Shun != nil && wish.Shun(id) {
		silent = true
	}
	return placement.Collector{
		ID:       id,
		Capacity: c.Collector.Capacity,
		Zone:     c.Collector.Zone,
		Open:     open,
		Leave:    c.Collector.Leaves() || wish.Leave[id],
		Silent:   silent,
	}
}

// Txns are what the moves of a plan write, but for those that reason leaves out
// by the reason 0. expunged are the collectors that were expunged, with the
// revisions of their records: they are left alone, if that stands.
func (p *Plan) Txns(now time.Time, reason func(placement.Move) roster.PlacementReason, expunged map[assignment.CollectorID]assignment.Revision) []roster.Txn {
	var txns []roster.Txn
	for _, m := range p.Moves {
		why := reason(m)
		if why == 0 {
			continue
		}
		at, alone := expunged[m.From]
		txn := roster.Give(p.Entries[m.Producer], roster.Place{Collector: m.To, Reason: why}, alone, now)
		if alone {
			txn = roster.Standing(txn, m.From, at)
		}
		if len(txn) > 0 {
			txns = append(txns, txn)
		}
	}
	return txns
}

// Move is one of a plan, and MoveLeave the reason of one that must leave its
// collector.
type Move = placement.Move

// MoveLeave is the reason of a move off a collector that everything must leave.
const MoveLeave = placement.Leave

// ForBalance takes from a plan the moves for balance only.
func ForBalance(m Move) roster.PlacementReason {
	if m.Reason != placement.Rebalance {
		return 0
	}
	return roster.PlacementRebalance
}

// Uneven tells whether some collector may be above the band, by what its
// producers were last said to yield.
func (r *Registrar) Uneven() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	loads := r.loads(time.Now())
	told, known := 0.0, 0
	for _, l := range loads {
		if l.Capacity > 0 {
			told, known = told+l.Capacity, known+1
		}
	}
	standard := 1.0
	if known > 0 {
		standard = told / float64(known)
	}
	load, capacity, most := 0.0, 0.0, 0.0
	for _, l := range loads {
		c := l.Capacity
		if c <= 0 {
			c = standard
		}
		load, capacity, most = load+l.Load, capacity+c, max(most, l.Load/c)
	}
	return len(loads) > 1 && load > 0 && most > (1+placement.DefaultBand)*load/capacity
}

// Elsewhere returns a function that finds another collector for a producer than
// the one that it was given to, empty if there is none. It counts what it hands
// out; it is for one round, and one goroutine.
func (r *Registrar) Elsewhere(avoid func(assignment.ProducerID, assignment.CollectorID) bool) func(*roster.Entry) assignment.CollectorID {
	r.mu.RLock()
	chooser := placement.NewChooser(r.loads(time.Now()), 0)
	r.mu.RUnlock()
	return func(e *roster.Entry) assignment.CollectorID {
		return chooser.NextBut(r.Weight(e), e.Zone, func(id assignment.CollectorID) bool {
			return id == e.Collector || avoid(e.ID, id)
		})
	}
}
