package api

import (
	"context"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/guard"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	// maxReleased is how many producers one request may name.
	maxReleased = 1000

	// maxViolations bounds what one request can make the collector say.
	maxViolations = 20
)

// ListHeld answers a page of the held producers.
func (a *API) ListHeld(_ context.Context, m *collectorv1.ListHeldRequest) (*collectorv1.ListHeldResponse, error) {
	size, after, err := page(m)
	if err != nil {
		return nil, err
	}
	held := a.Members.Held(after, size+1)
	resp := &collectorv1.ListHeldResponse{}
	if len(held) > size {
		held = held[:size]
		resp.NextPageToken = pageToken(held[size-1].Assignment.ProducerID)
	}
	for i := range held {
		resp.Held = append(resp.Held, a.encodeHeld(&held[i]))
	}
	return resp, nil
}

func (a *API) encodeHeld(h *guard.Held) *collectorv1.HeldProducer {
	m := &collectorv1.HeldProducer{
		Assignment:        wire.EncodeAssignment(h.Assignment),
		HoldTime:          timestamp(h.Since),
		ConfirmedDuration: durationpb.New(h.Confirmed),
		Epoch:             string(h.Epoch),
		Cause:             wire.EncodeCause(h.Cause),
	}
	if s, ok := a.Collections.Find(h.Assignment.ProducerID); ok {
		m.Answers = !s.Last.Start.IsZero() && s.Last.Reason == schedule.ReasonNone
		m.FailingSince = timestamp(s.FailingSince)
	}
	return m
}

// ReleaseHeld lets go of held producers.
func (a *API) ReleaseHeld(ctx context.Context, m *collectorv1.ReleaseHeldRequest) (*collectorv1.ReleaseHeldResponse, error) {
	if bad := checkRelease(m); len(bad) > 0 {
		return nil, violations(bad)
	}
	if m.GetAll() {
		r := a.Members.ReleaseAll(ctx)
		return &collectorv1.ReleaseHeldResponse{ReleasedCount: int64(r.Count), Persisted: r.Persisted}, nil
	}
	ids := make([]assignment.ProducerID, len(m.GetProducerIds()))
	for i, id := range m.GetProducerIds() {
		ids[i] = assignment.ProducerID(id)
	}
	r := a.Members.Release(ctx, ids)
	resp := &collectorv1.ReleaseHeldResponse{ReleasedCount: int64(r.Count), Persisted: r.Persisted}
	for _, id := range r.NotHeld {
		resp.NotHeldProducerIds = append(resp.NotHeldProducerIds, string(id))
	}
	return resp, nil
}

// checkRelease returns the fields at fault.
func checkRelease(m *collectorv1.ReleaseHeldRequest) []*errdetails.BadRequest_FieldViolation {
	ids := m.GetProducerIds()
	switch {
	case len(ids) == 0 && !m.GetAll():
		return []*errdetails.BadRequest_FieldViolation{violation("producer_ids", "is empty, and all is not set")}
	case len(ids) > 0 && m.GetAll():
		return []*errdetails.BadRequest_FieldViolation{violation("all", "is set, and producer_ids is not empty")}
	default:
		return checkListed(ids, maxReleased)
	}
}
