package producer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
)

const (
	// maxAnswer bounds a registry's answer: it holds what was registered, at most
	// about 16 KiB, and what speaks against it.
	maxAnswer = 256 << 10

	// maxHeaders bounds its headers and trailers, which hold the text of an error.
	maxHeaders = 16 << 10

	// maxText bounds what is told of that text.
	maxText = 500
)

func register(ctx context.Context, c Config, address string, p *registryv1.Producer) (*registryv1.RegisterProducerResponse, error) {
	var resp *registryv1.RegisterProducerResponse
	err := call(ctx, c, address, callTimeout, func(ctx context.Context, client registryv1.ProducerServiceClient) (err error) {
		resp, err = client.RegisterProducer(ctx, &registryv1.RegisterProducerRequest{Producer: p})
		return err
	})
	return resp, err
}

func deregister(ctx context.Context, c Config, address string, p *registryv1.Producer, timeout time.Duration) error {
	return call(ctx, c, address, timeout, func(ctx context.Context, client registryv1.ProducerServiceClient) error {
		_, err := client.DeregisterProducer(ctx, &registryv1.DeregisterProducerRequest{
			ProducerId: p.GetProducerId(), InstanceId: p.GetInstanceId(),
		})
		return err
	})
}

// call makes one call on a connection of its own. Renewals are minutes apart: kept
// connections would cost a registry more than new ones do.
func call(ctx context.Context, c Config, address string, timeout time.Duration, do func(context.Context, registryv1.ProducerServiceClient) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	creds := c.Credentials
	if creds == nil {
		creds = insecure.NewCredentials()
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithMaxHeaderListSize(maxHeaders),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
	}
	if c.PerCall != nil {
		options = append(options, grpc.WithPerRPCCredentials(c.PerCall))
	}
	if c.Dial != nil {
		options = append(options, grpc.WithContextDialer(c.Dial))
	}
	conn, err := grpc.NewClient("passthrough:///"+address, options...)
	if err != nil {
		return err
	}
	defer conn.Close()
	return judge(address, do(ctx, registryv1.NewProducerServiceClient(conn)))
}

// errMalformed is wrapped by the answer of a registry that calls a request
// malformed. One that is of another version, or misconfigured, may be alone in it.
var errMalformed = errors.New("malformed")

// judge tells a refusal from an error that passes, by the registry's own reason:
// the codes alone are also what a proxy answers while there is no registry, and
// ABORTED also that others write the same.
func judge(address string, err error) error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	err = &callError{address: address, status: s}
	switch reason := reasonOf(s); {
	case s.Code() == codes.InvalidArgument:
		return fmt.Errorf("%w: %w", errMalformed, err)
	case s.Code() == codes.Aborted && reason == "INSTANCE_REPLACED":
		return fmt.Errorf("%w: %w: %w", ErrRefused, ErrReplaced, err)
	case s.Code() == codes.FailedPrecondition && reason == "INSTANCE_DEREGISTERED":
		return fmt.Errorf("%w: %w: %w", ErrRefused, ErrDeregistered, err)
	default:
		return err
	}
}

func reasonOf(s *status.Status) string {
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// A callError is what a registry answered, fit for a line.
type callError struct {
	address string
	status  *status.Status
}

// Error tells who answered what.
func (e *callError) Error() string {
	return fmt.Sprintf("registry %s: %s: %s", e.address, e.status.Code(), clip(e.status.Message()))
}

// GRPCStatus is the status itself.
func (e *callError) GRPCStatus() *status.Status { return e.status }

// clip bounds a text from outside.
func clip(s string) string {
	if len(s) > maxText {
		return strings.ToValidUTF8(s[:maxText], "") + "..."
	}
	return s
}

// told is how long a registry that is busy, or has no view of its store, wants to
// be left alone, within what a backoff may be. Those whom it told the same do not
// all come back at once.
func told(err error) time.Duration {
	delay := min(wire.RetryDelay(err), maxBackoff)
	if delay <= 0 {
		return 0
	}
	return delay + rand.N(max(delay/4, minBackoff))
}

// renewal spreads the renewals of many producers over the last tenth.
func renewal(after time.Duration) time.Duration {
	after = min(max(after, minRenewal), maxRenewal)
	return after - rand.N(after/10)
}

func encode(r Registration) *registryv1.Producer {
	p := &registryv1.Producer{
		ProducerId:               r.ID,
		Endpoint:                 r.Endpoint,
		InstanceId:               r.Instance,
		HonorLabels:              r.HonorLabels,
		IgnoreTimestamps:         r.IgnoreTimestamps,
		FallbackFormat:           registryv1.ExpositionFormat(r.FallbackFormat),
		Credential:               r.Credential,
		TlsServerName:            r.TLSServerName,
		Zone:                     r.Zone,
		ExpectedSamplesPerSecond: r.SamplesPerSecond,
		Interval:                 duration(r.Interval),
		Timeout:                  duration(r.Timeout),
		LeaseDuration:            duration(r.Lease),
		ExpireAfter:              duration(r.ExpireAfter),
	}
	if r.Permanent {
		p.Permanent = new(true)
	} else if r.Lease != 0 || r.ExpireAfter != 0 {
		p.Permanent = new(false)
	}
	if r.Limits != (Limits{}) {
		p.Limits = &registryv1.CollectionLimits{
			MaxBodyBytes: r.Limits.BodyBytes, MaxSampleCount: r.Limits.Samples,
			MaxLabelCount: r.Limits.Labels, MaxLabelValueBytes: r.Limits.LabelValueBytes,
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Labels)) {
		p.Labels = append(p.Labels, &registryv1.Label{Name: name, Value: r.Labels[name]})
	}
	return p
}

// duration leaves out what is not told.
func duration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// owner is the collector that has the producer. What is no id would make the next
// registration malformed.
func owner(p *registryv1.Producer) string {
	if len(p.GetPlacements()) == 0 {
		return ""
	}
	id, err := assignment.ParseCollectorID(p.GetPlacements()[0].GetCollectorId())
	if err != nil {
		return ""
	}
	return string(id)
}
