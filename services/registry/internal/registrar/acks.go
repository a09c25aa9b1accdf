package registrar

import (
	"context"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// Acknowledge is what a collector did with a snapshot.
type Acknowledge struct {
	roster.Ack
	Generation assignment.Generation

	// Snapshot names the snapshot that this is about.
	Snapshot string

	// HeldIDs are some of the producers that it holds back.
	HeldIDs []assignment.ProducerID

	// CollectedIDs are some of those that it was given, and has collected since.
	CollectedIDs []assignment.ProducerID
}

// ackState is the last acknowledgement that this process received of a
// collector.
type ackState struct {
	roster.Ack
	snapshot string

	// changes counts what was worth a write, saved how much of it was written.
	changes, saved int

	// hurried is when it was last worth a write at once.
	hurried time.Time

	// reclaimed is when producers that it holds were last given back to it.
	reclaimed time.Time
}

// Acknowledge takes an acknowledgement, and explains those of the held producers
// that are rightly gone.
func (r *Registrar) Acknowledge(ctx context.Context, cmd Acknowledge) ([]assignment.Removal, error) {
	cmd.ReceiveTime = time.Now()
	explained, urgent, err := r.takeAck(cmd)
	if err != nil {
		return nil, err
	}
	r.mu.RLock()
	epoch, at := r.view.Epoch(), r.view.Revision()
	r.mu.RUnlock()
	if cmd.Epoch == epoch && cmd.Revision > at {
		r.checkRewound(ctx, cmd.Collector, epoch, cmd.Revision)
	}
	r.handOff(ctx, cmd)
	if cmd.Refusal != nil {
		r.Metrics.Refusals.Inc()
	}
	if cmd.Refusal != nil && urgent {
		r.Logger.WarnContext(ctx, "a collector refused a snapshot", "collector", cmd.Collector,
			"reason", cmd.Refusal.Reason, "message", cmd.Refusal.Message, "revision", cmd.Refusal.Revision)
	}
	if urgent {
		r.saveAck(ctx, cmd.Collector)
	}
	return explained, nil
}

// takeAck remembers an acknowledgement.
func (r *Registrar) takeAck(cmd Acknowledge) (explained []assignment.Removal, urgent bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.serving(); err != nil {
		return nil, false, err
	}
	c := r.view.Collector(cmd.Collector)
	if c == nil {
		return nil, false, roster.Refuse(roster.NotFound, roster.ReasonUnknownCollector, "collector %q has never registered", cmd.Collector)
	}
	stands := c.Collector.Newest()
	if stands.ID != cmd.Instance || stands.Generation != cmd.Generation || cmd.Refusal == nil && cmd.Epoch != "" && cmd.Epoch != r.view.Epoch() {
		return nil, false, roster.Refuse(roster.FailedPrecondition, roster.ReasonStaleAcknowledgement,
			"collector %q: an acknowledgement of epoch %q by generation %d of instance %q; generation %d of %q stands",
			cmd.Collector, cmd.Epoch, cmd.Generation, cmd.Instance, stands.Generation, stands.ID)
	}
	last := r.acks[cmd.Collector]
	if last == nil {
		last = &ackState{}
		r.acks[cmd.Collector] = last
	}
	news := cmd.Refusal != nil || cmd.Held != last.Held
	// News is written at once, but a collector that has some with each
	// acknowledgement does not set the pace of the store's writes and the log.
	urgent = news && cmd.ReceiveTime.Sub(last.hurried) >= hurryInterval
	if cmd.Refusal == nil && cmd.Revision == last.Revision {
		cmd.Refusal = last.Refusal // nothing was accepted since
	}
	next := ackState{
		Ack: cmd.Ack, snapshot: cmd.Snapshot, changes: last.changes, saved: last.saved, hurried: last.hurried, reclaimed: last.reclaimed,
	}
	if urgent {
		next.hurried = cmd.ReceiveTime
	}
	// A revision alone is not worth a write: the write would move it again.
	if news || cmd.Snapshot != last.snapshot || cmd.Unrunnable != last.Unrunnable || cmd.Persisted != last.Persisted {
		next.changes++
	}
	*last = next
	if cmd.Epoch != r.view.Epoch() {
		// What this epoch remembers may be from before what the collector holds:
		// of the two, the store may be the one that was set back.
		return nil, urgent, nil
	}
	return r.view.Explain(cmd.Collector, cmd.HeldIDs), urgent, nil
}

// handOff carries out what an acknowledgement means for handoffs: those whose
// producer has been collected by its new collector are over, and what is held
// although another collector was given it is handed off from the holder.
func (r *Registrar) handOff(ctx context.Context, cmd Acknowledge) {
	var txns []roster.Txn
	add := func(txn roster.Txn) {
		if len(txn) > 0 {
			txns = append(txns, txn)
		}
	}
	r.mu.Lock()
	completes := cmd.Persisted && cmd.Epoch == r.view.Epoch()
	for _, id := range cmd.CollectedIDs {
		// An acknowledgement of before the move is about an earlier one.
		if e := r.view.Producer(id); completes && e != nil && e.Collector == cmd.Collector && cmd.Revision >= e.Revision {
			add(roster.Finish(e))
		}
	}
	if r.mayReclaim(cmd) {
		for _, id := range cmd.HeldIDs {
			if e := r.view.Producer(id); e != nil {
				add(r.reclaim(e, cmd.Collector, cmd.ReceiveTime))
			}
		}
	}
	r.mu.Unlock()
	if _, err := r.Write(ctx, txns); err != nil {
		r.Logger.DebugContext(ctx, "could not carry out what an acknowledgement means for handoffs", "collector", cmd.Collector, "error", err)
	}
}

// mayReclaim bounds how fast a collector may claim to hold what others were given,
// to one acknowledgement a second: the claim cannot be proved, and each producer is
// a write. The caller holds mu.
func (r *Registrar) mayReclaim(cmd Acknowledge) bool {
	a := r.acks[cmd.Collector]
	if len(cmd.HeldIDs) == 0 || a == nil || cmd.ReceiveTime.Sub(a.reclaimed) < hurryInterval {
		return false
	}
	a.reclaimed = cmd.ReceiveTime
	return true
}

// reclaim decides what becomes of a producer that a collector holds. The caller
// holds mu.
func (r *Registrar) reclaim(e *roster.Entry, holder assignment.CollectorID, now time.Time) roster.Txn {
	if c := r.view.Collector(holder); e.Collector == "" && c != nil && r.openAt(now)(c) {
		return roster.Give(e, roster.Place{Collector: holder, Reason: roster.PlacementHint}, false, now)
	}
	return roster.Reclaim(e, holder)
}

// Acknowledged reports whether a collector has acknowledged a revision of this
// epoch, and has it on stable storage. The view's owner holds its lock: it is for Look.
func (r *Registrar) Acknowledged(c *roster.CollectorEntry, revision assignment.Revision) bool {
	a := r.lastAck(c)
	return a != nil && a.Persisted && a.Epoch == r.view.Epoch() && a.Revision >= revision
}

// lastAck is the newest acknowledgement known here. The caller holds mu.
func (r *Registrar) lastAck(c *roster.CollectorEntry) *roster.Ack {
	mine, stored := r.acks[c.Collector.ID], c.Ack
	if mine != nil && (stored == nil || !mine.ReceiveTime.Before(stored.ReceiveTime)) {
		ack := mine.Ack
		return &ack
	}
	return stored
}

// AcknowledgedRevision is that of the last acknowledgement this process received
// of a collector in this epoch.
func (r *Registrar) AcknowledgedRevision(id assignment.CollectorID) assignment.Revision {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if a := r.acks[id]; a != nil && a.Epoch == r.view.Epoch() {
		return a.Revision
	}
	return 0
}

// saveAcks writes what was acknowledged to the store from time to time, so that
// other processes know of it.
func (r *Registrar) saveAcks(ctx context.Context) error {
	for pause(ctx, ackInterval) {
		var dirty []assignment.CollectorID
		r.mu.RLock()
		for id, a := range r.acks {
			if a.changes != a.saved {
				dirty = append(dirty, id)
			}
		}
		r.mu.RUnlock()
		for _, id := range dirty {
			r.saveAck(ctx, id)
		}
	}
	return ctx.Err()
}

func (r *Registrar) saveAck(ctx context.Context, id assignment.CollectorID) {
	var saved int
	_, _, err := r.execute(ctx, func(time.Time) (roster.Txn, error) {
		saved = r.acks[id].changes
		return r.view.SaveAck(r.acks[id].Ack), nil
	})
	if err != nil {
		r.Logger.DebugContext(ctx, "could not save an acknowledgement", "collector", id, "error", err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.acks[id].saved = max(r.acks[id].saved, saved)
}

// pruneRemoved forgets producers that left long ago.
func (r *Registrar) pruneRemoved(ctx context.Context) error {
	for pause(ctx, pruneInterval) {
		for more := true; more; {
			var err error
			if more, err = r.pruneSome(ctx); err != nil {
				r.Logger.DebugContext(ctx, "could not forget producers that left", "error", err)
			}
		}
	}
	return ctx.Err()
}

// pruneSome forgets one batch, and tells whether there is more to forget.
func (r *Registrar) pruneSome(ctx context.Context) (more bool, err error) {
	var txns []roster.Txn
	before := time.Now().Add(-removedTTL)
	r.mu.RLock()
	for e := range r.view.AllRemoved {
		if len(txns) == placeBatch {
			more = true
			break
		}
		if e.RemoveTime.Before(before) {
			txns = append(txns, roster.Txn{{Key: e.Key(), Expect: e.Revision}})
		}
	}
	r.mu.RUnlock()
	if len(txns) == 0 {
		return false, nil
	}
	_, err = r.Write(ctx, txns) // another process forgets them too
	return more, err
}
