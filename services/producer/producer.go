// Package producer registers a metrics endpoint with Rollcall, and keeps it
// registered, for the program that has the endpoint. It takes a few lines:
//
//	keeper, err := producer.Start(producer.Config{Registries: []string{"registry:7470"}},
//		producer.Registration{ID: "shop/checkout-1", Endpoint: "http://shop-1:9100/metrics"})
//	if err != nil {
//		return err
//	}
//	defer keeper.Deregister(5 * time.Second)
//
// Without the last one, or with Close in its place, the producer stays on the
// roll: so a process that is back in seconds is collected by the same collector
// as before. Identify and Expose make an endpoint tell which producer it is; the
// second one speaks gRPC.
//
// Its invariant: a registration is repeated until the registry has taken it, and
// renewed for as long as its keeper runs; an outage of the registry ends nothing.
// Nothing but Deregister takes a producer off the roll, and that only as the
// instance that registered it.
package producer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"google.golang.org/grpc/credentials"
)

// A Registration says what is to be collected. A zero value leaves it to the
// registry, or to the collector.
type Registration struct {
	// ID names the producer: [A-Za-z0-9][A-Za-z0-9._:/-]{0,127}.
	ID string

	// Endpoint is the whole URL of the metrics as collectors reach it: http or
	// https, or grpc://host:port (grpcs:// over TLS) of a server with Expose.
	Endpoint string

	// Interval is the time between two collections, 100 ms to 24 h, and Timeout
	// the longest time of one, 10 ms to the interval; both in whole milliseconds.
	// Zero: 15 s, and 10 s or the interval.
	Interval time.Duration
	Timeout  time.Duration

	// Labels are put on every series, at most 64 of them and 8 KiB.
	Labels map[string]string

	// HonorLabels lets labels of the exposition win over Labels.
	HonorLabels bool

	// IgnoreTimestamps ignores time stamps of the exposition.
	IgnoreTimestamps bool

	// Limits bound one collection; zero: the collector's own.
	Limits Limits

	// FallbackFormat is the format assumed when an answer tells none; zero:
	// Prometheus text.
	FallbackFormat Format

	// Credential names the credential, out of those in the collectors'
	// configuration, by which they ask the endpoint. It is not the secret itself.
	Credential string

	// TLSServerName is the name that the endpoint's certificate has to be for;
	// empty: the endpoint's host.
	TLSServerName string

	// Instance names this process, so that one that was replaced or deregistered
	// cannot come back: at most 128 bytes, characters as in ID. Where it is empty,
	// Start makes a random one, and Keep has none.
	Instance string

	// Permanent registers without a lease: only a deregistration takes it off the
	// roll. One without an instance is permanent, unless it tells a lease.
	Permanent bool

	// Lease is how long the registration lives without renewal, 10 s to 24 h, and
	// ExpireAfter how long the producer has to have neither renewed nor answered
	// before it is struck off, from the lease to 30 days. Zero: 10 min, and 1 h or
	// the lease. Not for a permanent one.
	Lease       time.Duration
	ExpireAfter time.Duration

	// Zone is where it stands: a collector of the same zone is preferred. At most
	// 128 bytes.
	Zone string

	// SamplesPerSecond is about how much it yields, until that is measured; 0 to
	// 10,000,000.
	SamplesPerSecond float64
}

// Limits bound one collection. One that exceeds a limit fails. Zero: no limit but
// the collector's own.
type Limits struct {
	BodyBytes       int64
	Samples         int32
	Labels          int32 // of a series
	LabelValueBytes int32
}

// A Format is a format of an exposition.
type Format int32

// The formats.
const (
	FormatText        = Format(registryv1.ExpositionFormat_EXPOSITION_FORMAT_PROMETHEUS_TEXT)
	FormatOpenMetrics = Format(registryv1.ExpositionFormat_EXPOSITION_FORMAT_OPENMETRICS_TEXT)
	FormatProtobuf    = Format(registryv1.ExpositionFormat_EXPOSITION_FORMAT_PROMETHEUS_PROTOBUF)
)

// Check refuses, with ErrRefused, what every registry would refuse.
func (r Registration) Check() error {
	if _, err := wire.DecodeProducer(encode(r), "registration"); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return nil
}

// Config says how to reach the registry.
type Config struct {
	// Registries are addresses, host:port. The first try takes any of them, and
	// each one after a failure the next.
	Registries []string

	// NoWait makes Start register at once, and renew whether the endpoint answers
	// or not. Without, the endpoint is asked before each registration, for 10 s or
	// the registration's Timeout, whichever is longer.
	NoWait bool

	// Observe, if not nil, is told of everything that was tried, and of its error
	// or nil, by one goroutine at a time. It must not wait for its keeper.
	Observe func(step Step, err error)

	// Dial makes connections to registries; nil: TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)

	// Credentials are those of the connections to registries, such as
	// credentials.NewTLS; nil: plain text. PerCall are shown with each call, such
	// as a bearer token; nil: none.
	Credentials credentials.TransportCredentials
	PerCall     credentials.PerRPCCredentials

	// Logger is told of registrations, of outages and their end, and of the error
	// that ends a keeper; nil: nobody is.
	Logger *slog.Logger

	// dialEndpoint makes connections to the endpoint; nil: TCP.
	dialEndpoint func(ctx context.Context, network, address string) (net.Conn, error)
}

// A Step is one thing that a keeper tries.
type Step string

// The steps.
const (
	StepProbe      Step = "probe"      // ask the endpoint whether it answers
	StepRegister   Step = "register"   // register or renew
	StepDeregister Step = "deregister" // take the producer off the roll
)

var (
	// ErrRefused is wrapped by the error of a registration that the registry will
	// never take: this instance was replaced or deregistered, or it is malformed. It
	// is that when every registry of the list has said so, and none has taken it.
	ErrRefused = errors.New("the registry refuses the registration")

	// ErrReplaced is wrapped beside ErrRefused when a newer process has registered
	// the producer: to register it again would take it from that one.
	ErrReplaced = errors.New("a newer process has registered this producer")

	// ErrDeregistered is wrapped beside ErrRefused when somebody has taken this
	// instance off the roll, such as an operator.
	ErrDeregistered = errors.New("this instance was deregistered")
)

// Keep registers, and renews when the registry wants it renewed, until ctx ends;
// then it returns nil. It fails only with ErrRefused. It asks no endpoint, and
// ending it takes nothing off the roll.
func Keep(ctx context.Context, c Config, r Registration) error {
	c.NoWait = true
	k, err := newKeeper(c, r)
	if err != nil {
		return err
	}
	return k.run(ctx, ctx)
}

// Start keeps a producer registered, from a goroutine of its own, until Close or
// Deregister. Unless NoWait is set, it first waits until the endpoint answers, and
// renews only while it does: so an endpoint that is gone for good is struck off
// also while its keeper lives.
//
// A registration that cannot be right is refused at once, with ErrRefused.
func Start(c Config, r Registration) (*Keeper, error) {
	if r.Instance == "" {
		r.Instance = newInstance()
	}
	if err := r.Check(); err != nil {
		return nil, err
	}
	k, err := newKeeper(c, r)
	if err != nil {
		return nil, err
	}
	var ctx, calls context.Context
	ctx, k.stop = context.WithCancel(context.Background())
	calls, k.abandon = context.WithCancel(context.Background())
	go func() {
		defer close(k.done)
		k.end(k.run(ctx, calls))
	}()
	return k, nil
}
