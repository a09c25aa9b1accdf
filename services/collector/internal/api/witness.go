package api

import (
	"context"
	"strconv"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
)

const (
	// maxAsked is how many producers one question may name.
	maxAsked = 1000

	defaultTestimonies = 1000
	maxTestimonies     = 10_000
)

// Witness answers a page of testimonies. Failures of this collector's own, for
// want of room or of a store, are in none of them: they say nothing of the
// producer.
func (a *API) Witness(_ context.Context, m *collectorv1.WitnessRequest) (*collectorv1.WitnessResponse, error) {
	size, after, err := pageOf(m, defaultTestimonies, maxTestimonies)
	if err != nil {
		return nil, err
	}
	if bad := checkListed(m.GetProducerIds(), maxAsked); len(bad) > 0 {
		return nil, violations(bad)
	}
	q := schedule.Question{After: after, Limit: size + 1, Failing: m.GetFailing()}
	for _, id := range m.GetProducerIds() {
		q.Of = append(q.Of, assignment.ProducerID(id))
	}
	list := a.Testify(q)
	resp := &collectorv1.WitnessResponse{CollectorId: string(a.Collector), InstanceId: string(a.Instance)}
	bytes := 0
	for i := range list {
		if i == size || bytes >= maxPageBytes {
			resp.NextPageToken = pageToken(list[i-1].ProducerID)
			break
		}
		t := encodeTestimony(&list[i])
		bytes += proto.Size(t)
		resp.Testimonies = append(resp.Testimonies, t)
	}
	return resp, nil
}

func encodeTestimony(t *schedule.Testimony) *collectorv1.Testimony {
	return &collectorv1.Testimony{
		ProducerId:       string(t.ProducerID),
		FailingSince:     timestamp(t.FailingSince),
		FailureCount:     int64(t.Failures),
		FailureReason:    collectorv1.FailureReason(t.Reason),
		SamplesPerSecond: t.Rate,
		Collected:        t.Collected,
		Identified:       t.Identified,
	}
}

// checkListed returns the fields at fault in a list of producers.
func checkListed(ids []string, most int) []*errdetails.BadRequest_FieldViolation {
	if len(ids) > most {
		return []*errdetails.BadRequest_FieldViolation{
			violation("producer_ids", strconv.Itoa(len(ids))+" producers, at most "+strconv.Itoa(most)+" are allowed"),
		}
	}
	var bad []*errdetails.BadRequest_FieldViolation
	for i, id := range ids {
		if err := parse(id); err != nil && len(bad) < maxViolations {
			bad = append(bad, violation("producer_ids["+strconv.Itoa(i)+"]", err.Error()))
		}
	}
	return bad
}
