package api

import (
	"context"
	"fmt"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/placement"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// The bounds of what an operator asks for.
const (
	maxPlanMoves     = 1000 // told of a plan
	defaultRebalance = 1000
	maxRebalance     = 10_000

	minConfirm     = time.Minute
	defaultConfirm = time.Hour
	maxConfirm     = 24 * time.Hour
)

// PreviewRebalance tells what would even out the load.
func (s placementService) PreviewRebalance(context.Context, *registryv1.PreviewRebalanceRequest) (*registryv1.PreviewRebalanceResponse, error) {
	plan, err := s.Registrar.PreviewRebalance()
	if err != nil {
		return nil, err
	}
	return &registryv1.PreviewRebalanceResponse{Plan: s.encodePlan(plan, forBalance)}, nil
}

// Rebalance begins such moves.
func (s placementService) Rebalance(ctx context.Context, m *registryv1.RebalanceRequest) (*registryv1.RebalanceResponse, error) {
	most := int(m.GetMaxMoveCount())
	if most < 0 || most > maxRebalance {
		return nil, violation("max_move_count", fmt.Sprintf("%d, want 1 to %d", most, maxRebalance))
	}
	if most == 0 {
		most = defaultRebalance
	}
	plan, begun, err := s.Registrar.Rebalance(ctx, most)
	if err != nil {
		return nil, err
	}
	return &registryv1.RebalanceResponse{Plan: s.encodePlan(plan, forBalance), BegunCount: int64(begun)}, nil
}

func forBalance(m placement.Move) bool { return m.Reason == placement.Rebalance }

// encodePlan makes the message of a plan with those of its moves that the call is
// about. The loads are those after all of its moves.
func (a *API) encodePlan(plan *registrar.Plan, about func(placement.Move) bool) *registryv1.PlacementPlan {
	m := &registryv1.PlacementPlan{
		StuckCount:        int64(plan.Stuck),
		MaxOverMeanBefore: plan.Before.Ratio(),
		MaxOverMeanAfter:  plan.After.Ratio(),
	}
	for _, move := range plan.Moves {
		if !about(move) {
			continue
		}
		if m.MoveCount++; m.MoveCount > maxPlanMoves {
			continue
		}
		m.Moves = append(m.Moves, &registryv1.Move{
			ProducerId:       string(move.Producer),
			FromCollectorId:  string(move.From),
			ToCollectorId:    string(move.To),
			SamplesPerSecond: a.Registrar.Weight(plan.Entries[move.Producer]),
		})
	}
	for _, l := range plan.Collectors {
		m.Loads = append(m.Loads, &registryv1.CollectorLoad{
			CollectorId:              string(l.Collector),
			CapacitySamplesPerSecond: l.Capacity,
			SamplesPerSecondBefore:   registrar.RateOf(l.LoadBefore, l.ProducersBefore),
			SamplesPerSecondAfter:    registrar.RateOf(l.LoadAfter, l.ProducersAfter),
			ProducerCountBefore:      int64(l.ProducersBefore),
			ProducerCountAfter:       int64(l.ProducersAfter),
		})
	}
	return m
}

// MoveProducer hands a producer to a collector.
func (s placementService) MoveProducer(ctx context.Context, m *registryv1.MoveProducerRequest) (*registryv1.MoveProducerResponse, error) {
	id, err := parseProducerID(m.GetProducerId())
	if err != nil {
		return nil, err
	}
	to, err := parseCollectorID(m.GetCollectorId())
	if err != nil {
		return nil, err
	}
	at, changed, err := s.Registrar.MoveProducer(ctx, id, to)
	if err != nil {
		return nil, err
	}
	return &registryv1.MoveProducerResponse{Epoch: string(at.Epoch), Revision: int64(at.Revision), Changed: changed}, nil
}

// ConfirmExpiry sets how producers that are due are struck off, for a time.
func (s placementService) ConfirmExpiry(ctx context.Context, m *registryv1.ConfirmExpiryRequest) (*registryv1.ConfirmExpiryResponse, error) {
	mode, span, err := decodeConfirm(m)
	if err != nil {
		return nil, err
	}
	until, err := s.Registrar.ConfirmExpiry(ctx, mode, span)
	if err != nil {
		return nil, err
	}
	resp := &registryv1.ConfirmExpiryResponse{Mode: registryv1.ExpiryMode(mode)}
	if mode != roster.ExpiryAuto {
		resp.Until = timestamp(until)
	}
	return resp, nil
}

func decodeConfirm(m *registryv1.ConfirmExpiryRequest) (roster.ExpiryMode, time.Duration, error) {
	mode := roster.ExpiryAuto
	switch m.GetMode() {
	case registryv1.ExpiryMode_EXPIRY_MODE_UNSPECIFIED, registryv1.ExpiryMode_EXPIRY_MODE_AUTO:
		if m.GetDuration() != nil {
			return 0, 0, violation("duration", "is not for AUTO, which stands until it is changed")
		}
		return mode, 0, nil
	case registryv1.ExpiryMode_EXPIRY_MODE_HOLD:
		mode = roster.ExpiryHold
	case registryv1.ExpiryMode_EXPIRY_MODE_HASTEN:
		mode = roster.ExpiryHasten
	default:
		return 0, 0, violation("mode", fmt.Sprintf("%d is not known", m.GetMode()))
	}
	if m.GetDuration() == nil {
		return mode, defaultConfirm, nil
	}
	if m.GetDuration().CheckValid() != nil {
		return 0, 0, violation("duration", "is not a duration")
	}
	span := m.GetDuration().AsDuration()
	if span < minConfirm || span > maxConfirm {
		return 0, 0, violation("duration", fmt.Sprintf("%v, want %v to %v", span, minConfirm, maxConfirm))
	}
	return mode, span, nil
}
