package leader

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/lease"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"golang.org/x/sync/errgroup"
)

// A term is one time of leading. All of it is one goroutine's, run's; what takes
// time is done beside it and comes back as a function for it to call.
type term struct {
	*Leader
	lead  roster.LeaderEntry
	began time.Time

	clock  *lease.Clock
	judge  *lease.Judge
	graces *lease.Graces

	// absent are the collectors that were away at the last step; gone those of
	// them whose producers are to be handed off.
	gone map[assignment.CollectorID]bool

	handoffs map[assignment.ProducerID]handoff
	avoid    map[pair]time.Time // until when

	// nextEviction is when a plan that left some stuck is made again.
	nextEviction time.Time
	nextTick     time.Time
	nextAsk      time.Time
	nextBalance  time.Time

	done    chan func(context.Context)
	working map[string]bool // what is being done beside, by name
	beside  errgroup.Group
}

// A pair is a producer and a collector that did not come to collect it.
type pair struct {
	producer  assignment.ProducerID
	collector assignment.CollectorID
}

func newTerm(l *Leader, lead roster.LeaderEntry) *term {
	now := time.Now()
	return &term{
		Leader:      l,
		lead:        lead,
		began:       now,
		clock:       lease.NewClock(0),
		judge:       lease.NewJudge(l.MassLease, rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))),
		graces:      lease.NewGraces(l.Grace, l.Settle),
		gone:        map[assignment.CollectorID]bool{},
		handoffs:    map[assignment.ProducerID]handoff{},
		avoid:       map[pair]time.Time{},
		nextBalance: now.Add(l.Weigh),
		done:        make(chan func(context.Context)),
		working:     map[string]bool{},
	}
}

// run leads until somebody else does, or the registry does not serve, or ctx
// ends.
func (t *term) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		_ = t.beside.Wait() // none of it returns an error
	}()
	step := time.NewTicker(stepInterval)
	defer step.Stop()
	for t.stands() {
		select {
		case <-ctx.Done():
			return
		case apply := <-t.done:
			apply(ctx)
		case <-step.C:
			t.step(ctx, time.Now())
		}
	}
}

// stands tells whether this process still leads.
func (t *term) stands() bool {
	lead, _ := t.leads()
	if !t.leadsBy(lead) {
		return false
	}
	t.lead = lead
	return true
}

// besides does work beside the steps, one of a name at a time, and then what it
// returns as a part of them.
func (t *term) besides(ctx context.Context, name string, work func(context.Context) func(context.Context)) {
	if t.working[name] {
		return
	}
	t.working[name] = true
	t.beside.Go(func() error {
		apply := work(ctx)
		select {
		case t.done <- func(ctx context.Context) {
			delete(t.working, name)
			apply(ctx)
		}:
		case <-ctx.Done():
		}
		return nil
	})
}

func (t *term) step(ctx context.Context, now time.Time) {
	t.Metrics.Tenure.Set(now.Sub(t.began).Seconds())
	t.Metrics.Handoffs.Set(float64(len(t.handoffs)))
	t.lookForGone(ctx, now)
	t.evict(ctx, now)
	t.lookAtHandoffs(ctx, now)
	if !now.Before(t.nextTick) {
		t.nextTick = now.Add(tickInterval)
		t.tick(ctx)
	}
	if !now.Before(t.nextAsk) {
		t.nextAsk = now.Add(t.Ask)
		t.besides(ctx, "ask", func(ctx context.Context) func(context.Context) {
			heard, err := t.listen(ctx)
			if err != nil {
				return func(context.Context) {}
			}
			return func(ctx context.Context) { t.hear(ctx, heard) }
		})
	}
	if !now.Before(t.nextBalance) {
		t.nextBalance = now.Add(t.Weigh)
		t.balance(ctx, now)
	}
}

// write commits transactions of this leadership, and tells how many of them were
// committed.
func (t *term) write(ctx context.Context, what string, txns []roster.Txn) int {
	committed := 0
	for len(txns) > 0 {
		n := min(len(txns), writeBatch)
		fenced := make([]roster.Txn, n)
		for i, txn := range txns[:n] {
			fenced[i] = t.lead.Fenced(txn)
			t.note(ctx, txn)
		}
		did, err := t.Registrar.Write(ctx, fenced)
		committed += did
		if err != nil {
			t.Logger.WarnContext(ctx, "the leader could not write", "what", what, "error", err)
			return committed
		}
		txns = txns[n:]
		if len(txns) == 0 {
			break
		}
		if did == 0 && !t.stands() {
			return committed // somebody else leads
		}
		if now := time.Now(); !now.Before(t.nextTick) { // many batches take long
			t.nextTick = now.Add(tickInterval)
			t.tick(ctx)
		}
	}
	return committed
}

// note logs what becomes of a producer: its record keeps its last move only.
func (t *term) note(ctx context.Context, txn roster.Txn) {
	if p, ok := txn[0].Record.(*roster.Producer); ok {
		t.Logger.InfoContext(ctx, "a producer is handed off", "producer", p.ID, "collector", p.Collector,
			"handoff_from", p.HandoffFrom, "moved_from", p.MovedFrom, "reason", int(p.AssignReason))
	} else if txn[0].Key.Kind == roster.KindProducer {
		t.Logger.InfoContext(ctx, "a producer is struck off", "producer", txn[0].Key.ID)
	}
}

