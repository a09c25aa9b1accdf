// Package collector is a collector, assembled: it follows the registry, collects
// its producers on their intervals, stores the samples and answers queries.
//
// Its invariant: it collects whatever it was last told to, from the moment its
// state file is loaded until it is told otherwise by a sealed snapshot; whether
// a registry can be reached changes nothing.
package collector

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
	"github.com/rollcall-metrics/rollcall/services/collector/internal/api"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/follow"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/membership"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/peers"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/query"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/scrape"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/settings"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sink"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/statefile"
	"github.com/rollcall-metrics/rollcall/services/internal/access"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/auth"
	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"github.com/rollcall-metrics/rollcall/services/producer"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// An EndpointPolicy says which addresses may be dialled.
type EndpointPolicy = endpoint.Policy

// What a test may put in the place of the real thing.
type (
	// A Sink takes what was collected.
	Sink = scrape.Sink

	// A Batch is what one collection yields.
	Batch = sample.Batch

	// A StateFS is the file system of the state file.
	StateFS = statefile.FS

	// A StateHandle is an open file of a StateFS.
	StateHandle = statefile.Handle
)

// Config says how a collector runs.
type Config struct {
	// ID names the collector; it stays the same when the process is replaced.
	ID string

	// Registries are the registry's addresses, host:port.
	Registries []string

	// DataDir is where the state file and the samples are kept.
	DataDir string

	// ConfigFile says how targets and series are relabeled, and has the limits and
	// credentials; empty for none. Relative paths in it begin at its directory.
	ConfigFile string

	// Listener is where gRPC is served, HTTPListener where queries, metrics and
	// probes are. The collector closes both.
	Listener     net.Listener
	HTTPListener net.Listener

	// Advertise is where this collector's gRPC answers, host:port, as others
	// reach it.
	Advertise string

	// Capacity is how many samples a second this collector is made for, 0 when
	// that is not told; Zone is where it stands, empty when that is not told. Both
	// are for the registry, which shares out the producers.
	Capacity float64
	Zone     string

	// SelfID and SelfEndpoint register the collector itself as a producer.
	// Empty: it does not.
	SelfID       string
	SelfEndpoint string

	// Endpoints says which addresses are pulled. Its Loopback is for other
	// collectors, too, which tell their own addresses.
	Endpoints EndpointPolicy

	// MaxProducers bounds the set; 0: 1,000,000.
	MaxProducers int

	// Retention and RetentionBytes bound the embedded store; 0: 15 days, no
	// bound.
	Retention      time.Duration
	RetentionBytes int64

	// OutOfOrderWindow is how much older than the newest sample one may be that
	// comes after a newer one of its series; 0: 10 minutes, negative: not at all.
	OutOfOrderWindow time.Duration

	// NoStore leaves out the embedded store: there are no queries then.
	NoStore bool

	// StopGrace bounds the stop; 0: 10 s.
	StopGrace time.Duration

	// ServerTLS is for both listeners, ClientTLS for registries and the other
	// collectors; nil: plain text.
	ServerTLS *tls.Config
	ClientTLS process.ClientTLS

	// ProducerTLS is for https and grpcs endpoints without a credential that says
	// more of it; nil trusts the authorities of the system.
	ProducerTLS process.ClientTLS

	// Introspection serves what shows the inside of the process.
	Introspection bool

	// Access returns the rules of who may do what that hold now, another value
	// when they have changed; nil: everybody may do everything.
	Access func() *access.Rules

	Logger  *slog.Logger
	Metrics *prometheus.Registry

	// DialRegistry, DialPeer (to the other collectors) and DialProducer make
	// connections; nil: TCP.
	DialRegistry func(ctx context.Context, address string) (net.Conn, error)
	DialPeer     func(ctx context.Context, address string) (net.Conn, error)
	DialProducer func(ctx context.Context, network, address string) (net.Conn, error)

	// DialSink makes connections to sinks; nil: TCP.
	DialSink func(ctx context.Context, network, address string) (net.Conn, error)

	// Sink, if set, is used in place of the embedded store; there are no
	// queries then.
	Sink Sink

	// StateFS, if set, is used in place of the operating system.
	StateFS StateFS

	// Now is the wall clock, for tests of clock steps; nil: the system's. Only
	// due times and time stamps follow it.
	Now func() time.Time
}

