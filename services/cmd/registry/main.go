// Command registry runs a Rollcall registry: it knows every producer of metrics
// and every collector, gives each producer to a collector, and tells each
// collector which are its own.
//
// Its invariant: it starts only with a configuration in which nothing is in
// doubt; otherwise it ends with one line that says what is.
package main

import (
	"context"
	"errors"
	"os"
	"strconv"
	"time"

	"github.com/alecthomas/kong"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"github.com/rollcall-metrics/rollcall/services/registry"

	// The authorities that everybody trusts, for where the system has none, as in an
	// image. Those of the system are taken alone.
	_ "golang.org/x/crypto/x509roots/fallback"
)

const description = `The registry of Rollcall: it knows every producer of metrics and every collector,
gives each producer to a collector, and streams each collector its assignments.

  registry --data-dir /var/lib/rollcall

It keeps the roll in a store of its own in the data directory, which one process
at a time uses, or in an etcd that is there already. Any number of registries
share one etcd, and each serves everything:

  registry --name a --etcd-endpoints https://e1:2379,https://e2:2379,https://e3:2379

Every flag is also an environment variable, named behind it. "registry health" asks
a running one whether it is ready.

Exit codes: 0 stopped as asked, 1 failed, 2 refused its configuration.`

type flags struct {
	DataDir         string `group:"data" placeholder:"DIR" help:"Keep the roll in this directory; it is made if it is missing. There is no default: a registry that starts in the wrong place has forgotten everybody."`
	StoreQuotaBytes int64  `default:"${quota}" group:"data" help:"Refuse registrations when the store in --data-dir takes more bytes than this, history included."`

	etcdFlags

	process.ServeFlags

	Heartbeat time.Duration `default:"${heartbeat}" group:"lead" help:"Time between two heartbeats to a collector, 100ms to 5m. A collector that hears nothing for three of them subscribes anew."`

	CollectorGrace time.Duration `default:"${grace}" group:"lead" help:"How long a collector may be without a subscription before its producers are handed to others, 5s to 1h. Twice that when more than half are."`
	HandoffTimeout time.Duration `default:"${handoff}" group:"lead" help:"How long a new collector may take to collect what it was given, 10s to 1h, two intervals of the producer at least."`
	MaxSnapshots   int           `default:"${snapshots}" group:"lead" help:"Send the whole set, or buckets of it, to at most this many collectors at a time, each of which takes about 300 KiB. Others are told when to come back; those that hold it all already are never kept waiting."`

	RegistrationRate int `default:"${registrations}" group:"produce" help:"Take at most this many registrations and renewals a second from one address, of which five seconds' worth may come at once; others are told when to come back. 0: as many as come."`

	MaxProducersPerIdentity int `default:"${producers}" group:"produce" help:"Take new producers from one identity until this many count for it, where its rule in --access does not say (max_producers). Known ones renew whatever this says, and those of operators count for nobody. 0: as many as come."`
	MaxLabelBytes           int `default:"${labels}" group:"produce" help:"Take producers whose labels, names and values, have at most this many bytes in all, 1 to ${labels}. Known ones may keep what they have."`

	process.EndpointFlags

	AdvertiseHTTP string `name:"advertise-http" group:"self" placeholder:"ADDRESS" help:"host:port at which collectors reach this registry's HTTP address. Default: --http-listen."`
	Name          string `default:"registry" group:"self" help:"Register as the producer rollcall/NAME. Give each registry another one."`
	SelfRegister  bool   `default:"true" negatable:"" group:"self" help:"Register this registry as a producer."`

	process.LogFlags

	Version kong.VersionFlag `env:"-" help:"Print the version and exit."`
}

func main() {
	const listen = "127.0.0.1:7470"
	os.Exit(process.ExecuteNamed("registry", map[string]process.Command{
		"": {Flags: &flags{}, Description: description, Options: []kong.Option{process.Groups(), kong.Vars{
			"listen":      listen,
			"http_listen": "127.0.0.1:7471",
			"web":         "/metrics, /healthz and /readyz",
			"quota":       "8589934592",
			"heartbeat":   registry.DefaultHeartbeat.String(),
			"grace":       registry.DefaultGrace.String(),
			"handoff":     registry.DefaultHandoff.String(),

			"snapshots":     strconv.Itoa(registry.DefaultMaxSnapshots),
			"registrations": strconv.Itoa(registry.DefaultRegistrationRate),
			"producers":     strconv.Itoa(registry.DefaultMaxProducers),
			"labels":        strconv.Itoa(registry.DefaultMaxLabelBytes),
		}}},
		"health": process.Health(listen, "rollcall.registry.v1.AssignmentService"),
	}))
}

