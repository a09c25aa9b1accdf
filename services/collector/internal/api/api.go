// Package api answers the collector's gRPC service: what it holds, what it
// collects, and how that goes.
//
// Its invariant: it answers from this process alone, so it answers also while no
// registry can be reached.
package api

import (
	"context"
	"encoding/base64"
	"errors"
	"time"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/guard"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/membership"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Members knows the set. It is safe for concurrent use.
type Members interface {
	Status() membership.Status
	Holds(id assignment.ProducerID) bool

	// Held returns up to limit held producers behind an id, in the order of the
	// ids.
	Held(after assignment.ProducerID, limit int) []guard.Held

	// Release and ReleaseAll let go of held producers. They tell whether that
	// is durable.
	Release(ctx context.Context, ids []assignment.ProducerID) membership.Released
	ReleaseAll(ctx context.Context) membership.Released
}

// Collections knows what is collected. It is safe for concurrent use.
type Collections interface {
	Find(id assignment.ProducerID) (schedule.Status, bool)
	List(after assignment.ProducerID, limit int, keep func(*schedule.Status) bool) []schedule.Status
	CollectNow(ctx context.Context, id assignment.ProducerID) (schedule.Result, error)
	Len() int
	Unrunnable() (int, []schedule.Unrunnable)
}

// A Selector answers questions to this collector's own store. It is safe for
// concurrent use, bounds its answers, and its errors have a status.
type Selector interface {
	Select(m *collectorv1.SelectRequest, stream grpc.ServerStreamingServer[collectorv1.SelectResponse]) error
}

// Subscription is how the subscription is doing.
type Subscription struct {
	Live       bool
	Address    string
	Generation assignment.Generation
	LastError  string
}

// Config is what the API needs.
type Config struct {
	Collector    assignment.CollectorID
	Instance     assignment.InstanceID
	Members      Members
	Collections  Collections
	Subscription func() Subscription

	// Testify answers how the applied producers answer. It is safe for
	// concurrent use.
	Testify func(schedule.Question) []schedule.Testimony

	// Selector answers from the store.
	Selector Selector

	// Store is the embedded store, nil where there is none.
	Store Store

	// Configuration is shown and reloaded.
	Configuration Configuration

	// Sinks are where samples go.
	Sinks Sinks
}

// API is the collector's service.
type API struct {
	collectorv1.UnsafeCollectionServiceServer
	Config
}

// New makes the API.
func New(c Config) *API { return &API{Config: c} }

// Register adds the service to a server.
func (a *API) Register(s grpc.ServiceRegistrar) {
	collectorv1.RegisterCollectionServiceServer(s, a)
}

// GetMembership answers the state of the set.
func (a *API) GetMembership(context.Context, *collectorv1.GetMembershipRequest) (*collectorv1.GetMembershipResponse, error) {
	st, sub := a.Members.Status(), a.Subscription()
	unrunnable, _ := a.Collections.Unrunnable()
	return &collectorv1.GetMembershipResponse{
		CollectorId:     string(a.Collector),
		InstanceId:      string(a.Instance),
		Generation:      int64(sub.Generation),
		Epoch:           string(st.Epoch),
		Revision:        int64(st.Revision),
		AcceptedCount:   int64(st.AcceptedCount),
		AcceptedDigest:  uint64(st.Digest),
		AppliedDigest:   uint64(st.AppliedDigest),
		AppliedCount:    int64(a.Collections.Len()),
		HeldCount:       int64(st.HeldCount),
		UnrunnableCount: int64(unrunnable),
		LastSealTime:    timestamp(st.LastSeal),
		Persisted:       st.Persisted,
		Subscribed:      sub.Live,
		RegistryAddress: sub.Address,
		LastError:       sub.LastError,
		LastRefusal:     wire.EncodeRefusal(st.LastRefusal),
	}, nil
}

const (
	defaultPage = 100
	maxPage     = 1000

	// maxPageBytes is about how large a page may be: a client takes 4 MiB by
	// default.
	maxPageBytes = 1 << 20
)

// paged is a request for a page.
type paged interface {
	GetPageSize() int32
	GetPageToken() string
}

// page is how many are asked for, behind which id.
func page(m paged) (size int, after assignment.ProducerID, err error) {
	return pageOf(m, defaultPage, maxPage)
}

// pageOf is page with bounds of its own.
func pageOf(m paged, missing, most int) (size int, after assignment.ProducerID, err error) {
	size = int(m.GetPageSize())
	switch {
	case size < 0:
		return 0, "", invalid("page_size", "is negative")
	case size == 0:
		size = missing
	case size > most:
		size = most
	}
	id, err := base64.RawURLEncoding.DecodeString(m.GetPageToken())
	if err != nil || len(id) > 0 && parse(string(id)) != nil {
		return 0, "", invalid("page_token", "is not one that this service gave")
	}
	return size, assignment.ProducerID(id), nil
}

// pageToken asks for the page behind an id.
func pageToken(last assignment.ProducerID) string {
	return base64.RawURLEncoding.EncodeToString([]byte(last))
}

// ListCollections answers a page of the applied producers.
func (a *API) ListCollections(_ context.Context, m *collectorv1.ListCollectionsRequest) (*collectorv1.ListCollectionsResponse, error) {
	size, after, err := page(m)
	if err != nil {
		return nil, err
	}
	list := a.Collections.List(after, size+1, func(s *schedule.Status) bool {
		return (!m.GetFailing() || s.Last.Reason != schedule.ReasonNone) &&
			(!m.GetHeld() || a.Members.Holds(s.Assignment.ProducerID))
	})
	resp := &collectorv1.ListCollectionsResponse{}
	if len(list) > size {
		list = list[:size]
		resp.NextPageToken = pageToken(list[size-1].Assignment.ProducerID)
	}
	bytes := 0
	for i := range list {
		if bytes >= maxPageBytes {
			resp.NextPageToken = base64.RawURLEncoding.EncodeToString([]byte(list[i-1].Assignment.ProducerID))
			break
		}
		c := a.encode(&list[i])
		bytes += proto.Size(c)
		resp.Collections = append(resp.Collections, c)
	}
	return resp, nil
}

// GetCollection answers one applied producer.
func (a *API) GetCollection(_ context.Context, m *collectorv1.GetCollectionRequest) (*collectorv1.GetCollectionResponse, error) {
	if err := parse(m.GetProducerId()); err != nil {
		return nil, invalid("producer_id", err.Error())
	}
	s, ok := a.Collections.Find(assignment.ProducerID(m.GetProducerId()))
	if !ok {
		return nil, unknown(m.GetProducerId())
	}
	return &collectorv1.GetCollectionResponse{Collection: a.encode(&s)}, nil
}

// CollectNow collects one producer at once.
func (a *API) CollectNow(ctx context.Context, m *collectorv1.CollectNowRequest) (*collectorv1.CollectNowResponse, error) {
	if err := parse(m.GetProducerId()); err != nil {
		return nil, invalid("producer_id", err.Error())
	}
	r, err := a.Collections.CollectNow(ctx, assignment.ProducerID(m.GetProducerId()))
	switch {
	case err == nil:
		return &collectorv1.CollectNowResponse{Result: encodeResult(&r)}, nil
	case errors.Is(err, schedule.ErrUnknown):
		return nil, unknown(m.GetProducerId())
	case errors.Is(err, schedule.ErrBusy):
		return nil, detailed(codes.ResourceExhausted, err.Error(), "BUSY",
			&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)})
	case errors.Is(err, schedule.ErrUnrunnable):
		return nil, detailed(codes.FailedPrecondition, err.Error(), "UNRUNNABLE")
	case ctx.Err() != nil:
		return nil, status.FromContextError(ctx.Err()).Err()
	default:
		return nil, detailed(codes.Unavailable, err.Error(), "NOT_RUNNING")
	}
}