// The defaults of a Config.
const (
	DefaultMaxProducers     = 1_000_000
	DefaultRetention        = 15 * 24 * time.Hour
	DefaultStopGrace        = 10 * time.Second
	DefaultOutOfOrderWindow = 10 * time.Minute
)

// GCPercent is what a process that is a collector sets by debug.SetGCPercent
// where GOGC says nothing. Nearly all of its heap is series that stay, and little
// garbage comes up beside them: at Go's own 100 the heap is twice what it needs.
const GCPercent = 50

// A Collector is one collector process.
type Collector struct {
	config   Config
	instance assignment.InstanceID

	state    *statefile.File
	tsdb     *sink.TSDB // nil with Config.Sink and Config.NoStore
	sinks    *sinks
	scraper  *scrape.Scraper
	schedule *schedule.Schedule
	members  *membership.Membership
	follower *follow.Follower
	fleet    *peers.Fleet // nil with Config.Sink and Config.NoStore
	server   *grpc.Server
	health   *health.Server
	web      *http.ServeMux
	porter   *auth.Porter

	configuration *configuration
}

// New assembles a collector and loads its state. What it resumes with is
// collected as soon as Run is called.
func New(_ context.Context, c Config) (*Collector, error) {
	if c.MaxProducers == 0 {
		c.MaxProducers = DefaultMaxProducers
	}
	if c.Retention == 0 {
		c.Retention = DefaultRetention
	}
	if c.StopGrace == 0 {
		c.StopGrace = DefaultStopGrace
	}
	if c.Metrics == nil {
		c.Metrics = process.NewMetricsRegistry()
	}
	if _, err := assignment.ParseCollectorID(c.ID); err != nil {
		return nil, fmt.Errorf("collector id: %w", err)
	}
	if len(c.Registries) == 0 {
		return nil, errors.New("no registry address given")
	}
	first, err := loadSettings(c.ConfigFile)
	if err != nil {
		return nil, err
	}
	k := &Collector{config: c, instance: assignment.InstanceID(uuid.NewString())}
	state, err := k.open() //nolint:contextcheck // what it opens outlives the call that opens it
	if err == nil {
		err = k.assembleSinks(first)
	}
	if err == nil {
		err = k.assemble(state, first) //nolint:contextcheck // the interceptors that it makes take each call's own context
	}
	if err != nil {
		k.close()
		return nil, err
	}
	return k, nil
}

func (k *Collector) assemble(state *statefile.State, first *settings.Settings) error {
	c := k.config
	k.assembleCollecting(state, setupOf(first))
	k.assembleConfiguration(first)
	k.porter = auth.Assemble(c.Access, assignment.CollectorID(c.ID), c.Logger, c.Metrics)
	k.server, k.health = process.NewGRPCServer(process.GRPCConfig{
		Logger: c.Logger, Registerer: c.Metrics, TLS: c.ServerTLS, Introspection: c.Introspection,
		Tap:    k.porter.Tap(),
		Unary:  []grpc.UnaryServerInterceptor{k.porter.Unary()},
		Stream: []grpc.StreamServerInterceptor{k.porter.Stream()},
	})
	api.New(api.Config{
		Collector:    assignment.CollectorID(c.ID),
		Instance:     k.instance,
		Members:      k.members,
		Collections:  k.schedule,
		Subscription: k.subscription,
		Testify:      k.schedule.Testify,
		Selector:     k.selector(),
		Store:        k.store(),

		Configuration: k.configuration,
		Sinks:         places{k},
	}).Register(k.server)
	for name := range k.server.GetServiceInfo() {
		k.health.SetServingStatus(name, healthv1.HealthCheckResponse_SERVING) // the state is loaded, and nobody else is needed
	}
	k.web = http.NewServeMux()
	process.AddProbes(k.web, c.Metrics, func() error { return nil })
	if c.SelfID != "" {
		probes := k.web
		k.web = http.NewServeMux()
		k.web.Handle("/", probes)
		k.web.Handle("/metrics", producer.Identify(c.SelfID, probes))
	}
	if c.Introspection {
		process.AddProfiles(k.web)
	}
	if k.tsdb == nil {
		addNoStore(k.web)
		return nil
	}
	k.assembleFleet()
	queries, err := query.New(query.Config{
		Queryable:  k.fleet,
		Exemplars:  k.fleet,
		Store:      k.tsdb,
		Targets:    targets{k},
		Logger:     c.Logger,
		Registerer: c.Metrics,
		Gatherer:   c.Metrics,
		Version:    process.Version,
		Retention:  c.Retention.String(),
	})
	if err != nil {
		return err
	}
	k.web.Handle("/api/v1/", queries)
	addPrometheusProbes(k.web)
	return nil
}

