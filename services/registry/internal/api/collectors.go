package api

import (
	"context"
	"fmt"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
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
	}, c.Instance)
	if err != nil {
		return nil, err
	}
	return &registryv1.RegisterCollectorResponse{
		Collector: encodeCollector(status),
		Epoch:     string(at.Epoch),
		Revision:  int64(at.Revision),
	}, nil
}

// GetCollector answers one collector.
func (s collectorService) GetCollector(ctx context.Context, m *registryv1.GetCollectorRequest) (*registryv1.GetCollectorResponse, error) {
	id, err := assignment.ParseCollectorID(m.GetCollectorId())
	if err != nil {
		return nil, violation("collector_id", err.Error())
	}
	if err := checkMinRevision(m.GetMinRevision()); err != nil {
		return nil, err
	}
	status, at, err := s.Registrar.Collector(ctx, id, assignment.Revision(m.GetMinRevision()))
	if err != nil {
		return nil, err
	}
	return &registryv1.GetCollectorResponse{
		Collector: encodeCollector(status),
		Epoch:     string(at.Epoch),
		Revision:  int64(at.Revision),
	}, nil
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
	resp := &registryv1.ListCollectorsResponse{Epoch: string(at.Epoch), Revision: int64(at.Revision)}
	for _, status := range all {
		if string(status.Collector.ID) <= p.after {
			continue
		}
		c := encodeCollector(status)
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

func encodeCollector(s *registrar.CollectorStatus) *registryv1.Collector {
	stands := s.Collector.Newest()
	c := &registryv1.Collector{
		CollectorId:           string(s.Collector.ID),
		InstanceId:            string(stands.ID),
		Generation:            int64(stands.Generation),
		IntrospectionEndpoint: s.Collector.IntrospectionEndpoint,
		Labels:                wire.EncodeLabels(s.Collector.Labels),
		SoftwareVersion:       s.Collector.SoftwareVersion,
		State:                 registryv1.CollectorState_COLLECTOR_STATE_AWAY,
		AssignedCount:         int64(s.Assigned),
	}
	if s.Live() {
		c.State = registryv1.CollectorState_COLLECTOR_STATE_LIVE
	}
	if s.Session != nil {
		c.ConnectTime = timestamp(s.Session.ConnectTime)
	}
	if a := s.LastAck; a != nil {
		c.HeldCount, c.UnrunnableCount = a.Held, a.Unrunnable
		c.AcknowledgedEpoch, c.AcknowledgedRevision = string(a.Epoch), int64(a.Revision)
		c.LastRefusal = wire.EncodeRefusal(a.Refusal)
		c.LastSeenTime = timestamp(a.ReceiveTime)
	}
	return c
}
