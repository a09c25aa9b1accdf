package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type drain struct {
	Collector    string `arg:"" help:"Which collector."`
	DryRun       bool   `help:"Only tell who would get what; change nothing."`
	UntilRestart bool   `help:"End the drain when the collector is started again, rather than by undrain."`
	Wait         bool   `help:"Wait until nothing is left; interrupted, the drain goes on."`
	listFlags
	registryFlags
}

// Help tells more than one line.
func (c *drain) Help() string {
	return "Hands everything that the collector has to the others, each producer to one that collects it before this one stops. " +
		"It is given nothing new until it is undrained, or, with --until-restart, started again. " +
		"Of two drains the one without --until-restart counts, whichever came first."
}

// Validate refuses to wait for nothing.
func (c *drain) Validate() error {
	if c.DryRun && c.Wait {
		return errors.New("--dry-run begins nothing that --wait could wait for")
	}
	return nil
}

// Run drains a collector.
func (c *drain) Run(ctx context.Context, o output) error {
	return c.registry(ctx, func(ctx context.Context, r registryClient) error {
		resp, err := r.DrainCollector(ctx, &registryv1.DrainCollectorRequest{
			CollectorId: c.Collector, ValidateOnly: c.DryRun, UntilRestart: c.UntilRestart,
		})
		if err != nil {
			return err
		}
		if err := c.print(o, resp); err != nil {
			return err
		}
		if c.UntilRestart && !c.DryRun && !resp.GetCollector().GetDrainUntilRestart() {
			if _, err := fmt.Fprintf(o.remarks, "this drain of %s does not end by itself: rollcall undrain ends it\n", c.Collector); err != nil {
				return err
			}
		}
		if !c.Wait {
			return nil
		}
		return c.wait(ctx, o, r)
	})
}

func (c *drain) print(o output, resp *registryv1.DrainCollectorResponse) error {
	if c.Output == "json" {
		return o.json(resp)
	}
	plan, has := resp.GetPlan(), resp.GetCollector()
	line := fmt.Sprintf("%s is drained: nothing is left", c.Collector)
	switch {
	case c.DryRun:
		line = fmt.Sprintf("%s would hand off %d producers; nothing was changed%s", c.Collector, plan.GetMoveCount(), stuck(plan))
	case has.GetState() == registryv1.CollectorState_COLLECTOR_STATE_DRAINING:
		line = fmt.Sprintf("%s is draining: %d producers to hand off%s", c.Collector, left(has), stuck(plan))
	}
	if _, err := fmt.Fprintln(o.out, line); err != nil {
		return err
	}
	return o.plan(plan, c.Output == "wide")
}

// left is how many producers a collector still collects.
func left(c *registryv1.Collector) int64 { return c.GetAssignedCount() + c.GetLeavingCount() }

// drainPoll is how often a drain is looked at that is waited for.
const drainPoll = 500 * time.Millisecond

var errStoppedWaiting = errors.New("no longer waiting; the drain goes on")

// wait waits until the collector is drained. A registry that is away for a while
// is waited for, too.
func (c *drain) wait(ctx context.Context, o output, r registryClient) error {
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	told := int64(-1)
	for {
		resp, err := r.GetCollector(ctx, &registryv1.GetCollectorRequest{CollectorId: c.Collector})
		has := resp.GetCollector()
		switch {
		case ctx.Err() != nil:
			return errStoppedWaiting
		case status.Code(err) == codes.Unavailable || status.Code(err) == codes.DeadlineExceeded:
		case err != nil:
			return err
		case has.GetState() == registryv1.CollectorState_COLLECTOR_STATE_DRAINED,
			has.GetState() == registryv1.CollectorState_COLLECTOR_STATE_EXPUNGED && left(has) == 0:
			_, err := fmt.Fprintf(o.remarks, "%s is drained\n", c.Collector)
			return err
		case has.GetState() == registryv1.CollectorState_COLLECTOR_STATE_LIVE,
			has.GetState() == registryv1.CollectorState_COLLECTOR_STATE_AWAY:
			return fmt.Errorf("somebody has ended the drain of %s with %d producers left", c.Collector, left(has))
		case left(has) != told:
			told = left(has)
			if _, err := fmt.Fprintf(o.remarks, "%d left\n", told); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errStoppedWaiting
		}
	}
}

type undrain struct {
	Collector string `arg:"" help:"Which collector."`
	answerFlags
	registryFlags
}

// Run ends a drain, or an expunction.
func (c *undrain) Run(ctx context.Context, o output) error {
	return c.registry(ctx, func(ctx context.Context, r registryClient) error {
		resp, err := r.UndrainCollector(ctx, &registryv1.UndrainCollectorRequest{CollectorId: c.Collector})
		if err != nil {
			return err
		}
		if c.Output == "json" {
			return o.json(resp)
		}
		_, err = fmt.Fprintf(o.out, "%s is %s with %d producers; what it handed off does not come back by itself\n",
			c.Collector, short(resp.GetCollector().GetState().String(), "COLLECTOR_STATE_"), resp.GetCollector().GetAssignedCount())
		return err
	})
}

type expunge struct {
	Collector string `arg:"" help:"Which collector."`
	Force     bool   `env:"-" help:"Also if it is live and not drained."`
	answerFlags
	registryFlags
}

// Help tells more than one line.
func (c *expunge) Help() string {
	return "The collector may not subscribe any more, and what it had is given to others. " +
		"If its process lives it goes on with all that it has, as held: nothing of it is lost, and some of it is collected twice until it stops."
}

// Run ends a collector.
func (c *expunge) Run(ctx context.Context, o output) error {
	return c.registry(ctx, func(ctx context.Context, r registryClient) error {
		resp, err := r.ExpungeCollector(ctx, &registryv1.ExpungeCollectorRequest{CollectorId: c.Collector, Force: c.Force})
		if err != nil {
			return err
		}
		if c.Output == "json" {
			return o.json(resp)
		}
		_, err = fmt.Fprintf(o.out, "%s is expunged; %d producers are given to others\n", c.Collector, left(resp.GetCollector()))
		return err
	})
}
