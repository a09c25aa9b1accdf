// Command producer is a sidecar: it registers a metrics endpoint that is there
// already, and keeps it registered, for a program that knows nothing of Rollcall.
//
// Its invariant: it starts only with a configuration in which nothing is in
// doubt; otherwise it ends with one line that says what is. Once it runs, neither
// an outage of the registry nor one of the endpoint ends it.
package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/alecthomas/kong"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"github.com/rollcall-metrics/rollcall/services/producer"
)

const description = `A sidecar of Rollcall: it registers a metrics endpoint that is there already, and
keeps it registered, for a program that knows nothing of Rollcall.

  producer --id node/$(hostname) --endpoint http://10.0.0.7:9100/metrics --registry registry:7470

It waits until the endpoint answers, registers it, renews the registration while
the endpoint answers, and takes it off the roll when it is told to stop. Outages
of the registry are waited out. Every flag is also an environment variable, named
behind it. "producer health" asks a running one whether its endpoint is registered,
"producer health --service=" whether it lives.

Exit codes: 0 stopped as asked, 1 failed, 2 refused its configuration, or refused
by the registry: the registration is malformed, another process has registered
the id since, or somebody has deregistered it.`

type flags struct {
	ID       string   `required:"" group:"produce" help:"The producer's id: letters, digits and ._:/-, 128 at most. Each endpoint needs its own, and keeps it when its process is replaced: such as node/HOSTNAME, or NAMESPACE/POD, put together by the shell or the orchestrator."`
	Endpoint string   `required:"" group:"produce" placeholder:"URL" help:"The whole URL of the metrics, http or https, as collectors reach it; or grpc://host:port, grpcs:// over TLS, of one that answers ExpositionService."`
	Registry []string `default:"127.0.0.1:7470" group:"follow" placeholder:"ADDRESS" help:"host:port of a registry's gRPC (repeatable); each try takes the next one. Default: ${default}."`

	Interval         time.Duration     `group:"produce" placeholder:"DURATION" help:"Time between two collections, 100ms to 24h. Default: the registry's, 15s."`
	Timeout          time.Duration     `group:"produce" placeholder:"DURATION" help:"Longest time of one collection, at most the interval. Default: the registry's, 10s or the interval."`
	Label            map[string]string `mapsep:"," group:"produce" placeholder:"NAME=VALUE" help:"Put this label on every series (repeatable, or several with commas between them)."`
	HonorLabels      bool              `group:"produce" help:"Labels of the exposition win over those given here."`
	IgnoreTimestamps bool              `group:"produce" help:"Ignore time stamps of the exposition."`
	Credential       string            `group:"produce" placeholder:"NAME" help:"Ask the endpoint with this credential of the collectors' own configuration."`
	TLSServerName    string            `name:"tls-server-name" group:"produce" placeholder:"NAME" help:"The endpoint's certificate has to be for this name. Default: the URL's host."`
	Zone             string            `group:"produce" help:"A collector of the same zone is preferred."`
	Rate             float64           `group:"produce" placeholder:"COUNT" help:"About how many samples a second it yields, until that is measured."`

	Instance    string        `group:"produce" placeholder:"NAME" help:"Names this process. One that was replaced or deregistered is never taken again, so that each process needs a name of its own. Default: a random one."`
	Permanent   bool          `group:"produce" help:"It has no lease: it goes by deregistration only."`
	Lease       time.Duration `group:"produce" placeholder:"DURATION" help:"How long the registration lives without renewal, 10s to 24h. Default: the registry's, 10m."`
	ExpireAfter time.Duration `group:"produce" placeholder:"DURATION" help:"How long it must neither have been renewed nor have answered its collector before it is struck off. Default: the registry's, 1h or the lease."`

	Wait       bool `default:"true" negatable:"" group:"produce" help:"Register when the endpoint answers this process, and renew only while it does. Without, register at once and renew for as long as this process runs. An answer is 2xx, or 401 or 403: this process has no credential."`
	Deregister bool `default:"true" negatable:"" group:"produce" help:"On SIGTERM or SIGINT, take it off the roll, within --stop-grace. Without, it stays there for the process that comes next."`

	process.ServeFlags
	process.TokenFlags
	process.LogFlags

	Version kong.VersionFlag `env:"-" help:"Print the version and exit."`
}

func main() {
	const listen = "127.0.0.1:7490"
	os.Exit(process.ExecuteNamed("producer", map[string]process.Command{
		"": {Flags: &flags{}, Description: description, Options: []kong.Option{process.Groups(), kong.Vars{
			"listen":      listen,
			"http_listen": "127.0.0.1:7491",
			"web":         "/metrics, /healthz and /readyz",
		}}},
		"health": process.Health(listen, registeredService),
	}))
}

// Run keeps the endpoint registered until ctx ends.
func (f *flags) Run(ctx context.Context) error {
	registration, err := f.registration()
	if err != nil {
		return err
	}
	s := &sidecar{flags: f, registration: registration}
	if s.logger, err = f.Logger(os.Stderr); err != nil {
		return err
	}
	if s.bearer, err = f.Bearer(f.Secured(), f.Insecure); err != nil {
		return err
	}
	s.registry = process.NewMetricsRegistry()
	if s.doors, err = f.Open(ctx, s.logger, s.registry); err != nil {
		return err
	}
	s.doors.Announce(ctx, s.logger)
	err = s.run(ctx)
	if errors.Is(err, producer.ErrRefused) {
		err = process.Refusef("%s: %w", f.ID, err)
	}
	return err
}

// registration checks the flags.
func (f *flags) registration() (producer.Registration, error) {
	r := producer.Registration{
		ID:               f.ID,
		Endpoint:         f.Endpoint,
		Interval:         f.Interval,
		Timeout:          f.Timeout,
		Labels:           f.Label,
		HonorLabels:      f.HonorLabels,
		IgnoreTimestamps: f.IgnoreTimestamps,
		Credential:       f.Credential,
		TLSServerName:    f.TLSServerName,
		Instance:         f.Instance,
		Permanent:        f.Permanent,
		Lease:            f.Lease,
		ExpireAfter:      f.ExpireAfter,
		Zone:             f.Zone,
		SamplesPerSecond: f.Rate,
	}
	if err := f.CheckClient(); err != nil {
		return r, err
	}
	for _, address := range f.Registry {
		if _, err := process.Advertised("--registry", address, ""); err != nil || address == "" {
			return r, process.Refusef("--registry %q: want host:port", address)
		}
	}
	if _, err := assignment.ParseProducerID(f.ID); err != nil {
		return r, process.Refusef("--id: %w", err)
	}
	if _, err := endpoint.Parse(f.Endpoint); err != nil {
		return r, process.Refusef("--endpoint: %w", err)
	}
	if f.Permanent && (f.Lease != 0 || f.ExpireAfter != 0) {
		return r, process.Refusef("--permanent has neither --lease nor --expire-after")
	}
	if err := r.Check(); err != nil {
		return r, &process.RefusedError{Err: err}
	}
	return r, nil
}
