// Package registry is the registry, assembled: who produces metrics, who
// collects them, and which collector has which producer.
//
// Its invariant: it serves nothing before it knows the whole roll, and its stop
// is bounded.
package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rollcall-metrics/rollcall/services/internal/access"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/auth"
	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"github.com/rollcall-metrics/rollcall/services/producer"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/api"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/feed"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/leader"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/witness"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// Config says how a registry runs.
type Config struct {
	// Listener is where gRPC is served, HTTPListener where metrics and probes
	// are. The registry closes both.
	Listener     net.Listener
	HTTPListener net.Listener

	// Exactly one of DataDir, Memory and Etcd is set: where the roster is. DataDir
	// is where a store embedded in this process keeps its files, and a unix socket,
	// etcd.sock, for etcdctl. Etcd is one that any number of registries share.
	DataDir string
	Memory  *MemoryStore
	Etcd    *EtcdConfig

	// MemoryFaults, if set, is asked before each operation of this process on
	// Memory, by its name: an error fails the operation. It may wait.
	MemoryFaults func(op string) error

	// QuotaBytes bounds the store in DataDir; 0: 8 GiB.
	QuotaBytes int64

	// SelfID and SelfEndpoint register the registry itself as a producer. Empty:
	// it does not.
	SelfID       string
	SelfEndpoint string

	// Endpoints says which addresses producers may have. Its Loopback is for
	// collectors, too, which the registry asks.
	Endpoints EndpointPolicy

	// Heartbeat is the interval of heartbeats; 0: 5 s.
	Heartbeat time.Duration

	// Times are those of the leader's work; zero stands for the default of each.
	Times Times

	// DialCollector connects to a collector that is asked how its producers
	// answer; nil: over the network.
	DialCollector func(ctx context.Context, address string) (net.Conn, error)

	// MaxSnapshots bounds the first snapshots that are being sent; 0:
	// DefaultMaxSnapshots.
	MaxSnapshots int

	// RegistrationRate is how many registrations a second are taken from one
	// identity or, where nobody is asked, address; 0: as many as come.
	RegistrationRate int

	// MaxProducers is how many producers may count for one identity whose rule does
	// not say; 0: as many as come. MaxLabelBytes is how many bytes all names and
	// values of a producer's labels may have; 0: DefaultMaxLabelBytes.
	MaxProducers  int
	MaxLabelBytes int

	// StopGrace bounds the stop; 0: 10 s.
	StopGrace time.Duration

	// ServerTLS is for both listeners, ClientTLS for the collectors that are asked;
	// nil: plain text.
	ServerTLS *tls.Config
	ClientTLS process.ClientTLS

	// Introspection serves what shows the inside of the process.
	Introspection bool

	// Access returns the rules of who may do what that hold now, another value
	// when they have changed; nil: everybody may do everything.
	Access func() *access.Rules

	Logger  *slog.Logger
	Metrics *prometheus.Registry
}

// Times are when the registry does something by itself.
type Times = leader.Times

// An EndpointPolicy says which addresses may be dialled.
type EndpointPolicy = endpoint.Policy

// The defaults of a Config.
const (
	DefaultHeartbeat = 5 * time.Second
	DefaultStopGrace = 10 * time.Second
	DefaultQuota     = 8 << 30
	DefaultGrace     = registrar.DefaultGrace
	DefaultHandoff   = leader.DefaultHandoff
	renewAfter       = 200 * time.Second

	DefaultMaxSnapshots     = api.DefaultMaxSnapshots
	DefaultRegistrationRate = api.DefaultRegistrationRate
	DefaultMaxProducers     = api.DefaultMaxProducers
	DefaultMaxLabelBytes    = wire.MaxLabelBytes
)

// A Registry is one registry process.
type Registry struct {
	config    Config
	instance  assignment.InstanceID
	feed      *feed.Feed
	registrar *registrar.Registrar
	leader    *leader.Leader
	asker     *witness.Asker
	server    *grpc.Server
	health    *health.Server
	web       http.Handler
	store     *store.Store
}

