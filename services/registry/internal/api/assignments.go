package api

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/feed"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"google.golang.org/grpc"
)

var errSlowReader = errors.New("the subscriber does not read; the stream is ended")

// sendTimeout bounds one blocked send.
const sendTimeout = 30 * time.Second

// Subscribe streams a collector's assignments.
func (s assignmentService) Subscribe(m *registryv1.SubscribeRequest, stream grpc.ServerStreamingServer[registryv1.SubscribeResponse]) error {
	ctx := stream.Context()
	req, err := wire.DecodeSubscribe(m)
	if err != nil {
		return err
	}
	leave, err := s.doors.enter(req.Collector, req.Observe)
	if err != nil {
		return err
	}
	defer leave()
	visit := s.gate.visit()
	defer visit.leave()
	sub, err := s.Registrar.Subscribe(ctx, registrar.Subscribe{
		Collector:   req.Collector,
		Instance:    req.Instance,
		Generation:  req.Generation,
		MinRevision: req.MinRevision,
		Accepted:    req.Accepted,
		Observe:     req.Observe,
		Admit:       visit.enter,
	})
	if err != nil {
		return err
	}
	defer sub.Close(ctx)
	s.Metrics.Subscriptions.Inc()
	defer s.Metrics.Subscriptions.Dec()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := &writer{
		assignmentService: s, stream: stream, sub: sub, visit: visit, collector: req.Collector, stalled: make(chan struct{}, 1),
	}
	done := make(chan ending, 1)
	go func() { done <- w.end(ctx) }()
	select {
	case e := <-done:
		if e.panicked != "" {
			panic(e.panicked) // here it is recovered from; there it would end the process
		}
		return e.err
	case <-w.stalled:
		// Returning ends the stream, and with it the blocked send.
		s.Metrics.SlowReaders.Inc()
		return errSlowReader
	case <-visit.evicted:
		s.Metrics.SlowReaders.Inc()
		return s.gate.evictedError()
	}
}

// writer sends one stream.
type writer struct {
	assignmentService
	stream    grpc.ServerStream
	sub       *registrar.Stream
	visit     *visit
	collector assignment.CollectorID
	stalled   chan struct{} // gets a token when a send has blocked for too long
	snapshots uint64
}

// An ending is how a writer ended: with an error, or with a panic and its stack.
type ending struct {
	err      error
	panicked string
}

// end runs the writer to its end.
func (w *writer) end(ctx context.Context) (e ending) {
	defer func() {
		if p := recover(); p != nil {
			e.panicked = fmt.Sprintf("%v, at %s", p, debug.Stack())
		}
	}()
	return ending{err: w.run(ctx)}
}

func (w *writer) run(ctx context.Context) error {
	for {
		d, err := w.sub.Next(ctx)
		if err != nil {
			return err
		}
		switch d := d.(type) {
		case *feed.Snapshot:
			err = w.snapshot(d)
			w.visit.leave()
		case *feed.Beat:
			err = w.send(wire.EncodeFrame(&assignment.Heartbeat{
				Epoch:                d.Epoch,
				Revision:             d.Revision,
				SetCount:             int64(d.SetCount),
				SetDigest:            d.SetDigest,
				AcknowledgedRevision: w.Registrar.AcknowledgedRevision(w.collector),
				ServerTime:           time.Now(),
			}))
		case *feed.GoAway:
			err = w.send(wire.EncodeFrame(&d.GoAway))
		}
		if err != nil {
			return err
		}
	}
}

// send sends one message, and raises the alarm when that takes too long.
func (w *writer) send(m any) error {
	alarm := time.AfterFunc(sendTimeout, func() {
		select {
		case w.stalled <- struct{}{}:
		default:
		}
	})
	defer alarm.Stop()
	return w.stream.SendMsg(m)
}

