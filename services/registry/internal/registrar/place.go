package registrar

import (
	"context"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/lease"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/placement"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// openAt tells which collectors may be given producers: those that are live and not
// drained, but for those that were gone again and again, as long as there are
// others. The caller holds mu.
func (r *Registrar) openAt(now time.Time) func(*roster.CollectorEntry) bool {
	may := func(c *roster.CollectorEntry) bool { return c.Live() && !c.Collector.Leaves() }
	closed := func(c *roster.CollectorEntry) bool {
		since, known := r.back[c.Collector.ID]
		if !known {
			since = c.Session.ConnectTime
		}
		return lease.Closed(c.Collector.GoneTimes, since, now)
	}
	all := true
	for c := range r.view.Collectors {
		if may(c) && !closed(c) {
			all = false
			break
		}
	}
	return func(c *roster.CollectorEntry) bool { return may(c) && (all || !closed(c)) }
}

// noteAway notes since when a collector is away, or live. The caller holds mu.
func (r *Registrar) noteAway(id assignment.CollectorID) {
	now := time.Now()
	c := r.view.Collector(id)
	since, away := r.away[id]
	switch {
	case c == nil:
		delete(r.away, id)
		delete(r.back, id)
	case !c.Live() && !away:
		r.away[id] = now
	case c.Live():
		if _, known := r.back[id]; !known {
			r.back[id] = c.Session.ConnectTime
		}
		if away && now.Sub(since) >= r.Grace {
			r.back[id] = now
		}
		delete(r.away, id)
	}
}

// plan prepares the placement of a batch: it counts what is in flight, and what
// it hands out itself. The caller holds mu while it uses the plan.
func (r *Registrar) plan() func(*RegisterProducer) roster.Place {
	var chooser *placement.Chooser
	now := time.Now()
	return func(cmd *RegisterProducer) roster.Place {
		if r.hinted(cmd.Hint, now) {
			return roster.Place{Collector: cmd.Hint, Reason: roster.PlacementHint}
		}
		if chooser == nil {
			chooser = placement.NewChooser(r.loads(now), 0)
		}
		return roster.Place{Collector: chooser.Next(r.weights.expect(cmd.Rate), cmd.Zone), Reason: roster.PlacementLeastLoaded}
	}
}

// hinted tells whether a producer goes on with the collector that it says it has:
// if that is live, or was a moment ago, and may keep what it has.
func (r *Registrar) hinted(id assignment.CollectorID, now time.Time) bool {
	c := r.view.Collector(id)
	if c == nil || c.Collector.Leaves() {
		return false
	}
	since, away := r.away[id] // one that has just registered is not away yet
	return !away || now.Sub(since) < r.Grace
}

// loads are those of the collectors that may be given producers. The caller
// holds mu.
func (r *Registrar) loads(now time.Time) []placement.Load {
	var loads []placement.Load
	open := r.openAt(now)
	for c := range r.view.Collectors {
		if open(c) {
			loads = append(loads, r.load1(c))
		}
	}
	return loads
}

// load1 is the load of one collector, with what is in flight to it.
func (r *Registrar) load1(c *roster.CollectorEntry) placement.Load {
	id := c.Collector.ID
	return placement.Load{
		Collector: id,
		Load:      r.weights.load(id, c.Assigned+r.inFlight[id]),
		Capacity:  c.Collector.Capacity,
		Zone:      c.Collector.Zone,
	}
}

// placeOrphans gives producers without a collector to one whenever the view has
// moved.
func (r *Registrar) placeOrphans(ctx context.Context) error {
	again := time.NewTicker(orphanInterval)
	defer again.Stop()
	for {
		select {
		case <-r.kick:
		case <-again.C: // a collector may be open by now without any event
		case <-ctx.Done():
			return ctx.Err()
		}
		// The first collector that comes must not get all that waited: those that
		// start with it come a moment later, and what is placed stays.
		if r.orphaned() && !pause(ctx, settleTime) {
			return ctx.Err()
		}
		for {
			placed, err := r.placeSome(ctx)
			if err != nil {
				r.Logger.WarnContext(ctx, "could not place producers", "error", err)
				if !pause(ctx, retryDelay) {
					return ctx.Err()
				}
			} else if placed == 0 {
				break
			}
		}
	}
}

// orphaned reports whether any producer waits for a collector.
func (r *Registrar) orphaned() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.view.Unassigned() > 0
}

const (
	placeBatch     = 1000
	orphanInterval = 10 * time.Second
)

func (r *Registrar) placeSome(ctx context.Context) (int, error) {
	round := r.decidePlaces()
	if len(round.txns) == 0 {
		return 0, nil
	}
	defer r.landed(round.planned)
	_, err := r.Write(ctx, round.txns)
	return len(round.txns), err
}

func (r *Registrar) decidePlaces() round {
	var d round
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.serving() != nil {
		return d
	}
	plan, now := r.plan(), time.Now()
	for _, e := range r.view.Orphans(placeBatch) {
		p := plan(&RegisterProducer{Zone: e.Zone, Rate: e.Rate})
		if p.Collector == "" {
			break
		}
		d.txns = append(d.txns, roster.Give(e, p, false, now))
		d.planned = append(d.planned, p.Collector)
		r.inFlight[p.Collector]++
	}
	return d
}

// Write commits transactions, each by itself, and waits until the view shows
// what became of them. It returns how many were committed; the others met
// somebody else's write.
func (r *Registrar) Write(ctx context.Context, txns []roster.Txn) (int, error) {
	if len(txns) == 0 {
		return 0, nil
	}
	outcomes, err := r.commit(ctx, txns)
	if err != nil {
		return 0, err
	}
	committed := 0
	var newest assignment.Revision
	for _, o := range outcomes {
		if o.Committed {
			committed++
			newest = max(newest, o.Revision)
		}
	}
	return committed, r.settle(ctx, newest, committed < len(outcomes))
}

// Look calls look with the view, or refuses while commands are not carried out.
// What it keeps of the view must be immutable.
func (r *Registrar) Look(look func(*roster.View)) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if err := r.serving(); err != nil {
		return err
	}
	look(r.view)
	return nil
}