// New assembles a registry and opens its store. It does not wait for an etcd that
// is not there: the registry is not ready until it has come.
func New(ctx context.Context, c Config) (*Registry, error) {
	if c.Heartbeat == 0 {
		c.Heartbeat = DefaultHeartbeat
	}
	if c.StopGrace == 0 {
		c.StopGrace = DefaultStopGrace
	}
	if c.QuotaBytes == 0 {
		c.QuotaBytes = DefaultQuota
	}
	if c.Metrics == nil {
		c.Metrics = process.NewMetricsRegistry()
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	r := &Registry{config: c, instance: assignment.InstanceID(uuid.NewString()), feed: feed.New(c.Heartbeat)}
	var err error
	if r.store, err = openStore(ctx, c); err != nil {
		return nil, err
	}
	r.assemble() //nolint:contextcheck // the interceptors that it makes take each call's own context
	return r, nil
}

// check refuses what could not work.
func (c *Config) check() error {
	if c.Heartbeat < 0 || c.StopGrace < 0 {
		return fmt.Errorf("heartbeat %v, stop grace %v: want more than 0", c.Heartbeat, c.StopGrace)
	}
	stores := 0
	for _, is := range []bool{c.DataDir != "", c.Memory != nil, c.Etcd != nil} {
		if is {
			stores++
		}
	}
	if stores != 1 {
		return fmt.Errorf("%d of a data directory, an etcd and a store in memory are given: want one", stores)
	}
	if c.MaxSnapshots < 0 || c.RegistrationRate < 0 {
		return fmt.Errorf("%d snapshots, %d registrations a second: want 0 or more", c.MaxSnapshots, c.RegistrationRate)
	}
	if c.MaxProducers < 0 || c.MaxLabelBytes < 0 || c.MaxLabelBytes > DefaultMaxLabelBytes {
		return fmt.Errorf("%d producers, %d bytes of labels: want 0 or more, and at most %d bytes", c.MaxProducers, c.MaxLabelBytes, DefaultMaxLabelBytes)
	}
	if c.SelfID == "" {
		return nil
	}
	if _, err := assignment.ParseProducerID(c.SelfID); err != nil {
		return fmt.Errorf("the registry's own producer id: %w", err)
	}
	if _, err := endpoint.Parse(c.SelfEndpoint); err != nil {
		return fmt.Errorf("the registry's own endpoint: %w", err)
	}
	return nil
}

func (r *Registry) assemble() {
	c := r.config
	metrics, leaderMetrics, apiMetrics := registrar.NewMetrics(), leader.NewMetrics(), api.NewMetrics()
	c.Metrics.MustRegister(metrics, leaderMetrics, apiMetrics)
	porter := auth.Assemble(c.Access, "", c.Logger, c.Metrics)
	r.registrar = registrar.New(registrar.Config{
		Store:       r.store,
		Feed:        r.feed,
		Instance:    r.instance,
		SameStored:  api.SameStored,
		CheckStored: api.CheckStored,
		MarksOf:     api.MarksOf,
		Grace:       c.Times.Grace,
		Logger:      c.Logger,
		Metrics:     metrics,
	})
	if c.DialCollector == nil {
		c.DialCollector = process.DialWithin(endpoint.Policy{Loopback: c.Endpoints.Loopback, Deny: c.Endpoints.Deny})
	}
	r.asker = witness.New(c.DialCollector, c.ClientTLS.Credentials())
	r.leader = leader.New(leader.Config{
		Registrar:  r.registrar,
		Asker:      r.asker,
		Instance:   r.instance,
		IntervalOf: api.IntervalOf,
		Times:      c.Times,
		Logger:     c.Logger,
		Metrics:    leaderMetrics,
	})
	r.server, r.health = process.NewGRPCServer(process.GRPCConfig{
		Logger:     c.Logger,
		Registerer: c.Metrics,
		Tap:        porter.Tap(),
		Unary:      []grpc.UnaryServerInterceptor{porter.Unary(), api.UnaryErrors(c.Logger)},
		Stream:     []grpc.StreamServerInterceptor{porter.Stream(), api.StreamErrors(c.Logger)},
		Options:    []grpc.ServerOption{grpc.ForceServerCodecV2(wire.Codec())},

		TLS:           c.ServerTLS,
		Introspection: c.Introspection,
	})
	api.New(api.Config{
		Registrar:  r.registrar,
		Instance:   r.instance,
		Endpoints:  c.Endpoints,
		RenewAfter: renewAfter,
		Heartbeat:  c.Heartbeat,

		MaxSnapshots:     c.MaxSnapshots,
		RegistrationRate: c.RegistrationRate,
		MaxProducers:     c.MaxProducers,
		MaxLabelBytes:    c.MaxLabelBytes,

		Logger:  c.Logger,
		Metrics: apiMetrics,
	}).Register(r.server)
	r.assembleWeb(porter)
}

func (r *Registry) assembleWeb(porter *auth.Porter) {
	c := r.config
	web := http.NewServeMux()
	probes := http.NewServeMux()
	process.AddProbes(probes, c.Metrics, r.ready)
	web.Handle("/", probes)
	if c.SelfID != "" {
		web.Handle("/metrics", producer.Identify(c.SelfID, probes))
	}
	if c.Introspection {
		process.AddProfiles(web)
	}
	r.web = porter.Handler(web)
}

// ready is nil once the roll is known.
func (r *Registry) ready() error {
	if !r.registrar.Serving() {
		return errors.New("the roll is not known yet")
	}
	return nil
}

// Run serves until ctx ends, then stops: subscribers are told to go, streams
// end, the servers drain, the store is closed.
func (r *Registry) Run(ctx context.Context) error {
	c := r.config
	defer r.close(ctx)
	// What serves outlives ctx for the time of the stop; what follows the store
	// outlives what serves.
	inner, stopInner := context.WithCancel(context.WithoutCancel(ctx))
	defer stopInner()
	serving, stopServing := context.WithCancelCause(inner)
	defer stopServing(nil)

	engine, inner := errgroup.WithContext(inner)
	engine.Go(func() error { return r.registrar.Run(inner) })
	engine.Go(func() error { return r.leader.Run(inner) })

	servers, serving := errgroup.WithContext(serving)
	servers.Go(func() error { return process.ServeGRPC(serving, r.server, c.Listener, c.StopGrace) })
	if c.HTTPListener != nil {
		servers.Go(func() error {
			return process.ServeHTTP(serving, r.web, process.SecureHTTP(c.HTTPListener, c.ServerTLS), c.StopGrace, c.Logger)
		})
	}
	servers.Go(func() error { return r.announce(serving) })
	c.Logger.InfoContext(ctx, "the registry runs", "address", c.Listener.Addr().String(), "version", process.Version, "instance", r.instance)

	select {
	case <-ctx.Done():
		r.dismiss(ctx)
	case <-inner.Done(): // the registrar gave up
	case <-serving.Done(): // a server gave up
	}
	stopServing(context.Canceled)
	err := servers.Wait()
	stopInner()
	err = errors.Join(err, engine.Wait())
	c.Logger.InfoContext(ctx, "the registry has stopped", "error", err)
	return err
}

// dismiss tells subscribers to go elsewhere. The window within which they come
// back grows with their number.
func (r *Registry) dismiss(ctx context.Context) {
	n := r.feed.Subscribers()
	r.config.Logger.InfoContext(ctx, "stopping", "subscribers", n)
	r.health.Shutdown()
	r.feed.Dismiss(assignment.GoAway{
		Reason:        1,
		Message:       "the registry is stopping",
		RetryAfterMax: feed.Spread(n),
	}, roster.Refuse(roster.Unavailable, roster.ReasonNotServing, "the registry is stopping"))
}

func (r *Registry) close(ctx context.Context) {
	if err := errors.Join(r.asker.Close(), r.store.Close()); err != nil {
		r.config.Logger.WarnContext(ctx, "could not close the store", "error", err)
	}
}

// announce keeps the health status of the services and the registry's own
// registration as a producer.
func (r *Registry) announce(ctx context.Context) error {
	poll := time.NewTicker(time.Second)
	defer poll.Stop()
	var registered time.Time
	r.report(healthv1.HealthCheckResponse_NOT_SERVING)
	for ctx.Err() == nil && r.registrar.AwaitServing(ctx) == nil {
		r.report(healthv1.HealthCheckResponse_SERVING)
		if r.config.SelfID != "" && time.Since(registered) > renewAfter && r.registerSelf(ctx) == nil {
			registered = time.Now()
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
		}
		if !r.registrar.Serving() {
			r.report(healthv1.HealthCheckResponse_NOT_SERVING)
		}
	}
	return nil
}

// report sets the health of every service. That of the process as a whole, the
// empty name, stays as it is: it lives.
func (r *Registry) report(status healthv1.HealthCheckResponse_ServingStatus) {
	for name := range r.server.GetServiceInfo() {
		r.health.SetServingStatus(name, status)
	}
}

func (r *Registry) registerSelf(ctx context.Context) error {
	a := &assignment.Assignment{
		Permanent:  true,
		ProducerID: assignment.ProducerID(r.config.SelfID),
		Endpoint:   r.config.SelfEndpoint,
		Interval:   wire.DefaultInterval,
		Timeout:    wire.DefaultTimeout,
		Labels:     []assignment.Label{{Name: "job", Value: "rollcall-registry"}},
	}
	result := r.registrar.RegisterProducers(ctx, []registrar.RegisterProducer{{
		ID: a.ProducerID, Stored: wire.EncodeStored(a), Life: roster.Life{Permanent: true},
	}})[0]
	if result.Err != nil {
		r.config.Logger.WarnContext(ctx, "could not register itself as a producer", "error", result.Err)
	}
	return result.Err
}
