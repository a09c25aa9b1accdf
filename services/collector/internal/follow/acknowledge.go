package follow

import (
	"context"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
)

const (
	// ackInterval is the least time between two acknowledgements.
	ackInterval = 100 * time.Millisecond

	// ackRetry is the time after which a failed one is sent again.
	ackRetry = time.Second

	// heldInterval is how often held producers are told again.
	heldInterval = time.Minute

	// collectedInterval is how often collected targets of handoffs are told
	// again.
	collectedInterval = 5 * time.Second
)

// acknowledger sends acknowledgements, the newest only.
type acknowledger struct {
	session *session
	client  registryv1.AssignmentServiceClient
	due     chan struct{} // holds one token when there is something to tell

	// sealed is the revision of the last seal; it belongs to the reader.
	sealed assignment.Revision

	round   round
	targets targets
}

// targets tells the registry of every collected target of a handoff, so many in
// each acknowledgement, and of all of them again after a while: a registry that
// did not hear of one goes on with two collectors. It belongs to who sends.
type targets struct {
	told uint64 // those up to this position have been told
	open bool   // there are more
}

// again begins again unless not all have been told yet.
func (t *targets) again() {
	if !t.open {
		t.told = 0
	}
}

// round tells the registry of every held producer once, so many in each
// acknowledgement, in the order of their ids. It belongs to who sends.
type round struct {
	open  bool
	after assignment.ProducerID // those up to here have been told
	holds int64                 // Status.Holds when it began
}

// begin begins a round unless one is open.
func (r *round) begin(holds int64) {
	if !r.open {
		*r = round{open: true, holds: holds}
	}
}

// told notes that the next ones were told, and whether there are more.
func (r *round) told(ids []assignment.ProducerID) (more bool) {
	if r.open = len(ids) == wire.MaxListed; r.open {
		r.after = ids[len(ids)-1]
	}
	return r.open
}

func newAcknowledger(s *session, client registryv1.AssignmentServiceClient) *acknowledger {
	return &acknowledger{session: s, client: client, due: make(chan struct{}, 1)}
}

// notify says that there is something to tell.
func (a *acknowledger) notify() {
	select {
	case a.due <- struct{}{}:
	default:
	}
}

// end takes the end frame of a snapshot that was sealed.
func (a *acknowledger) end(f *assignment.End) {
	a.sealed = f.Revision
	a.notify()
}

// beat takes an equal heartbeat. It shows what the registry was told last: when
// that is not the last seal, it is told again. What a heartbeat alone advances
// is not worth telling.
func (a *acknowledger) beat(h *assignment.Heartbeat) {
	if h.AcknowledgedRevision < a.sealed {
		a.notify()
	}
}

// run sends until ctx ends.
func (a *acknowledger) run(ctx context.Context) {
	held, collected := time.NewTicker(heldInterval), time.NewTicker(collectedInterval)
	defer held.Stop()
	defer collected.Stop()
	var fresh <-chan struct{} // nil before the first seal of this stream
	for {
		select {
		case <-a.due:
			fresh = a.session.collected
		case <-fresh:
		case <-held.C:
			st := a.session.Holder.Status()
			if st.HeldCount == 0 {
				continue
			}
			a.round.begin(st.Holds)
		case <-collected.C:
			a.targets.again()
			if some, _ := a.session.Runner.Collected(a.targets.told, 1); fresh == nil || len(some) == 0 {
				continue
			}
		case <-ctx.Done():
			return
		}
		wait := ackInterval
		if err := a.send(ctx); err != nil {
			a.session.Logger.DebugContext(ctx, "could not acknowledge", "error", err)
			a.notify()
			wait = ackRetry
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// flush sends once more, for a refusal that ends the stream.
func (a *acknowledger) flush(ctx context.Context) {
	if err := a.send(ctx); err != nil {
		a.session.Logger.DebugContext(ctx, "could not acknowledge a refusal", "error", err)
	}
}

func (a *acknowledger) send(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s := a.session
	st := s.Holder.Status()
	ack := &wire.Acknowledgement{
		Collector:      s.identity.collector,
		Instance:       s.identity.instance,
		Generation:     s.identity.generation,
		SubscriptionID: st.Subscription.ID,
		SnapshotID:     st.SnapshotID,
		Epoch:          st.Epoch,
		Revision:       st.Revision,
		Count:          int64(st.AcceptedCount),
		Digest:         st.Digest,
		Refusal:        st.LastRefusal,
		Persisted:      st.Persisted,
		HeldCount:      int64(st.HeldCount),
	}
	if st.Holds != a.round.holds {
		a.round.begin(st.Holds)
	}
	if a.round.open {
		ack.Held = s.Holder.HeldIDs(a.round.after, wire.MaxListed)
	}
	targets := targets{told: a.targets.told}
	if st.Persisted { // else it completes nothing
		var ids []assignment.ProducerID
		ids, targets.told = s.Runner.Collected(targets.told, wire.MaxListed)
		targets.open = len(ids) == wire.MaxListed
		ack.Collected = s.Holder.Accepted(ids)
	}
	count, some := s.Runner.Unrunnable()
	ack.UnrunnableCount = int64(count)
	for _, u := range some[:min(len(some), wire.MaxListed)] {
		ack.Unrunnable = append(ack.Unrunnable, wire.Unrunnable(u))
	}
	resp, err := a.client.Acknowledge(ctx, wire.EncodeAcknowledge(ack))
	if err != nil {
		return err
	}
	s.Metrics.Acknowledged.Inc()
	s.Holder.Explained(ctx, wire.DecodeExplained(resp))
	a.targets = targets
	if a.round.told(ack.Held) || st.Holds != a.round.holds || targets.open {
		a.notify() // there is more to ask about
	}
	return nil
}
