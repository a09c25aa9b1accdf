// Command collector runs a Rollcall collector: it follows the registry, collects
// from the producers that it is assigned, stores the samples and answers queries.
//
// Its invariant: it starts only with a configuration in which nothing is in
// doubt; otherwise it ends with one line that says what is. Whether a registry
// can be reached is no part of that.
package main

import (
	"context"
	"errors"
	"os"
	"runtime/debug"
	"time"
	"unicode/utf8"

	"github.com/alecthomas/kong"
	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"

	// The authorities that everybody trusts, for where the system has none, as in an
	// image. Those of the system are taken alone.
	_ "golang.org/x/crypto/x509roots/fallback"
)

const description = `A collector of Rollcall: it follows the registry, collects metrics from the
producers that it is assigned, stores the samples and answers Prometheus queries.

  collector --id collector-1 --data-dir /var/lib/rollcall

It keeps its last assignment in the data directory and goes on with it when it
starts while no registry can be reached. One process at a time uses a directory.
Every flag is also an environment variable, named behind it. "collector health" asks
a running one whether it is ready.

Exit codes: 0 stopped as asked, 1 failed, 2 refused its configuration.`

type flags struct {
	ID       string   `required:"" group:"follow" help:"The name of this collector. It stays the same when the process, its address or its version changes."`
	Registry []string `default:"127.0.0.1:7470" group:"follow" placeholder:"ADDRESS" help:"host:port of a registry's gRPC (repeatable); each try takes the next one. Default: ${default}."`

	Config string `group:"produce" placeholder:"FILE" help:"Relabel, limit and authenticate as this YAML file says; SIGHUP reads it again. Files that it names are relative to its directory, and are read again with it. Default: none."`

	Capacity float64 `default:"0" group:"follow" placeholder:"RATE" help:"How many samples a second this collector is made for, for the registry that shares out the producers; 0 is not told, and then it gets as many as the others."`
	Zone     string  `group:"follow" help:"Where this collector stands, for the registry. Default: not told."`

	DataDir          string        `required:"" group:"data" placeholder:"DIR" help:"Keep the last assignment and the samples in this directory; it is made if it is missing. There is no default: a collector that starts in the wrong place has forgotten whom to collect."`
	Retention        time.Duration `default:"360h" group:"data" help:"Keep samples for this long, at least 2h; 360h is 15 days."`
	RetentionBytes   int64         `default:"0" group:"data" help:"Drop the oldest samples when all take more bytes than this; 0 is no bound."`
	OutOfOrderWindow time.Duration `default:"10m" group:"data" help:"Take a sample that is this much older than the newest one, after a newer one of its series: both collectors of a handoff write for a while. 0 takes none."`
	Store            bool          `default:"true" negatable:"" group:"data" help:"Keep samples here and answer queries. Without, samples go to the sinks only."`

	process.ServeFlags

	Advertise string `group:"serve" placeholder:"ADDRESS" help:"host:port at which others reach this collector's gRPC address. Default: --listen."`

	MaxProducers int `default:"1000000" group:"produce" help:"Refuse an assignment of more producers than this."`

	process.EndpointFlags

	AdvertiseHTTP string `name:"advertise-http" group:"self" placeholder:"ADDRESS" help:"host:port at which collectors reach this collector's HTTP address. Default: --http-listen."`
	SelfRegister  bool   `default:"true" negatable:"" group:"self" help:"Register this collector as the producer rollcall/collector/ID."`

	process.LogFlags

	Version kong.VersionFlag `env:"-" help:"Print the version and exit."`
}

func main() {
	const listen = "127.0.0.1:7480"
	os.Exit(process.ExecuteNamed("collector", map[string]process.Command{
		"": {Flags: &flags{}, Description: description, Options: []kong.Option{process.Groups(), kong.Vars{
			"listen":      listen,
			"http_listen": "127.0.0.1:7481",
			"web":         "Prometheus's query API (/api/v1), /metrics, /healthz and /readyz",
		}}},
		"health": process.Health(listen, "rollcall.collector.v1.CollectionService"),
		"drain":  {Flags: &drainFlags{}, Description: drainDescription},
	}))
}

