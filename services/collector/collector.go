// Package collector is a collector, assembled: it follows the registry, collects
// its producers on their intervals, stores the samples and answers queries.
//
// Its invariant: it collects whatever it was last told to, from the moment its
// state file is loaded until it is told otherwise by a sealed snapshot; whether
// a registry can be reached changes nothing.
package collector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
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
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"github.com/rollcall-metrics/rollcall/services/producer"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
)

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

	// AllowRanges are the only address ranges that are pulled; empty: any but
	// link-local, multicast and unspecified addresses.
	AllowRanges []netip.Prefix

	// MaxProducers bounds the set; 0: 1,000,000.
	MaxProducers int

	// Retention and RetentionBytes bound the embedded store; 0: 15 days, no
	// bound.
	Retention      time.Duration
	RetentionBytes int64

	// StopGrace bounds the stop; 0: 10 s.
	StopGrace time.Duration

	Logger  *slog.Logger
	Metrics *prometheus.Registry

	// DialRegistry, DialPeer (to the other collectors) and DialProducer make
	// connections; nil: TCP.
	DialRegistry func(ctx context.Context, address string) (net.Conn, error)
	DialPeer     func(ctx context.Context, address string) (net.Conn, error)
	DialProducer func(ctx context.Context, network, address string) (net.Conn, error)

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
	DefaultMaxProducers = 1_000_000
	DefaultRetention    = 15 * 24 * time.Hour
	DefaultStopGrace    = 10 * time.Second
	outOfOrderWindow    = 10 * time.Minute
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
	tsdb     *sink.TSDB // nil with Config.Sink
	scraper  *scrape.Scraper
	schedule *schedule.Schedule
	members  *membership.Membership
	follower *follow.Follower
	fleet    *peers.Fleet // nil with Config.Sink
	server   *grpc.Server
	web      *http.ServeMux

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
	state, err := k.open()
	if err == nil {
		err = k.assemble(state, first)
	}
	if err != nil {
		k.close()
		return nil, err
	}
	return k, nil
}

// open opens what is on disk.
func (k *Collector) open() (*statefile.State, error) {
	c := k.config
	file, state, err := statefile.Open(statefile.Config{
		Dir:          filepath.Join(c.DataDir, "state"),
		Collector:    assignment.CollectorID(c.ID),
		MaxProducers: c.MaxProducers,
		Logger:       c.Logger,
		FS:           c.StateFS,
	})
	if err != nil {
		return nil, fmt.Errorf("open the state: %w", err)
	}
	k.state = file
	if c.Sink != nil {
		return state, nil
	}
	k.tsdb, err = openSamples(c)
	if err != nil {
		return nil, fmt.Errorf("open the sample store: %w", err)
	}
	return state, nil
}

// openSamples opens the sample store. One that is damaged is put aside: what is
// collected from now on matters more than that nothing is collected.
func openSamples(c Config) (*sink.TSDB, error) {
	config := sink.TSDBConfig{
		Dir:              filepath.Join(c.DataDir, "tsdb"),
		Retention:        c.Retention,
		RetentionBytes:   c.RetentionBytes,
		OutOfOrderWindow: outOfOrderWindow,
		Logger:           c.Logger,
		Registerer:       c.Metrics,
	}
	db, err := sink.OpenTSDB(config)
	if err == nil || errors.Is(err, sink.ErrLocked) {
		return db, err
	}
	aside := config.Dir + ".damaged"
	c.Logger.Error("the sample store cannot be opened and is put aside", "dir", config.Dir, "aside", aside, "error", err)
	if err := errors.Join(os.RemoveAll(aside), os.Rename(config.Dir, aside)); err != nil {
		return nil, err
	}
	return sink.OpenTSDB(config)
}

func (k *Collector) assemble(state *statefile.State, first *settings.Settings) error {
	c := k.config
	k.assembleCollecting(state, setupOf(first))
	k.assembleConfiguration(first)
	k.server, _ = process.NewGRPCServer(process.GRPCConfig{Logger: c.Logger, Registerer: c.Metrics})
	api.New(api.Config{
		Collector:    assignment.CollectorID(c.ID),
		Instance:     k.instance,
		Members:      k.members,
		Collections:  k.schedule,
		Subscription: k.subscription,
		Testify:      k.schedule.Testify,
		Selector:     k.selector(),

		Configuration: k.configuration,
	}).Register(k.server)
	k.web = http.NewServeMux()
	process.AddProbes(k.web, c.Metrics, func() error { return nil })
	if c.SelfID != "" {
		probes := k.web
		k.web = http.NewServeMux()
		k.web.Handle("/", probes)
		k.web.Handle("/metrics", producer.Identify(c.SelfID, probes))
	}
	if k.tsdb == nil {
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
	var samples Sink = k.tsdb
	if c.Sink != nil {
		samples = c.Sink
	}
	k.scraper = scrape.New(scrape.Config{
		Sink:        samples,
		Setup:       setup,
		DialContext: c.DialProducer,
		CheckAddr:   endpoint.Policy{Allow: c.AllowRanges}.CheckAddr,
		CollectorID: assignment.CollectorID(c.ID),
		UserAgent:   "rollcall-collector/" + process.Version,
		Logger:      c.Logger,
		Metrics:     scrapes,
	})
	k.schedule = schedule.New(schedule.Config{
		Opener:   k.scraper,
		Metrics:  collections,
		Panicked: k.panicked,
		Now:      c.Now,

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
	group.Go(func() error { return k.schedule.Run(ctx) })
	group.Go(func() error { return k.members.Run(ctx) })
	group.Go(func() error { return k.follower.Run(ctx) })
	group.Go(func() error { return process.ServeGRPC(ctx, k.server, c.Listener, c.StopGrace) })
	if c.HTTPListener != nil {
		group.Go(func() error { return process.ServeHTTP(ctx, k.web, c.HTTPListener, c.StopGrace, c.Logger) })
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

// close closes what is on disk, last of all.
func (k *Collector) close() {
	if k.scraper != nil {
		k.scraper.Close()
	}
	if k.fleet != nil {
		k.fleet.Close()
	}
	if k.tsdb != nil {
		if err := k.tsdb.Close(); err != nil {
			k.config.Logger.Error("could not close the sample store", "error", err)
		}
	}
	if k.state != nil {
		if err := k.state.Close(); err != nil {
			k.config.Logger.Error("could not close the state", "error", err)
		}
	}
}

func (k *Collector) panicked(id assignment.ProducerID, value any, stack []byte) {
	k.config.Logger.Error("a collection panicked", "producer", id, "panic", fmt.Sprint(value), "stack", string(stack))
}

func (k *Collector) subscription() api.Subscription {
	s := k.follower.Status()
	return api.Subscription{Live: s.Subscribed, Address: s.Address, Generation: s.Generation, LastError: s.LastError}
}
