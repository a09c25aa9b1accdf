package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/protobuf/types/known/durationpb"
)

type move struct {
	Producer  string `arg:"" help:"The producer's id."`
	Collector string `arg:"" help:"The collector that gets it."`
	answerFlags
	registryFlags
}

// Run moves a producer.
func (c *move) Run(ctx context.Context, o output) error {
	return c.registry(ctx, func(ctx context.Context, r registryClient) error {
		resp, err := r.MoveProducer(ctx, &registryv1.MoveProducerRequest{ProducerId: c.Producer, CollectorId: c.Collector})
		if err != nil {
			return err
		}
		switch {
		case c.Output == "json":
			return o.json(resp)
		case resp.GetChanged():
			_, err = fmt.Fprintf(o.out, "%s is handed to %s, at revision %d\n", c.Producer, c.Collector, resp.GetRevision())
		default:
			_, err = fmt.Fprintf(o.out, "%s was given to %s already, at revision %d\n", c.Producer, c.Collector, resp.GetRevision())
		}
		return err
	})
}

type rebalance struct {
	Preview bool   `help:"Only tell what would be moved; move nothing."`
	Max     *int32 `placeholder:"COUNT" help:"Most moves, 1 to 10000. Default: the registry's, 1000."`
	listFlags
	registryFlags
}

// Run evens out the load, or tells what that would take.
func (c *rebalance) Run(ctx context.Context, o output) error {
	return c.registry(ctx, func(ctx context.Context, r registryClient) error {
		if c.Preview {
			resp, err := r.PreviewRebalance(ctx, &registryv1.PreviewRebalanceRequest{})
			if err != nil {
				return err
			}
			if c.Output == "json" {
				return o.json(resp)
			}
			return c.print(o, resp.GetPlan(), fmt.Sprintf("%d moves would even out the load; nothing was moved", resp.GetPlan().GetMoveCount()))
		}
		req := &registryv1.RebalanceRequest{}
		if c.Max != nil {
			req.MaxMoveCount = *c.Max
		}
		resp, err := r.Rebalance(ctx, req)
		if err != nil {
			return err
		}
		if c.Output == "json" {
			return o.json(resp)
		}
		return c.print(o, resp.GetPlan(), fmt.Sprintf("%d of %d moves begun", resp.GetBegunCount(), resp.GetPlan().GetMoveCount()))
	})
}

// Validate refuses what would be taken for the default.
func (c *rebalance) Validate() error {
	switch {
	case c.Max != nil && *c.Max < 1:
		return fmt.Errorf("--max=%d: want 1 to 10000", *c.Max)
	case c.Max != nil && c.Preview:
		return fmt.Errorf("--max is not for --preview, which tells all")
	}
	return nil
}

func (c *rebalance) print(o output, p *registryv1.PlacementPlan, line string) error {
	if _, err := fmt.Fprintf(o.out, "%s: max over mean %.2f, then %.2f\n", line, p.GetMaxOverMeanBefore(), p.GetMaxOverMeanAfter()); err != nil {
		return err
	}
	return o.plan(p, c.Output == "wide")
}

type expiry struct {
	Mode string         `arg:"" enum:"auto,hold,hasten" help:"auto: one by one, and slowly if they are many. hold: none. hasten: all that are due, at once."`
	For  *time.Duration `placeholder:"DURATION" help:"How long it stands before it is auto again, 1m to 24h. Default: the registry's, 1h. Not for auto."`
	answerFlags
	registryFlags
}

// Run sets how producers that are due are struck off.
func (c *expiry) Run(ctx context.Context, o output) error {
	return c.registry(ctx, func(ctx context.Context, r registryClient) error {
		name := "EXPIRY_MODE_" + strings.ToUpper(c.Mode)
		req := &registryv1.ConfirmExpiryRequest{Mode: registryv1.ExpiryMode(registryv1.ExpiryMode_value[name])}
		if c.For != nil {
			req.Duration = durationpb.New(*c.For)
		}
		resp, err := r.ConfirmExpiry(ctx, req)
		if err != nil {
			return err
		}
		if c.Output == "json" {
			return o.json(resp)
		}
		until := ""
		if t := resp.GetUntil(); t != nil {
			until = " until " + clock(t) + ", then AUTO"
		}
		_, err = fmt.Fprintf(o.out, "expiry is %s%s\n", short(resp.GetMode().String(), "EXPIRY_MODE_"), until)
		return err
	})
}
