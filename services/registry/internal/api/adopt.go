package api

import (
	"context"
	"fmt"
	"strings"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"google.golang.org/protobuf/proto"
)

// AdoptProducers puts producers on the roll that a collector has kept. One that
// is at fault does not keep the others from it.
func (s placementService) AdoptProducers(ctx context.Context, m *registryv1.AdoptProducersRequest) (*registryv1.AdoptProducersResponse, error) {
	collector, err := parseCollectorID(m.GetCollectorId())
	if err != nil {
		return nil, err
	}
	if n := len(m.GetAssignments()); n > maxBatch {
		return nil, violation("assignments", fmt.Sprintf("%d assignments, at most %d are allowed", n, maxBatch))
	}
	if n := proto.Size(m); n > maxBatchBytes {
		return nil, violation("assignments", fmt.Sprintf("%d bytes, at most %d are allowed: send fewer at a time", n, maxBatchBytes))
	}
	resp := &registryv1.AdoptProducersResponse{Results: make([]*registryv1.AdoptResult, len(m.GetAssignments()))}
	var all []roster.Adoption
	var at []int
	seen := make(map[assignment.ProducerID]int, len(m.GetAssignments()))
	for i, one := range m.GetAssignments() {
		resp.Results[i] = &registryv1.AdoptResult{ProducerId: clip(one.GetProducerId())}
		a, err := s.decodeAdoption(one, collector)
		first, twice := seen[a.ID]
		if err == nil && twice {
			err = fmt.Errorf("the same producer as in assignments[%d]", first)
		}
		if err != nil {
			adopted(resp.Results[i], registrar.Adopted{Outcome: registrar.AdoptRefused, Message: err.Error()})
			continue
		}
		seen[a.ID] = i
		all, at = append(all, a), append(at, i)
	}
	results, err := s.Registrar.AdoptProducers(ctx, collector, all, m.GetValidateOnly())
	if err != nil {
		return nil, err
	}
	for n, result := range results {
		adopted(resp.Results[at[n]], result)
	}
	return resp, nil
}

// maxResultText bounds what one result says: a thousand of them must fit into an
// answer.
const maxResultText = 512

func adopted(m *registryv1.AdoptResult, r registrar.Adopted) {
	m.Outcome, m.Message = registryv1.AdoptOutcome(r.Outcome), clip(r.Message)
}

func clip(s string) string {
	if len(s) <= maxResultText {
		return s
	}
	return strings.ToValidUTF8(s[:maxResultText], "") + "..."
}

// decodeAdoption checks one producer by the rules of a registration.
func (s placementService) decodeAdoption(m *registryv1.Assignment, collector assignment.CollectorID) (roster.Adoption, error) {
	reg, err := wire.DecodeKept(m, "assignment")
	if err != nil {
		return roster.Adoption{}, err
	}
	if err := s.Endpoints.CheckURL(reg.URL); err != nil {
		return roster.Adoption{}, fmt.Errorf("assignment.endpoint: %w", err)
	}
	return roster.Adoption{
		ID:        reg.Assignment.ProducerID,
		Stored:    wire.EncodeStored(reg.Assignment),
		Collector: collector,
		Life:      lifeOf(reg),
	}, nil
}
