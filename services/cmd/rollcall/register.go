package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/protobuf/types/known/durationpb"
)

// answerFlags say how an answer is written.
type answerFlags struct {
	Output string `short:"o" default:"text" enum:"text,json" help:"text or json."`
}

type register struct {
	ID  string `arg:"" help:"The producer's id: letters, digits and ._:/-, 128 at most."`
	URL string `arg:"" help:"The whole URL of its metrics, http or https; or grpc://host:port, grpcs:// over TLS, of one that answers ExpositionService."`

	Interval         *time.Duration    `placeholder:"DURATION" help:"Time between two collections, 100ms to 24h. Default: the registry's, 15s."`
	Timeout          *time.Duration    `placeholder:"DURATION" help:"Longest time of one collection, at most the interval. Default: the registry's, 10s or the interval."`
	Label            map[string]string `mapsep:"none" placeholder:"NAME=VALUE" help:"Put this label on every series (repeatable)."`
	HonorLabels      bool              `help:"Labels of the exposition win over those given here."`
	IgnoreTimestamps bool              `help:"Ignore time stamps of the exposition."`
	Credential       string            `placeholder:"NAME" help:"Ask the endpoint with this credential of the collectors' own configuration."`
	TLSServerName    string            `name:"tls-server-name" placeholder:"NAME" help:"The endpoint's certificate has to be for this name. Default: the URL's host."`
	Permanent        bool              `help:"It has no lease: it goes by deregistration only. That is the default."`
	Lease            *time.Duration    `placeholder:"DURATION" help:"How long it lives without being registered again, 10s to 24h. Default: forever."`
	ExpireAfter      *time.Duration    `placeholder:"DURATION" help:"With --lease: how long it must neither have been registered again nor have answered before it is struck off. Default: the registry's, 1h or the lease."`
	Zone             string            `help:"A collector of the same zone is preferred."`
	Rate             float64           `placeholder:"COUNT" help:"About how many samples a second it yields, until that is measured."`
	ValidateOnly     bool              `help:"Only check; register nothing."`
	answerFlags
	registryFlags
}

// Validate refuses a lease for what has none.
func (c *register) Validate() error {
	switch {
	case c.Permanent && (c.Lease != nil || c.ExpireAfter != nil):
		return errors.New("--permanent has neither --lease nor --expire-after")
	case c.Lease == nil && c.ExpireAfter != nil:
		return errors.New("--expire-after is for --lease")
	}
	return nil
}

// Run registers a producer.
func (c *register) Run(ctx context.Context, o output) error {
	return c.producers(ctx, func(ctx context.Context, client registryv1.ProducerServiceClient) error {
		resp, err := client.RegisterProducer(ctx, &registryv1.RegisterProducerRequest{Producer: c.producer(), ValidateOnly: c.ValidateOnly})
		if err != nil {
			return err
		}
		if c.Output == "json" {
			return o.json(resp)
		}
		owner := "no collector yet"
		if all := resp.GetProducer().GetPlacements(); len(all) > 0 {
			owner = "collector " + all[0].GetCollectorId()
		}
		switch {
		case c.ValidateOnly:
			_, err = fmt.Fprintf(o.out, "%s is well formed; nothing was registered\n", c.ID)
		case resp.GetChanged():
			_, err = fmt.Fprintf(o.out, "%s registered at revision %d: %s\n", c.ID, resp.GetRevision(), owner)
		default:
			_, err = fmt.Fprintf(o.out, "%s was registered like this already, at revision %d: %s\n", c.ID, resp.GetRevision(), owner)
		}
		return err
	})
}

func (c *register) producer() *registryv1.Producer {
	p := &registryv1.Producer{
		ProducerId:       c.ID,
		Endpoint:         c.URL,
		HonorLabels:      c.HonorLabels,
		IgnoreTimestamps: c.IgnoreTimestamps,
		Credential:       c.Credential,
		TlsServerName:    c.TLSServerName,
		Zone:             c.Zone,

		ExpectedSamplesPerSecond: c.Rate,
	}
	if c.Permanent {
		p.Permanent = new(true)
	}
	if c.Interval != nil {
		p.Interval = durationpb.New(*c.Interval)
	}
	if c.Timeout != nil {
		p.Timeout = durationpb.New(*c.Timeout)
	}
	if c.Lease != nil {
		p.Permanent, p.LeaseDuration = new(false), durationpb.New(*c.Lease)
	}
	if c.ExpireAfter != nil {
		p.ExpireAfter = durationpb.New(*c.ExpireAfter)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Label)) {
		p.Labels = append(p.Labels, &registryv1.Label{Name: name, Value: c.Label[name]})
	}
	return p
}

type deregister struct {
	ID string `arg:"" help:"The producer's id."`
	answerFlags
	registryFlags
}

// Run takes a producer off the roll.
func (c *deregister) Run(ctx context.Context, o output) error {
	return c.producers(ctx, func(ctx context.Context, client registryv1.ProducerServiceClient) error {
		resp, err := client.DeregisterProducer(ctx, &registryv1.DeregisterProducerRequest{ProducerId: c.ID})
		if err != nil {
			return err
		}
		switch {
		case c.Output == "json":
			return o.json(resp)
		case resp.GetChanged():
			_, err = fmt.Fprintf(o.out, "%s deregistered at revision %d\n", c.ID, resp.GetRevision())
		default:
			_, err = fmt.Fprintf(o.out, "%s was not on the roll\n", c.ID)
		}
		return err
	})
}
