package producer

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	producerv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/producer/v1"
)

const (
	// maxExpositions is how many collections of one producer run at one time: a
	// collector and its successor, and some that are slow to read.
	maxExpositions = 4

	// maxDeadline bounds how long a collector can hold one of them.
	maxDeadline = 10 * time.Minute

	// maxMessage bounds the text of an error, in bytes.
	maxMessage = 300

	// errorDomain is the domain of every ErrorInfo.
	errorDomain = "rollcall"
)

// Expose makes a gRPC server answer collectors with what gatherer gathers, as
// the producer with this id: for an endpoint like grpc://host:port. It costs a
// collector much less than a text does, and carries native histograms and
// exemplars.
//
// A collection fails when anything cannot be gathered: series that are missing
// would be taken for gone. Of a histogram that is both classic and native, the
// native half is sent. Gathering that yields the same series in the same order
// as the last time, as that of a [prometheus.Registry] does, is what a
// collector gets cheaply.
func Expose(server grpc.ServiceRegistrar, id string, gatherer prometheus.Gatherer) {
	producerv1.RegisterExpositionServiceServer(server, &exposition{
		id: id, gatherer: gatherer, slots: make(chan struct{}, maxExpositions),
	})
}

// An exposition is the service of one producer.
type exposition struct {
	producerv1.UnimplementedExpositionServiceServer

	id       string
	gatherer prometheus.Gatherer
	slots    chan struct{} // taken by running calls

	// layout is that of the last answer, nil before the first.
	layout atomic.Pointer[layout]
}

// Collect gathers once and answers.
func (e *exposition) Collect(req *producerv1.CollectRequest, stream grpc.ServerStreamingServer[producerv1.CollectResponse]) error {
	if req.GetProducerId() != e.id {
		return refuse(codes.FailedPrecondition, "WRONG_PRODUCER", fmt.Sprintf("this is producer %q", e.id))
	}
	if err := checkDeadline(stream.Context()); err != nil {
		return err
	}
	select {
	case e.slots <- struct{}{}:
		defer func() { <-e.slots }()
	default:
		return refuse(codes.ResourceExhausted, "BUSY", fmt.Sprintf("%d collections are running", maxExpositions))
	}
	families, err := e.gatherer.Gather()
	if err != nil {
		return status.Error(codes.Internal, brief(err))
	}
	l, err := e.layoutOf(families)
	if err != nil {
		return status.Error(codes.Internal, brief(err))
	}
	if limit := req.GetMaxSampleCount(); limit > 0 && int64(l.series) > limit {
		return refuse(codes.ResourceExhausted, "TOO_MANY_SAMPLES", fmt.Sprintf("%d samples, at most %d are wanted", l.series, limit))
	}
	answer := l.fill(families)
	answer.Begin = &producerv1.Begin{ProducerId: e.id, LayoutId: l.id}
	if string(req.GetKnownLayoutId()) != string(l.id) {
		answer.Layout = l.message
	}
	return send(answer, int64(l.series), stream.Send)
}

// layoutOf is the layout of families: the last one while it fits.
func (e *exposition) layoutOf(families []*dto.MetricFamily) (*layout, error) {
	if l := e.layout.Load(); l != nil && l.fits(families) {
		return l, nil
	}
	l, err := newLayout(families)
	if err != nil {
		return nil, err
	}
	e.layout.Store(l)
	return l, nil
}

// checkDeadline refuses calls that could last for ever.
func checkDeadline(ctx context.Context) error {
	deadline, ok := ctx.Deadline()
	if !ok || time.Until(deadline) > maxDeadline {
		return status.Errorf(codes.InvalidArgument, "want a deadline of at most %v", maxDeadline)
	}
	return nil
}

// refuse is an error with a reason for programs.
func refuse(code codes.Code, reason, message string) error {
	s, err := status.New(code, message).WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: errorDomain})
	if err != nil {
		return status.Error(code, message)
	}
	return s.Err()
}

// brief is the text of an error, of bounded length: some name every metric.
func brief(err error) string {
	text := err.Error()
	if len(text) > maxMessage {
		text = text[:maxMessage] + "..."
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}
