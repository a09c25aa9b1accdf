package api

import (
	"fmt"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"google.golang.org/protobuf/types/known/durationpb"
)

// encode makes the message of a producer's record, with what is known of it
// besides.
func (s producerService) encode(r *roster.Producer) (*registryv1.Producer, error) {
	a, err := decodeStored(r)
	if err != nil {
		return nil, err
	}
	p := encodeProducer(r, a)
	s.remark(p, r, a)
	return p, nil
}

// remark adds what is known of a producer besides its record.
func (s producerService) remark(p *registryv1.Producer, r *roster.Producer, a *assignment.Assignment) {
	if suspect, ok := s.Registrar.Suspect(r.ID); ok && !r.Permanent {
		encodeSuspicion(p, r, suspect.Suspect)
	}
	p.Conflict = conflictOf(s.Registrar.Conflict(r.ID, series(a)))
}

func decodeStored(r *roster.Producer) (*assignment.Assignment, error) {
	a, err := wire.DecodeStored(r.Stored)
	if err != nil {
		return nil, fmt.Errorf("the record of producer %q: %w", r.ID, err)
	}
	return a, nil
}

// encodeProducer makes the message of a producer's record.
func encodeProducer(r *roster.Producer, a *assignment.Assignment) *registryv1.Producer {
	p := wire.EncodeProducer(a)
	p.CreateTime, p.UpdateTime = timestamp(r.CreateTime), timestamp(r.UpdateTime)
	p.InstanceId = string(r.Instances.Newest())
	p.Permanent = new(r.Permanent)
	if r.Lease > 0 {
		p.LeaseDuration, p.ExpireAfter = durationpb.New(r.Lease), durationpb.New(r.ExpireAfter)
	}
	p.Zone, p.ExpectedSamplesPerSecond = r.Zone, r.Rate
	p.State = registryv1.ProducerState_PRODUCER_STATE_UNASSIGNED
	if r.Collector != "" {
		p.State = registryv1.ProducerState_PRODUCER_STATE_ASSIGNED
	}
	for collector, role := range r.Parts {
		p.Placements = append(p.Placements, encodePlacement(r, collector, role))
	}
	return p
}

// encodePlacement tells one collector's part. When and why is known of the one
// that the producer was given to last.
func encodePlacement(r *roster.Producer, collector assignment.CollectorID, role assignment.Role) *registryv1.Placement {
	p := &registryv1.Placement{CollectorId: string(collector), Role: registryv1.Role(role)}
	if collector == r.Collector {
		p.AssignTime = timestamp(r.AssignTime)
		p.Reason = registryv1.PlacementReason(r.AssignReason)
		p.PreviousCollectorId = string(r.MovedFrom)
	}
	return p
}

// encodeSuspicion tells of a producer with a lease that it fails, and when it
// will be struck off at the earliest.
func encodeSuspicion(p *registryv1.Producer, r *roster.Producer, s *roster.Suspect) {
	p.SuspectTime, p.RenewTime = timestamp(s.SuspectTime), timestamp(s.RenewTime)
	last := s.SuspectTime
	if s.RenewTime.After(last) {
		last = s.RenewTime
	}
	p.ExpireTime = timestamp(last.Add(r.ExpireAfter))
}

// IntervalOf is the interval of an encoded assignment, for the leader; zero for
// one that cannot be read.
func IntervalOf(stored []byte) time.Duration {
	a, err := wire.DecodeStored(stored)
	if err != nil {
		return 0
	}
	return a.Interval
}

// SameStored tells whether two encoded assignments mean the same, for the
// registrar.
func SameStored(a, b []byte) bool {
	x, errX := wire.DecodeStored(a)
	y, errY := wire.DecodeStored(b)
	return errX == nil && errY == nil && x.SameWork(y)
}

// CheckStored says what is wrong with the encoded assignment of a producer, for
// the registrar.
func CheckStored(id assignment.ProducerID, stored []byte) error {
	if wire.SoundStored(id, stored) {
		return nil
	}
	a, err := wire.DecodeStored(stored)
	if err == nil && a.ProducerID != id {
		err = fmt.Errorf("it is that of %q", a.ProducerID)
	}
	return err
}