// snapshot sends begin, chunks and end. An error in between leaves the snapshot
// without its seal.
func (w *writer) snapshot(d *feed.Snapshot) error {
	w.snapshots++
	begin := &assignment.Begin{
		SnapshotID:         w.snapshots,
		SubscriptionID:     w.sub.ID(),
		Epoch:              d.Epoch,
		Revision:           d.Revision,
		BaseRevision:       d.Base,
		Scope:              d.Scope,
		BucketBits:         d.BucketBits,
		ReplacedBuckets:    d.Replaced,
		Reason:             int32(registryv1.SnapshotReason_SNAPSHOT_REASON_SUBSCRIBED),
		ExpectedUpserts:    int64(len(d.Items)),
		HeartbeatInterval:  w.Heartbeat,
		AssignmentFormat:   assignment.AssignmentFormat,
		RegistryInstanceID: w.Instance,
	}
	if d.Scope == assignment.ScopeChanges {
		begin.Reason = int32(registryv1.SnapshotReason_SNAPSHOT_REASON_CHANGED)
	}
	if err := w.send(wire.EncodeFrame(begin)); err != nil {
		return err
	}
	chunks, err := w.chunks(d)
	if err != nil {
		return err
	}
	err = w.send(wire.EncodeFrame(&assignment.End{
		SnapshotID: begin.SnapshotID,
		Epoch:      d.Epoch,
		Revision:   d.Revision,
		Chunks:     chunks,
		Upserts:    int64(len(d.Items)),
		Removals:   int64(len(d.Removals)),
		SetCount:   int64(d.SetCount),
		SetDigest:  d.SetDigest,
	}))
	if err != nil {
		return err
	}
	scope := scopeName(d.Scope)
	w.Metrics.Snapshots.WithLabelValues(scope).Inc()
	w.Metrics.Assignments.WithLabelValues(scope).Add(float64(len(d.Items)))
	w.Metrics.Removals.Add(float64(len(d.Removals)))
	return nil
}

// chunks sends the items and removals and returns the number of chunks.
func (w *writer) chunks(d *feed.Snapshot) (uint64, error) {
	var chunk wire.ChunkWriter
	var sent uint64
	flush := func() error {
		frame := chunk.Finish(w.snapshots, sent)
		sent++
		w.Metrics.ChunkBytes.Add(float64(len(frame)))
		return w.send(frame)
	}
	for _, item := range d.Items {
		if !chunk.Fits(len(item.Stored)) {
			if err := flush(); err != nil {
				return 0, err
			}
		}
		chunk.Add(item.Stored, item.Version, item.Role)
	}
	for _, removal := range d.Removals {
		if !chunk.FitsRemoval(removal.ProducerID) {
			if err := flush(); err != nil {
				return 0, err
			}
		}
		chunk.Remove(removal)
	}
	if chunk.Len() > 0 {
		if err := flush(); err != nil {
			return 0, err
		}
	}
	return sent, nil
}

func scopeName(s assignment.Scope) string {
	switch s {
	case assignment.ScopeAll:
		return "all"
	case assignment.ScopeBuckets:
		return "buckets"
	default:
		return "changes"
	}
}

// Acknowledge takes what a collector did with a snapshot.
func (s assignmentService) Acknowledge(ctx context.Context, m *registryv1.AcknowledgeRequest) (*registryv1.AcknowledgeResponse, error) {
	a, err := wire.DecodeAcknowledge(m)
	if err != nil {
		return nil, err
	}
	explained, err := s.Registrar.Acknowledge(ctx, registrar.Acknowledge{
		Generation: a.Generation,
		Snapshot:   a.SubscriptionID + "/" + strconv.FormatUint(a.SnapshotID, 10),
		HeldIDs:    a.Held,

		CollectedIDs: a.Collected,

		Ack: roster.Ack{
			Collector:  a.Collector,
			Instance:   a.Instance,
			Epoch:      a.Epoch,
			Revision:   a.Revision,
			Held:       a.HeldCount,
			Unrunnable: a.UnrunnableCount,
			Persisted:  a.Persisted,
			Refusal:    a.Refusal,
		},
	})
	if err != nil {
		return nil, err
	}
	return &registryv1.AcknowledgeResponse{Explained: wire.EncodeRemovals(explained)}, nil
}
