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
)

// acknowledger sends acknowledgements, the newest only.
type acknowledger struct {
	session *session
	client  registryv1.AssignmentServiceClient
	due     chan struct{} // holds one token when there is something to tell

	// sealed is the revision of the last seal; it belongs to the reader.
	sealed assignment.Revision
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
	held := time.NewTicker(heldInterval)
	defer held.Stop()
	for {
		select {
		case <-a.due:
		case <-held.C:
			if a.session.Holder.Status().HeldCount == 0 {
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
		Held:           s.Holder.HeldIDs(wire.MaxListed),
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
	explained := wire.DecodeExplained(resp)
	s.Holder.Explained(ctx, explained)
	if len(explained) > 0 && st.HeldCount > len(ack.Held) {
		a.notify() // there are more than one acknowledgement can ask about
	}
	return nil
}