// lookForGone finds the collectors that have been away for too long.
func (t *term) lookForGone(ctx context.Context, now time.Time) {
	var all []lease.Collector
	if t.Registrar.Look(func(v *roster.View) {
		for c := range v.Collectors {
			all = append(all, lease.Collector{
				ID: c.Collector.ID, Live: c.Live(), Assigned: c.Assigned + c.Leaving, Leaving: c.Collector.Leaves(),
			})
		}
	}) != nil {
		return
	}
	absences := t.graces.Tick(now.Sub(t.began), all)
	t.Metrics.Half.Set(flag(absences.Half))
	t.gone = map[assignment.CollectorID]bool{}
	for _, id := range absences.Gone {
		t.gone[id] = true
	}
	var txns []roster.Txn
	for _, id := range absences.New {
		t.Logger.WarnContext(ctx, "a collector is gone: its producers are handed off", "collector", id)
		_ = t.Registrar.Look(func(v *roster.View) {
			if txn, err := v.NoteGone(id, now); err == nil && len(txn) > 0 {
				txns = append(txns, txn)
			}
		})
	}
	t.write(ctx, "that collectors are gone", txns)
}

// evictionPause is how long a plan stands that left some stuck.
const evictionPause = 10 * time.Second

// evict hands off what collectors have that are gone, drained or expunged.
func (t *term) evict(ctx context.Context, now time.Time) {
	expunged := map[assignment.CollectorID]assignment.Revision{}
	leaving := 0
	if now.Before(t.nextEviction) || t.Registrar.Look(func(v *roster.View) {
		for c := range v.Collectors {
			if id := c.Collector.ID; c.Collector.Leaves() || t.gone[id] {
				leaving += c.Assigned
				if c.Collector.Expunged() {
					expunged[id] = c.CollectorRevision
				}
			}
		}
	}) != nil || leaving == 0 {
		return
	}
	plan, err := t.Registrar.Plan(registrar.Wish{Leave: t.gone, Avoid: t.avoids(now)})
	if err != nil {
		return
	}
	txns := plan.Txns(now, func(m registrar.Move) roster.PlacementReason {
		switch {
		case m.Reason != registrar.MoveLeave:
			return 0
		case t.gone[m.From]:
			return roster.PlacementGone
		default:
			return roster.PlacementDrain
		}
	}, expunged)
	did := t.write(ctx, "an eviction", txns)
	t.Metrics.Moves.WithLabelValues("leave").Add(float64(did))
	t.Logger.InfoContext(ctx, "handing off what collectors have that leave", "moves", did, "stuck", plan.Stuck)
	t.Metrics.Stuck.Set(float64(plan.Stuck))
	if plan.Stuck > 0 || did < len(txns) {
		t.nextEviction = now.Add(evictionPause)
	}
}

// avoids tells of pairs that have just failed.
func (t *term) avoids(now time.Time) func(assignment.ProducerID, assignment.CollectorID) bool {
	for p, until := range t.avoid {
		if !now.Before(until) {
			delete(t.avoid, p)
		}
	}
	return func(p assignment.ProducerID, c assignment.CollectorID) bool {
		_, failed := t.avoid[pair{p, c}]
		return failed
	}
}

// maxMisses is how many producers a collector may have failed to collect lately
// before it is given none for the sake of balance.
const maxMisses = 10

// shuns tells of collectors that did not come to collect what they were given: what
// is moved there for balance would only come back.
func (t *term) shuns() func(assignment.CollectorID) bool {
	misses := map[assignment.CollectorID]int{}
	for p := range t.avoid {
		misses[p.collector]++
	}
	return func(id assignment.CollectorID) bool { return misses[id] >= maxMisses }
}

const (
	// minMoves is how many moves a minute are made for balance at most, or one
	// of a hundred producers, whichever is more.
	minMoves = 100

	// hearWithin is how long a collector may be silent before the others are
	// balanced without it.
	hearWithin = 5 * time.Minute
)

// balance evens out the load, if it is uneven enough, and everybody was heard.
func (t *term) balance(ctx context.Context, now time.Time) {
	fleet, handing, early := 0, 0, false
	if t.Registrar.Look(func(v *roster.View) {
		fleet, handing = v.Producers(), v.Handing()
		for c := range v.Collectors {
			heard := t.Registrar.Heard(c.Collector.ID)
			early = early || c.Live() && c.Assigned > 0 && heard.IsZero() && now.Sub(t.began) < hearWithin
		}
	}) != nil || early {
		return
	}
	most := max(minMoves, fleet/100)
	if handing > most || !t.Registrar.Uneven() {
		return
	}
	plan, err := t.Registrar.Plan(registrar.Wish{Leave: t.gone, Rebalance: true, MaxMoves: most, Avoid: t.avoids(now), Shun: t.shuns()})
	if err != nil {
		return
	}
	txns := plan.Txns(now, registrar.ForBalance, nil)
	if did := t.write(ctx, "a rebalancing", txns); did > 0 {
		t.Metrics.Moves.WithLabelValues("rebalance").Add(float64(did))
		t.Logger.InfoContext(ctx, "evening out the load", "moves", did,
			"max_over_mean_before", plan.Before.Ratio(), "max_over_mean_after", plan.After.Ratio())
	}
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
