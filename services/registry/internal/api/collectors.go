package api

import (
	"context"
	"fmt"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/placement"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// RegisterCollector makes a collector known and gives it its generation.
func (s collectorService) RegisterCollector(ctx context.Context, m *registryv1.RegisterCollectorRequest) (*registryv1.RegisterCollectorResponse, error) {
	c, err := wire.DecodeCollector(m.GetCollector())
	if err != nil {
		return nil, err
	}
	status, at, err := s.Registrar.RegisterCollector(ctx, roster.Collector{
		ID:                    c.ID,
		IntrospectionEndpoint: c.IntrospectionEndpoint,
		Labels:                c.Labels,
		SoftwareVersion:       c.SoftwareVersion,
		Capacity:              c.Capacity,
		Zone:                  c.Zone,
	}, c.Instance)
	if err != nil {
		return nil, err
	}
	return &registryv1.RegisterCollectorResponse{
		Collector: s.encode(status),
		Epoch:     string(at.Epoch),
		Revision:  int64(at.Revision),
	}, nil
}

// GetCollector answers one collector.
func (s collectorService) GetCollector(ctx context.Context, m *registryv1.GetCollectorRequest) (*registryv1.GetCollectorResponse, error) {
	id, err := parseCollectorID(m.GetCollectorId())
	if err != nil {
		return nil, err
	}
	if err := checkMinRevision(m.GetMinRevision()); err != nil {
		return nil, err
	}
	status, at, err := s.Registrar.Collector(ctx, id, assignment.Revision(m.GetMinRevision()))
	if err != nil {
		return nil, err
	}
	return &registryv1.GetCollectorResponse{
		Collector: s.encode(status),
		Epoch:     string(at.Epoch),
		Revision:  int64(at.Revision),
		Stale:     s.stale(),
	}, nil
}

func parseCollectorID(s string) (assignment.CollectorID, error) {
	id, err := assignment.ParseCollectorID(s)
	if err != nil {
		return "", violation("collector_id", err.Error())
	}
	return id, nil
}

// ListCollectors answers a page of collectors.
func (s collectorService) ListCollectors(ctx context.Context, m *registryv1.ListCollectorsRequest) (*registryv1.ListCollectorsResponse, error) {
	p, err := decodePage(m.GetPageSize(), m.GetPageToken(), func(s string) error {
		_, err := assignment.ParseCollectorID(s)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := checkMinRevision(m.GetMinRevision()); err != nil {
		return nil, err
	}
	if _, known := registryv1.CollectorState_name[int32(m.GetState())]; !known {
		return nil, violation("state", fmt.Sprintf("%d is not known", m.GetState()))
	}
	all, at, err := s.Registrar.Collectors(ctx, assignment.Revision(m.GetMinRevision()))
	if err != nil {
		return nil, err
	}
	resp := &registryv1.ListCollectorsResponse{Epoch: string(at.Epoch), Revision: int64(at.Revision), Stale: s.stale()}
	for _, status := range all {
		if string(status.Collector.ID) <= p.after {
			continue
		}
		c := s.encode(status)
		if m.GetState() != 0 && m.GetState() != c.GetState() {
			continue
		}
		if len(resp.Collectors) == p.size {
			resp.NextPageToken = pageToken(resp.GetCollectors()[p.size-1].GetCollectorId())
			break
		}
		resp.Collectors = append(resp.Collectors, c)
	}
	return resp, nil
}

// DrainCollector hands off everything that a collector has, or tells what that
// would mean.
func (s collectorService) DrainCollector(ctx context.Context, m *registryv1.DrainCollectorRequest) (*registryv1.DrainCollectorResponse, error) {
	id, err := parseCollectorID(m.GetCollectorId())
	if err != nil {
		return nil, err
	}
	d := roster.Drain{UntilRestart: m.GetUntilRestart()}
	if instance := m.GetInstanceId(); instance != "" {
		if d.Instance, err = assignment.ParseInstanceID(instance); err != nil {
			return nil, violation("instance_id", err.Error())
		}
	}
	status, plan, at, err := s.Registrar.DrainCollector(ctx, id, d, m.GetValidateOnly())
	if err != nil {
		return nil, err
	}
	off := func(move placement.Move) bool { return move.From == id }
	return &registryv1.DrainCollectorResponse{
		Collector: s.encode(status),
		Plan:      s.encodePlan(plan, off),
		Epoch:     string(at.Epoch),
		Revision:  int64(status.CollectorRevision),
	}, nil
}

// UndrainCollector lets a collector be given producers again.
func (s collectorService) UndrainCollector(ctx context.Context, m *registryv1.UndrainCollectorRequest) (*registryv1.UndrainCollectorResponse, error) {
	id, err := parseCollectorID(m.GetCollectorId())
	if err != nil {
		return nil, err
	}
	status, at, err := s.Registrar.UndrainCollector(ctx, id)
	if err != nil {
		return nil, err
	}
	return &registryv1.UndrainCollectorResponse{
		Collector: s.encode(status), Epoch: string(at.Epoch), Revision: int64(status.CollectorRevision),
	}, nil
}

// ExpungeCollector ends a collector.
func (s collectorService) ExpungeCollector(ctx context.Context, m *registryv1.ExpungeCollectorRequest) (*registryv1.ExpungeCollectorResponse, error) {
	id, err := parseCollectorID(m.GetCollectorId())
	if err != nil {
		return nil, err
	}
	status, at, err := s.Registrar.ExpungeCollector(ctx, id, m.GetForce())
	if err != nil {
		return nil, err
	}
	return &registryv1.ExpungeCollectorResponse{
		Collector: s.encode(status), Epoch: string(at.Epoch), Revision: int64(status.CollectorRevision),
	}, nil
}

// encode makes the message of a collector.
func (s collectorService) encode(status *registrar.CollectorStatus) *registryv1.Collector {
	record := status.Collector
	stands := record.Newest()
	c := &registryv1.Collector{
		CollectorId:              string(record.ID),
		InstanceId:               string(stands.ID),
		Generation:               int64(stands.Generation),
		IntrospectionEndpoint:    record.IntrospectionEndpoint,
		CapacitySamplesPerSecond: record.Capacity,
		Zone:                     record.Zone,
		Labels:                   wire.EncodeLabels(record.Labels),
		SoftwareVersion:          record.SoftwareVersion,
		State:                    stateOf(&status.CollectorEntry),
		AssignedCount:            int64(status.Assigned),
		LeavingCount:             int64(status.Leaving),
		SamplesPerSecond:         s.Registrar.Rate(status),
		DrainUntilRestart:        record.DrainsUntilRestart() && !record.Expunged(),
	}
	switch {
	case record.Expunged():
		c.DrainTime = timestamp(record.ExpungeTime)
	case record.Drains():
		c.DrainTime = timestamp(record.DrainTime)
	}
	if status.Session != nil {
		c.ConnectTime = timestamp(status.Session.ConnectTime)
	}
	if a := status.LastAck; a != nil {
		c.HeldCount, c.UnrunnableCount = a.Held, a.Unrunnable
		c.AcknowledgedEpoch, c.AcknowledgedRevision = string(a.Epoch), int64(a.Revision)
		c.LastRefusal = wire.EncodeRefusal(a.Refusal)
		c.LastSeenTime = timestamp(a.ReceiveTime)
	}
	return c
}

// stateOf tells what an operator has done with a collector, and of the others
// whether they are there.
func stateOf(c *roster.CollectorEntry) registryv1.CollectorState {
	switch {
	case c.Collector.Expunged():
		return registryv1.CollectorState_COLLECTOR_STATE_EXPUNGED
	case c.Drained():
		return registryv1.CollectorState_COLLECTOR_STATE_DRAINED
	case c.Collector.Leaves():
		return registryv1.CollectorState_COLLECTOR_STATE_DRAINING
	case c.Live():
		return registryv1.CollectorState_COLLECTOR_STATE_LIVE
	default:
		return registryv1.CollectorState_COLLECTOR_STATE_AWAY
	}
}