// assembleCollecting makes what follows the registry and what collects.
func (k *Collector) assembleCollecting(state *statefile.State, setup scrape.Setup) {
	c := k.config
	scrapes, collections, set, following := scrape.NewMetrics(), schedule.NewMetrics(), membership.NewMetrics(), follow.NewMetrics()
	c.Metrics.MustRegister(scrapes, collections, set, following)
	k.scraper = scrape.New(scrape.Config{
		Sink:        k.sinks.fanout,
		Setup:       setup,
		DialContext: c.DialProducer,
		TLS:         c.ProducerTLS,
		CheckAddr:   c.Endpoints.CheckAddr,
		CollectorID: assignment.CollectorID(c.ID),
		UserAgent:   "rollcall-collector/" + process.Version,
		Logger:      c.Logger,
		Metrics:     scrapes,
	})
	k.schedule = schedule.New(schedule.Config{
		Opener:    k.scraper,
		StopGrace: c.StopGrace / 4, // the sinks need some of it, too
		Metrics:   collections,
		Panicked:  k.panicked,
		Now:       c.Now,

		TargetCollected: func() { k.follower.TargetCollected() },
	})
	k.members = membership.New(membership.Config{
		Log:          stateLog{k.state},
		Runner:       runner{k.schedule},
		Witness:      witness{k.schedule},
		MaxProducers: c.MaxProducers,
		Logger:       c.Logger,
		Metrics:      set,
	}, membership.State(*state))
	k.follower = follow.New(follow.Config{
		Addresses: c.Registries,
		Dial:      c.DialRegistry,

		Credentials: c.ClientTLS.Credentials(),

		Collector: wire.CollectorInfo{
			ID:                    assignment.CollectorID(c.ID),
			Instance:              k.instance,
			IntrospectionEndpoint: c.Advertise,
			SoftwareVersion:       process.Version,
			Capacity:              c.Capacity,
			Zone:                  c.Zone,
		},
		Members: k.members,
		Holder:  k.members,
		Runner:  running{k.schedule},
		Logger:  c.Logger,
		Metrics: following,
	})
}

// Run collects and serves until ctx ends, then stops within its grace. What was
// collected is stored.
func (k *Collector) Run(ctx context.Context) error {
	c := k.config
	defer k.close()
	c.Logger.InfoContext(ctx, "the collector runs", "collector", c.ID, "address", c.Listener.Addr().String(),
		"version", process.Version, "instance", k.instance, "resumed", k.schedule.Len())
	group, ctx := errgroup.WithContext(ctx)
	context.AfterFunc(ctx, k.health.Shutdown)
	collected := make(chan struct{})
	group.Go(func() error {
		defer close(collected)
		return k.schedule.Run(ctx)
	})
	group.Go(func() error { return k.members.Run(ctx) })
	group.Go(func() error { return k.follower.Run(ctx) })
	group.Go(func() error { return k.sinks.Run(ctx, collected) })
	group.Go(func() error { return process.ServeGRPC(ctx, k.server, c.Listener, c.StopGrace) })
	if c.HTTPListener != nil {
		group.Go(func() error {
			return process.ServeHTTP(ctx, k.porter.Handler(k.web), process.SecureHTTP(c.HTTPListener, c.ServerTLS), c.StopGrace, c.Logger)
		})
	}
	if k.fleet != nil {
		group.Go(func() error { return k.fleet.Run(ctx) })
	}
	if c.SelfID != "" {
		group.Go(func() error { return k.registerSelf(ctx) })
	}
	err := group.Wait()
	c.Logger.InfoContext(ctx, "the collector has stopped", "collector", c.ID, "error", err)
	return err
}

func (k *Collector) panicked(id assignment.ProducerID, value any, stack []byte) {
	k.config.Logger.Error("a collection panicked", "producer", id, "panic", fmt.Sprint(value), "stack", string(stack))
}

func (k *Collector) subscription() api.Subscription {
	s := k.follower.Status()
	return api.Subscription{Live: s.Subscribed, Address: s.Address, Generation: s.Generation, LastError: s.LastError}
}