// Run collects and serves until ctx ends.
func (f *flags) Run(ctx context.Context) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collector.GCPercent)
	}
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
	config.ClientTLS, config.ProducerTLS, config.Introspection = doors.Peers, doors.Producers, doors.Introspection
	var hangups <-chan os.Signal
	if f.Config != "" { // without, a hangup ends the process
		hangups = process.Hangups(ctx)
	}
	c, err := collector.New(ctx, config)
	if errors.Is(err, collector.ErrConfiguration) {
		err = process.Refusef("--config: %w", err)
	}
	if err != nil {
		return errors.Join(err, config.Listener.Close(), config.HTTPListener.Close())
	}
	doors.Announce(ctx, config.Logger)
	go reload(ctx, c, hangups)
	return c.Run(ctx)
}

// reload reads the configuration again at every signal.
func reload(ctx context.Context, c *collector.Collector, hangups <-chan os.Signal) {
	for {
		select {
		case <-hangups:
			_ = c.Reload() // it is logged and shown; the configuration before stays
		case <-ctx.Done():
			return
		}
	}
}

// config checks the flags.
func (f *flags) config() (collector.Config, error) {
	c := collector.Config{
		ID:             f.ID,
		Registries:     f.Registry,
		DataDir:        f.DataDir,
		ConfigFile:     f.Config,
		MaxProducers:   f.MaxProducers,
		Capacity:       f.Capacity,
		Zone:           f.Zone,
		Retention:      f.Retention,
		RetentionBytes: f.RetentionBytes,
		NoStore:        !f.Store,
		StopGrace:      f.StopGrace,
	}
	if c.OutOfOrderWindow = f.OutOfOrderWindow; c.OutOfOrderWindow == 0 {
		c.OutOfOrderWindow = -1 // not the default, none
	}
	if err := f.Check(); err != nil {
		return c, err
	}
	var err error
	if c.Endpoints, err = f.Policy(&f.ServeFlags); err != nil {
		return c, err
	}
	if err := checkFollow(f.ID, f.Registry); err != nil {
		return c, err
	}
	switch {
	case f.DataDir == "":
		return c, process.Refusef("--data-dir is empty")
	case f.Retention < minRetention:
		return c, process.Refusef("--retention %v: want at least %v", f.Retention, minRetention)
	case f.RetentionBytes < 0:
		return c, process.Refusef("--retention-bytes %d is negative", f.RetentionBytes)
	case f.OutOfOrderWindow < 0 || f.OutOfOrderWindow > f.Retention:
		return c, process.Refusef("--out-of-order-window %v: want 0 to --retention", f.OutOfOrderWindow)
	case !(f.Capacity >= 0 && f.Capacity <= wire.MaxCapacity): // NaN is neither
		return c, process.Refusef("--capacity %v: want 0 to %v", f.Capacity, wire.MaxCapacity)
	case len(f.Zone) > wire.MaxZoneBytes || !utf8.ValidString(f.Zone):
		return c, process.Refusef("--zone %.128q: want at most %d bytes of UTF-8", f.Zone, wire.MaxZoneBytes)
	case f.MaxProducers <= 0:
		return c, process.Refusef("--max-producers %d: want more than 0", f.MaxProducers)
	}
	return c, f.addresses(&c)
}

// checkFollow refuses a name or an address of a registry that is none.
func checkFollow(id string, registries []string) error {
	for _, address := range registries {
		if _, err := process.Advertised("--registry", address, ""); err != nil || address == "" {
			return process.Refusef("--registry %q: want host:port", address)
		}
	}
	if _, err := assignment.ParseCollectorID(id); err != nil {
		return process.Refusef("--id: %w", err)
	}
	return nil
}

// minRetention is the span of the store's smallest block.
const minRetention = 2 * time.Hour

// addresses are those at which others reach this collector.
func (f *flags) addresses(c *collector.Config) error {
	var err error
	if c.Advertise, err = process.Advertised("--advertise", f.Advertise, f.Listen); err != nil || !f.SelfRegister {
		return err
	}
	address, err := process.Advertised("--advertise-http", f.AdvertiseHTTP, f.HTTPListen)
	if err != nil {
		return err
	}
	c.SelfID, c.SelfEndpoint = "rollcall/collector/"+f.ID, f.Scheme()+"://"+address+"/metrics"
	if _, err := assignment.ParseProducerID(c.SelfID); err != nil {
		return process.Refusef("--id: as a producer this collector would be %s: %w (see --no-self-register)", c.SelfID, err)
	}
	return nil
}