// Run serves until ctx ends.
func (f *flags) Run(ctx context.Context) error {
	config, err := f.config()
	if err != nil {
		return err
	}
	if config.Logger, err = f.Logger(os.Stderr); err != nil {
		return err
	}
	config.Metrics = process.NewMetricsRegistry()
	doors, err := f.Open(ctx, config.Logger, config.Metrics)
	if err != nil {
		return err
	}
	config.Listener, config.HTTPListener, config.ServerTLS = doors.GRPC, doors.HTTP, doors.Server
	config.Access = doors.Access
	config.ClientTLS, config.Introspection = doors.Peers, doors.Introspection
	r, err := registry.New(ctx, config)
	if err != nil {
		err = errors.Join(err, config.Listener.Close(), config.HTTPListener.Close())
		if ctx.Err() != nil {
			return nil //nolint:nilerr // asked to stop before it had started
		}
		return err
	}
	doors.Announce(ctx, config.Logger)
	return r.Run(ctx)
}

// maxRegistrationRate is more than any registry could take.
const maxRegistrationRate = 10_000_000

// The bounds within which collectors follow a heartbeat.
const (
	minHeartbeat = 100 * time.Millisecond
	maxHeartbeat = 5 * time.Minute
)

// config checks the flags.
func (f *flags) config() (registry.Config, error) {
	c := registry.Config{
		DataDir:    f.DataDir,
		QuotaBytes: f.StoreQuotaBytes,
		Heartbeat:  f.Heartbeat,
		StopGrace:  f.StopGrace,
		Times:      registry.Times{Grace: f.CollectorGrace, Handoff: f.HandoffTimeout},

		MaxSnapshots:     f.MaxSnapshots,
		RegistrationRate: f.RegistrationRate,
		MaxProducers:     f.MaxProducersPerIdentity,
		MaxLabelBytes:    f.MaxLabelBytes,
	}
	if err := f.Check(); err != nil {
		return c, err
	}
	var err error
	if c.Endpoints, err = f.Policy(&f.ServeFlags); err != nil {
		return c, err
	}
	if c.Etcd, err = f.etcd(f.Insecure); err != nil {
		return c, err
	}
	switch {
	case f.DataDir == "" && len(f.EtcdEndpoints) == 0:
		return c, process.Refusef("want --data-dir or --etcd-endpoints: where the roll is kept. There is no default: a registry that starts in the wrong place has forgotten everybody")
	case f.DataDir != "" && len(f.EtcdEndpoints) > 0:
		return c, process.Refusef("--data-dir and --etcd-endpoints: the roll is in one of the two; which?")
	case f.StoreQuotaBytes <= 0:
		return c, process.Refusef("--store-quota-bytes %d: want more than 0", f.StoreQuotaBytes)
	case f.Heartbeat < minHeartbeat || f.Heartbeat > maxHeartbeat:
		return c, process.Refusef("--heartbeat %v: want %v to %v", f.Heartbeat, minHeartbeat, maxHeartbeat)
	case f.CollectorGrace < 5*time.Second || f.CollectorGrace > time.Hour:
		return c, process.Refusef("--collector-grace %v: want 5s to 1h", f.CollectorGrace)
	case f.HandoffTimeout < 10*time.Second || f.HandoffTimeout > time.Hour:
		return c, process.Refusef("--handoff-timeout %v: want 10s to 1h", f.HandoffTimeout)
	case f.MaxSnapshots <= 0:
		return c, process.Refusef("--max-snapshots %d: want more than 0", f.MaxSnapshots)
	case f.RegistrationRate < 0 || f.RegistrationRate > maxRegistrationRate:
		return c, process.Refusef("--registration-rate %d: want 0 to %d", f.RegistrationRate, maxRegistrationRate)
	case f.MaxProducersPerIdentity < 0:
		return c, process.Refusef("--max-producers-per-identity %d: want 0 or more", f.MaxProducersPerIdentity)
	case f.MaxLabelBytes < 1 || f.MaxLabelBytes > registry.DefaultMaxLabelBytes:
		return c, process.Refusef("--max-label-bytes %d: want 1 to %d", f.MaxLabelBytes, registry.DefaultMaxLabelBytes)
	case !f.SelfRegister:
		return c, nil
	}
	return c, f.self(&c)
}

// self is how the registry registers itself as a producer.
func (f *flags) self(c *registry.Config) error {
	address, err := process.Advertised("--advertise-http", f.AdvertiseHTTP, f.HTTPListen)
	if err != nil {
		return err
	}
	c.SelfID, c.SelfEndpoint = "rollcall/"+f.Name, f.Scheme()+"://"+address+"/metrics"
	if _, err := assignment.ParseProducerID(c.SelfID); err != nil || f.Name == "" {
		return process.Refusef("--name %q: %q is no producer id: letters, digits and ._:/- are allowed, 128 in all", f.Name, c.SelfID)
	}
	u, err := endpoint.Parse(c.SelfEndpoint)
	if err == nil {
		err = c.Endpoints.CheckURL(u)
	}
	if err != nil {
		return process.Refusef("this registry cannot be a producer at %s: %w (see --advertise-http, --allow-endpoint-range, --allow-loopback-endpoints, --no-self-register)", c.SelfEndpoint, err)
	}
	return nil
}
