package follow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/membership"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"google.golang.org/grpc"
)

// errRefused says that a snapshot was refused.
var errRefused = errors.New("a snapshot was refused")

// session is one subscription.
type session struct {
	*Follower
	address string

	identity  identity
	heartbeat time.Duration
	sealed    bool      // a snapshot was sealed
	sealedAt  time.Time // when the first one was
	proof     *time.Timer
	awayUntil time.Time // zero until a go_away
}

// identity is who this collector is to the registry.
type identity struct {
	collector  assignment.CollectorID
	instance   assignment.InstanceID
	generation assignment.Generation
}

// run registers, subscribes and reads until the stream ends, and says why it
// did.
func (s *session) run(ctx context.Context) error {
	s.update(func(st *Status) { st.Address = s.address })
	conn, err := s.connect(s.address)
	if err != nil {
		return err
	}
	defer s.closing.Go(func() { _ = conn.Close() }) // nothing was written that could be lost

	if err := s.register(ctx, conn); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	a := newAcknowledger(s, registryv1.NewAssignmentServiceClient(conn))
	sending, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.run(sending)
	}()
	err = s.read(ctx, cancel, conn, a)
	stop()
	<-done // one sends at a time
	if errors.Is(err, errRefused) {
		a.flush(ctx)
	}
	return err
}

// register makes the collector known; it is given the same generation each time.
func (s *session) register(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := registryv1.NewCollectorServiceClient(conn).RegisterCollector(ctx,
		&registryv1.RegisterCollectorRequest{Collector: wire.EncodeCollector(&s.Collector)})
	if err != nil {
		return fmt.Errorf("register at %s: %w", s.address, err)
	}
	if err := s.checkAnswer(resp.GetCollector()); err != nil {
		return err
	}
	s.identity = identity{
		collector:  s.Collector.ID,
		instance:   s.Collector.Instance,
		generation: assignment.Generation(resp.GetCollector().GetGeneration()),
	}
	s.update(func(st *Status) { st.Generation = s.identity.generation })
	s.known.Do(func() { close(s.registered) })
	return nil
}

// checkAnswer refuses the answer to another registration than this one.
func (s *session) checkAnswer(c *registryv1.Collector) error {
	if c.GetCollectorId() != string(s.Collector.ID) || c.GetInstanceId() != string(s.Collector.Instance) || c.GetGeneration() <= 0 {
		return fmt.Errorf("register at %s: answered for generation %d of instance %.128q of collector %.128q",
			s.address, c.GetGeneration(), c.GetInstanceId(), c.GetCollectorId())
	}
	return nil
}

// read reads the stream. Every frame feeds the watchdog.
func (s *session) read(ctx context.Context, cancel context.CancelCauseFunc, conn *grpc.ClientConn, a *acknowledger) error {
	s.heartbeat = membership.BeatOf(0)
	watchdog := time.AfterFunc(silentBeats*s.heartbeat, func() { cancel(errSilent) })
	defer watchdog.Stop()
	s.proof = time.AfterFunc(proveWithin, func() { cancel(errUnproven) })
	defer s.proof.Stop()

	stream, err := registryv1.NewAssignmentServiceClient(conn).Subscribe(ctx,
		wire.EncodeSubscribe(&wire.Subscription{
			Collector:  s.identity.collector,
			Instance:   s.identity.instance,
			Generation: s.identity.generation,
			Accepted:   s.Members.Begin(),
		}),
		grpc.ForceCodecV2(wire.Codec()), grpc.MaxCallRecvMsgSize(maxFrame))
	if err != nil {
		return fmt.Errorf("subscribe at %s: %w", s.address, err)
	}
	for {
		var encoded wire.Encoded
		if err := stream.RecvMsg(&encoded); err != nil {
			return s.ended(ctx, err)
		}
		watchdog.Reset(silentBeats * s.heartbeat)
		if err := s.frame(ctx, cancel, encoded, a); err != nil {
			return err
		}
	}
}

// ended says why a stream ended. A clean end is a failure, too.
func (s *session) ended(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("subscription at %s: ended without a reason: %w", s.address, io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("subscription at %s: %w", s.address, err)
}

// frame takes one frame; an error ends the stream.
func (s *session) frame(ctx context.Context, cancel context.CancelCauseFunc, encoded wire.Encoded, a *acknowledger) error {
	frame, err := wire.UnmarshalFrame(encoded)
	if err != nil {
		s.Members.Malformed(ctx, err)
		return errors.Join(errRefused, err)
	}
	event, err := s.Members.Take(ctx, frame)
	if err != nil {
		return errors.Join(errRefused, err)
	}
	if event == membership.EventDiverged {
		return errDiverged
	}
	if event == membership.EventSealed || event == membership.EventAgreed && s.sealed {
		s.proof.Reset(proveWithin)
	}
	switch f := frame.(type) {
	case *assignment.Begin:
		s.heartbeat = membership.BeatOf(f.HeartbeatInterval)
	case *assignment.End:
		s.seal(ctx)
		a.end(f)
	case *assignment.Heartbeat:
		a.beat(f)
	case *assignment.GoAway:
		s.away(ctx, cancel, f)
	}
	return nil
}

// seal notes that a snapshot was sealed.
func (s *session) seal(ctx context.Context) {
	s.Metrics.Sealed.Inc()
	if !s.sealed {
		s.sealed, s.sealedAt = true, time.Now()
		s.update(func(st *Status) { st.Subscribed, st.LastError = true, "" })
		s.Logger.InfoContext(ctx, "subscribed", "address", s.address, "generation", s.identity.generation)
	}
}

// away draws the time at which this collector goes elsewhere. Until then, or
// until the stream ends, it reads on.
func (s *session) away(ctx context.Context, cancel context.CancelCauseFunc, f *assignment.GoAway) {
	if !s.awayUntil.IsZero() {
		return // the first one stands
	}
	least := min(max(f.RetryAfterMin, 0), maxAway)
	wait := least + rand.N(max(min(f.RetryAfterMax, maxAway)-least, 0)+1)
	s.awayUntil = time.Now().Add(wait)
	s.Logger.InfoContext(ctx, "the registry asks to go elsewhere", "address", s.address, "message", f.Message, "in", wait)
	time.AfterFunc(wait, func() { cancel(errAway) })
}
