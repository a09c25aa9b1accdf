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
	"net/netip"
	"os"
	"strconv"
	"time"

	"github.com/alecthomas/kong"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"github.com/rollcall-metrics/rollcall/services/registry"
)

const description = `The registry of Rollcall: it knows every producer of metrics and every collector,
gives each producer to a collector, and streams each collector its assignments.

  registry --data-dir /var/lib/rollcall

It keeps the roll in a store of its own in the data directory, which one process
at a time uses, or in an etcd that is there already. Any number of registries
share one etcd, and each serves everything:

  registry --name a --etcd-endpoints https://e1:2379,https://e2:2379,https://e3:2379

Every flag is also an environment variable, named behind it.

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

	AllowEndpointRange []netip.Prefix `group:"produce" placeholder:"CIDR" help:"Take only endpoints with addresses in these ranges (repeatable). Default: all but link-local, multicast and unspecified addresses. Names are checked by the collector when it dials."`

	AdvertiseHTTP string `name:"advertise-http" group:"self" placeholder:"ADDRESS" help:"host:port at which collectors reach this registry's HTTP address. Default: --http-listen."`
	Name          string `default:"registry" group:"self" help:"Register as the producer rollcall/NAME. Give each registry another one."`
	SelfRegister  bool   `default:"true" negatable:"" group:"self" help:"Register this registry as a producer."`

	process.LogFlags

	Version kong.VersionFlag `env:"-" help:"Print the version and exit."`
}

func main() {
	os.Exit(process.Execute(&flags{}, "registry", description, process.Groups(), kong.Vars{
		"listen":      "127.0.0.1:7470",
		"http_listen": "127.0.0.1:7471",
		"web":         "/metrics, /healthz and /readyz",
		"quota":       "8589934592",
		"heartbeat":   registry.DefaultHeartbeat.String(),
		"grace":       registry.DefaultGrace.String(),
		"handoff":     registry.DefaultHandoff.String(),

		"snapshots":     strconv.Itoa(registry.DefaultMaxSnapshots),
		"registrations": strconv.Itoa(registry.DefaultRegistrationRate),
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
	if config.Listener, config.HTTPListener, err = f.Open(ctx); err != nil {
		return err
	}
	r, err := registry.New(ctx, config)
	if err != nil {
		err = errors.Join(err, config.Listener.Close(), config.HTTPListener.Close())
		if ctx.Err() != nil {
			return nil //nolint:nilerr // asked to stop before it had started
		}
		return err
	}
	config.Logger.InfoContext(ctx, "listening", "grpc", config.Listener.Addr().String(), "http", config.HTTPListener.Addr().String())
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
		DataDir:     f.DataDir,
		QuotaBytes:  f.StoreQuotaBytes,
		AllowRanges: f.AllowEndpointRange,
		Heartbeat:   f.Heartbeat,
		StopGrace:   f.StopGrace,
		Times:       registry.Times{Grace: f.CollectorGrace, Handoff: f.HandoffTimeout},

		MaxSnapshots:     f.MaxSnapshots,
		RegistrationRate: f.RegistrationRate,
	}
	if err := f.Check(); err != nil {
		return c, err
	}
	if err := process.CheckRanges("--allow-endpoint-range", f.AllowEndpointRange); err != nil {
		return c, err
	}
	var err error
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
	c.SelfID, c.SelfEndpoint = "rollcall/"+f.Name, "http://"+address+"/metrics"
	if _, err := assignment.ParseProducerID(c.SelfID); err != nil || f.Name == "" {
		return process.Refusef("--name %q: %q is no producer id: letters, digits and ._:/- are allowed, 128 in all", f.Name, c.SelfID)
	}
	u, err := endpoint.Parse(c.SelfEndpoint)
	if err == nil {
		err = endpoint.Policy{Allow: f.AllowEndpointRange}.CheckURL(u)
	}
	if err != nil {
		return process.Refusef("this registry cannot be a producer at %s: %w (see --advertise-http, --allow-endpoint-range, --no-self-register)", c.SelfEndpoint, err)
	}
	return nil
}
