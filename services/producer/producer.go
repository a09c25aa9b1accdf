// Package producer registers a metrics endpoint with Rollcall, and keeps it
// registered, for the program that has the endpoint. Identify and Expose make an
// endpoint tell which producer it is; the second one speaks gRPC.
//
// Its invariant: a registration is repeated until the registry has taken it, and
// renewed for as long as Keep runs; ending Keep takes nothing off the roll.
package producer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// A Registration says what is to be collected.
type Registration struct {
	// ID names the producer: [A-Za-z0-9][A-Za-z0-9._:/-]{0,127}.
	ID string

	// Endpoint is the whole URL of the metrics.
	Endpoint string

	// Interval and Timeout of the collections; zero: the registry's defaults.
	Interval time.Duration
	Timeout  time.Duration

	// Labels are put on every series.
	Labels map[string]string

	// Instance names this process, so that one that was replaced cannot come
	// back; empty when that does not matter.
	Instance string
}

// Config says how to reach the registry.
type Config struct {
	// Registries are addresses, host:port. Each try takes the next one.
	Registries []string

	// Dial makes connections; nil: TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)

	Logger *slog.Logger
}

const (
	minBackoff  = 200 * time.Millisecond
	maxBackoff  = 30 * time.Second
	callTimeout = 10 * time.Second
	minRenewal  = time.Second
)

// ErrRefused is wrapped by the error of a registration that the registry will
// never take: it is malformed, or this instance was replaced or deregistered.
var ErrRefused = errors.New("the registry refuses the registration")

// Keep registers, and renews when the registry wants it renewed, until ctx ends;
// then it returns nil. It fails only with ErrRefused.
func Keep(ctx context.Context, c Config, r Registration) error {
	message := encode(r)
	failures := 0
	for n := 0; ; n++ {
		address := c.Registries[n%len(c.Registries)]
		resp, err := register(ctx, c, address, message)
		var wait time.Duration
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // asked to stop
		case err == nil:
			failures = 0
			wait = renewal(resp.GetRenewAfter().AsDuration())
			message.LastCollectorId = owner(resp.GetProducer())
			if resp.GetChanged() {
				c.Logger.InfoContext(ctx, "registered", "producer", r.ID, "registry", address, "revision", resp.GetRevision())
			}
			n-- // stay with the one that answers
		case refused(err):
			return fmt.Errorf("%w: %w", ErrRefused, err)
		default:
			wait = max(rand.N(min(minBackoff<<min(failures, 20), maxBackoff)), told(err))
			failures++
			c.Logger.DebugContext(ctx, "could not register", "producer", r.ID, "registry", address, "error", err, "retry_in", wait)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
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
	after = max(after, minRenewal)
	return after - rand.N(after/10)
}

func refused(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.Aborted, codes.FailedPrecondition, codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented:
		return true
	default:
		return false
	}
}

func register(ctx context.Context, c Config, address string, p *registryv1.Producer) (*registryv1.RegisterProducerResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
	}
	if c.Dial != nil {
		options = append(options, grpc.WithContextDialer(c.Dial))
	}
	conn, err := grpc.NewClient("passthrough:///"+address, options...)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return registryv1.NewProducerServiceClient(conn).RegisterProducer(ctx, &registryv1.RegisterProducerRequest{Producer: p})
}

func encode(r Registration) *registryv1.Producer {
	p := &registryv1.Producer{ProducerId: r.ID, Endpoint: r.Endpoint, InstanceId: r.Instance}
	if r.Interval != 0 {
		p.Interval = durationpb.New(r.Interval)
	}
	if r.Timeout != 0 {
		p.Timeout = durationpb.New(r.Timeout)
	}
	for name, value := range r.Labels {
		p.Labels = append(p.Labels, &registryv1.Label{Name: name, Value: value})
	}
	slices.SortFunc(p.Labels, func(a, b *registryv1.Label) int {
		if a.GetName() < b.GetName() {
			return -1
		}
		return 1
	})
	return p
}

func owner(p *registryv1.Producer) string {
	if len(p.GetPlacements()) == 0 {
		return ""
	}
	return p.GetPlacements()[0].GetCollectorId()
}
