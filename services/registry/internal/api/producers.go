package api

import (
	"context"
	"fmt"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// maxBatch is how many registrations one call may hold.
const maxBatch = 1000

// maxBatchBytes is how large such a call may be. The answer repeats every
// producer, with its placement, and a client takes 4 MiB by default.
const maxBatchBytes = 2 << 20

// RegisterProducer adds, updates or renews a producer.
func (s producerService) RegisterProducer(ctx context.Context, m *registryv1.RegisterProducerRequest) (*registryv1.RegisterProducerResponse, error) {
	if err := s.pace.take(ctx, 1); err != nil {
		return nil, err
	}
	cmd, err := s.decodeRegister(m, s.quotaOf(ctx))
	if err != nil {
		return nil, err
	}
	result := s.Registrar.RegisterProducers(ctx, []registrar.RegisterProducer{cmd})[0]
	return s.registered(result)
}

func (s producerService) decodeRegister(m *registryv1.RegisterProducerRequest, quota registrar.Quota) (registrar.RegisterProducer, error) {
	reg, err := wire.DecodeProducer(m.GetProducer(), "producer")
	if err != nil {
		return registrar.RegisterProducer{}, err
	}
	if err := s.Endpoints.CheckURL(reg.URL); err != nil {
		return registrar.RegisterProducer{}, violation("producer.endpoint", err.Error())
	}
	if err := s.checkLabelBytes(reg.Assignment); err != nil {
		return registrar.RegisterProducer{}, err
	}
	return registrar.RegisterProducer{
		ID:           reg.Assignment.ProducerID,
		Stored:       wire.EncodeStored(reg.Assignment),
		Instance:     reg.Instance,
		Hint:         reg.Hint,
		Life:         lifeOf(reg),
		Zone:         reg.Zone,
		Rate:         reg.Rate,
		Quota:        quota,
		ValidateOnly: m.GetValidateOnly(),
	}, nil
}

func lifeOf(reg *wire.Registration) roster.Life {
	return roster.Life{Permanent: reg.Assignment.Permanent, Lease: reg.Lease, ExpireAfter: reg.ExpireAfter}
}

func (s producerService) registered(r registrar.Registered) (*registryv1.RegisterProducerResponse, error) {
	if r.Err != nil {
		s.countQuota(r.Err)
		return nil, r.Err
	}
	p, err := s.encode(r.Producer)
	if err != nil {
		return nil, err
	}
	resp := &registryv1.RegisterProducerResponse{
		Producer:   p,
		Epoch:      string(r.Epoch),
		Revision:   int64(r.Revision),
		RenewAfter: durationpb.New(s.RenewAfter),
		Changed:    r.Changed,
	}
	if lease := r.Producer.Lease; lease > 0 {
		resp.LeaseDuration, resp.RenewAfter = durationpb.New(lease), durationpb.New(lease/renewals)
	}
	return resp, nil
}

// renewals is how often a producer is told to renew within its lease.
const renewals = 3

// BatchRegisterProducers registers many producers, each by itself.
func (s producerService) BatchRegisterProducers(ctx context.Context, m *registryv1.BatchRegisterProducersRequest) (*registryv1.BatchRegisterProducersResponse, error) {
	if n := len(m.GetRequests()); n > maxBatch {
		return nil, violation("requests", fmt.Sprintf("%d requests, at most %d are allowed", n, maxBatch))
	}
	if n := proto.Size(m); n > maxBatchBytes {
		return nil, violation("requests", fmt.Sprintf("%d bytes, at most %d are allowed: send fewer at a time", n, maxBatchBytes))
	}
	if err := s.pace.take(ctx, len(m.GetRequests())); err != nil {
		return nil, err
	}
	if err := checkTwice(m.GetRequests()); err != nil {
		return nil, err
	}
	results := make([]*registryv1.BatchRegisterProducersResult, len(m.GetRequests()))
	quota := s.quotaOf(ctx)
	var cmds []registrar.RegisterProducer
	var at []int
	for i, req := range m.GetRequests() {
		cmd, err := s.decodeRegister(req, quota)
		if err != nil {
			results[i] = batchFailure(err)
			continue
		}
		cmds, at = append(cmds, cmd), append(at, i)
	}
	for n, r := range s.Registrar.RegisterProducers(ctx, cmds) {
		resp, err := s.registered(r)
		if err != nil {
			results[at[n]] = batchFailure(err)
			continue
		}
		results[at[n]] = &registryv1.BatchRegisterProducersResult{Response: resp}
	}
	return &registryv1.BatchRegisterProducersResponse{Results: results}, nil
}

// checkTwice refuses a batch with two registrations of one id, also when one of
// them is at fault. Those without an id are all at fault by themselves.
func checkTwice(requests []*registryv1.RegisterProducerRequest) error {
	seen := make(map[string]int, len(requests))
	for i, req := range requests {
		id := req.GetProducer().GetProducerId()
		if first, twice := seen[id]; twice && id != "" {
			return violation(fmt.Sprintf("requests[%d].producer.producer_id", i), fmt.Sprintf("is the same as in requests[%d]", first))
		}
		seen[id] = i
	}
	return nil
}

func batchFailure(err error) *registryv1.BatchRegisterProducersResult {
	s := statusOf(err)
	r := &registryv1.BatchRegisterProducersResult{Code: int32(s.Code()), Message: s.Message()}
	for _, d := range s.Details() {
		bad, ok := d.(*errdetails.BadRequest)
		if !ok {
			continue
		}
		for _, v := range bad.GetFieldViolations() {
			r.FieldViolations = append(r.FieldViolations,
				&registryv1.FieldViolation{Field: v.GetField(), Description: v.GetDescription()})
		}
	}
	return r
}

// DeregisterProducer takes a producer off the roll.
func (s producerService) DeregisterProducer(ctx context.Context, m *registryv1.DeregisterProducerRequest) (*registryv1.DeregisterProducerResponse, error) {
	id, err := parseProducerID(m.GetProducerId())
	if err != nil {
		return nil, err
	}
	var instance assignment.InstanceID
	if m.GetInstanceId() != "" {
		if instance, err = assignment.ParseInstanceID(m.GetInstanceId()); err != nil {
			return nil, violation("instance_id", err.Error())
		}
	}
	epoch, revision, changed, err := s.Registrar.DeregisterProducer(ctx, id, instance)
	if err != nil {
		return nil, err
	}
	return &registryv1.DeregisterProducerResponse{Epoch: string(epoch), Revision: int64(revision), Changed: changed}, nil
}

// GetProducer answers one producer.
func (s producerService) GetProducer(ctx context.Context, m *registryv1.GetProducerRequest) (*registryv1.GetProducerResponse, error) {
	id, err := parseProducerID(m.GetProducerId())
	if err != nil {
		return nil, err
	}
	if err := checkMinRevision(m.GetMinRevision()); err != nil {
		return nil, err
	}
	e, at, err := s.Registrar.Producer(ctx, id, assignment.Revision(m.GetMinRevision()))
	if err != nil {
		return nil, err
	}
	p, err := s.encode(&e.Producer)
	if err != nil {
		return nil, err
	}
	return &registryv1.GetProducerResponse{Producer: p, Epoch: string(at.Epoch), Revision: int64(at.Revision), Stale: s.stale()}, nil
}

func parseProducerID(s string) (assignment.ProducerID, error) {
	id, err := assignment.ParseProducerID(s)
	if err != nil {
		return "", violation("producer_id", err.Error())
	}
	return id, nil
}

// maxScan bounds how many producers one page looks at.
const maxScan = 50_000

// maxPageBytes is about how large a page may be: a client takes 4 MiB by
// default.
const maxPageBytes = 1 << 20

// ListProducers answers a page of producers.
func (s producerService) ListProducers(ctx context.Context, m *registryv1.ListProducersRequest) (*registryv1.ListProducersResponse, error) {
	f, err := decodeFilter(m)
	if err != nil {
		return nil, err
	}
	all, at, err := s.Registrar.Producers(ctx, assignment.Revision(m.GetMinRevision()))
	if err != nil {
		return nil, err
	}
	resp := &registryv1.ListProducersResponse{Epoch: string(at.Epoch), Revision: int64(at.Revision), Stale: s.stale()}
	scanned, size := 0, 0
	last := f.page.after
	from := &roster.Entry{Producer: roster.Producer{ID: assignment.ProducerID(f.page.after)}}
	all.AscendGreaterOrEqual(from, func(e *roster.Entry) bool {
		if string(e.ID) == f.page.after {
			return true
		}
		if len(resp.Producers) == f.page.size || scanned == maxScan || size >= maxPageBytes || ctx.Err() != nil {
			resp.NextPageToken = pageToken(last)
			return false
		}
		scanned++
		last = string(e.ID)
		if !f.placed(&e.Producer) {
			return true
		}
		var a *assignment.Assignment
		if a, err = decodeStored(&e.Producer); err != nil {
			return false
		}
		if f.labelled(a) {
			p := encodeProducer(&e.Producer, a)
			s.remark(p, &e.Producer, a)
			resp.Producers = append(resp.Producers, p)
			size += len(e.Stored)
		}
		return true
	})
	return resp, err
}
