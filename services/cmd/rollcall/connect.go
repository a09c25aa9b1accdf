package main

import (
	"context"
	"errors"
	"strings"
	"time"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// registryFlags say which registry is asked.
type registryFlags struct {
	Registry    string        `default:"127.0.0.1:7470" group:"peer" help:"host:port of a registry's gRPC."`
	CallTimeout time.Duration `default:"10s" group:"peer" help:"Longest wait for one answer."`

	process.ClientFlags
}

// producers calls the registry's ProducerService.
func (f *registryFlags) producers(ctx context.Context, call func(context.Context, registryv1.ProducerServiceClient) error) error {
	return dial(ctx, &f.ClientFlags, f.Registry, f.CallTimeout, func(ctx context.Context, conn *grpc.ClientConn) error {
		return call(ctx, registryv1.NewProducerServiceClient(conn))
	})
}

// collectors calls the registry's CollectorService.
func (f *registryFlags) collectors(ctx context.Context, call func(context.Context, registryv1.CollectorServiceClient) error) error {
	return dial(ctx, &f.ClientFlags, f.Registry, f.CallTimeout, func(ctx context.Context, conn *grpc.ClientConn) error {
		return call(ctx, registryv1.NewCollectorServiceClient(conn))
	})
}

// A registryClient calls all of a registry's services for operators.
type registryClient struct {
	registryv1.ProducerServiceClient
	registryv1.CollectorServiceClient
	registryv1.PlacementServiceClient

	flags *process.ClientFlags // for collectors, too
}

// registry calls the registry's services.
func (f *registryFlags) registry(ctx context.Context, call func(context.Context, registryClient) error) error {
	return dial(ctx, &f.ClientFlags, f.Registry, f.CallTimeout, func(ctx context.Context, conn *grpc.ClientConn) error {
		return call(ctx, registryClient{
			registryv1.NewProducerServiceClient(conn),
			registryv1.NewCollectorServiceClient(conn),
			registryv1.NewPlacementServiceClient(conn),
			&f.ClientFlags,
		})
	})
}

// everyCollector calls each with every collector that the registry knows, in the
// order of their ids.
func (r registryClient) everyCollector(ctx context.Context, each func(*registryv1.Collector) error) error {
	req := &registryv1.ListCollectorsRequest{PageSize: pageSize}
	for {
		resp, err := r.ListCollectors(ctx, req)
		if err != nil {
			return err
		}
		for _, c := range resp.GetCollectors() {
			if err := each(c); err != nil {
				return err
			}
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			return nil
		}
	}
}

// collectorFlags say which collector is asked.
type collectorFlags struct {
	CollectorAddress string        `default:"127.0.0.1:7480" group:"peer" help:"host:port of the collector's gRPC."`
	CallTimeout      time.Duration `default:"10s" group:"peer" help:"Longest wait for one answer."`

	process.ClientFlags
}

// collections calls the collector's CollectionService.
func (f *collectorFlags) collections(ctx context.Context, call func(context.Context, collectorv1.CollectionServiceClient) error) error {
	return askCollector(ctx, &f.ClientFlags, f.CollectorAddress, f.CallTimeout, call)
}

// askCollector calls the CollectionService of the collector at an address.
func askCollector(ctx context.Context, flags *process.ClientFlags, address string, limit time.Duration, call func(context.Context, collectorv1.CollectionServiceClient) error) error {
	return dial(ctx, flags, address, limit, func(ctx context.Context, conn *grpc.ClientConn) error {
		return call(ctx, collectorv1.NewCollectionServiceClient(conn))
	})
}

// errNoAddress is the error of asking a collector that has told no address.
var errNoAddress = errors.New("it has told the registry no address to be asked at")

// askKnown is askCollector at the address that a collector has told the registry. A
// token is not shown there: who listens at it could use it. A certificate proves who
// one is and gives nothing away.
func askKnown(ctx context.Context, flags *process.ClientFlags, c *registryv1.Collector, limit time.Duration, call func(context.Context, collectorv1.CollectionServiceClient) error) error {
	if c.GetIntrospectionEndpoint() == "" {
		return errNoAddress
	}
	return askTold(ctx, flags, c.GetIntrospectionEndpoint(), limit, call)
}

func askTold(ctx context.Context, flags *process.ClientFlags, address string, limit time.Duration, call func(context.Context, collectorv1.CollectionServiceClient) error) error {
	silent := *flags
	silent.TokenFile = ""
	err := askCollector(ctx, &silent, address, limit, call)
	if f, ok := errors.AsType[*failure](err); ok && flags.TokenFile != "" && status.Code(f.err) == codes.Unauthenticated {
		f.line += ": no token is shown at an address that a collector told; show a certificate, or ask with --collector-address"
	}
	return err
}

// dial connects for the time of a call. Each unary call is bounded by limit; a
// stream is not. The error of the call is made fit to be read.
func dial(ctx context.Context, flags *process.ClientFlags, address string, limit time.Duration, call func(context.Context, *grpc.ClientConn) error) error {
	bounded := func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		return invoke(ctx, method, req, reply, cc, opts...)
	}
	client, err := flags.Client()
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient("passthrough:///"+address, append(client.Options(),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithUnaryInterceptor(bounded),
	)...)
	if err != nil {
		return err
	}
	defer conn.Close()
	err = explain(address, call(ctx, conn))
	if f, ok := errors.AsType[*failure](err); ok && client.TLS == nil && strings.Contains(f.line, "server preface") {
		f.line += ": it may want TLS (--tls-ca)"
	}
	return err
}