func parse(id string) error {
	_, err := assignment.ParseProducerID(id)
	return err
}

func unknown(id string) error {
	return detailed(codes.NotFound, "producer "+id+" is not collected here", "UNKNOWN_PRODUCER")
}

func invalid(field, description string) error {
	return violations([]*errdetails.BadRequest_FieldViolation{violation(field, description)})
}

func violation(field, description string) *errdetails.BadRequest_FieldViolation {
	return &errdetails.BadRequest_FieldViolation{Field: field, Description: description}
}

// violations is the error of a malformed request; there is at least one.
func violations(bad []*errdetails.BadRequest_FieldViolation) error {
	return detailed(codes.InvalidArgument, bad[0].GetField()+": "+bad[0].GetDescription(), "MALFORMED",
		&errdetails.BadRequest{FieldViolations: bad})
}

func detailed(code codes.Code, message, reason string, details ...protoadapt.MessageV1) error {
	s := status.New(code, message)
	details = append(details, &errdetails.ErrorInfo{Reason: reason, Domain: "rollcall"})
	if with, err := s.WithDetails(details...); err == nil {
		s = with
	}
	return s.Err()
}

func (a *API) encode(s *schedule.Status) *collectorv1.Collection {
	return &collectorv1.Collection{
		Assignment:       wire.EncodeAssignment(s.Assignment),
		Held:             a.Members.Holds(s.Assignment.ProducerID),
		UnrunnableReason: s.UnrunnableReason,
		NextTime:         timestamp(s.Next),
		LastResult:       encodeResult(&s.Last),
		LastSuccessTime:  timestamp(s.LastSuccess),
		LastFailureTime:  timestamp(s.LastFailure),
		LastSuccess:      encodeResult(&s.Success),
		LastFailure:      encodeResult(&s.Failure),
		SuccessCount:     s.Successes,
		FailureCount:     s.Failures,

		MissedCount:        s.Missed,
		MissedOverlapCount: s.MissedOverlap,
		MissedBudgetCount:  s.MissedBudget,
	}
}

// encodeResult is nil before the first collection.
func encodeResult(r *schedule.Result) *collectorv1.CollectionResult {
	if r.Start.IsZero() {
		return nil
	}
	return &collectorv1.CollectionResult{
		StartTime:      timestamp(r.Start),
		Duration:       durationpb.New(r.Duration),
		FailureReason:  collectorv1.FailureReason(r.Reason),
		FailureMessage: r.Message,
		SampleCount:    int64(r.Samples),
		BodyBytes:      r.BodyBytes,
	}
}

func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
