package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
)

type showHeld struct {
	All              bool          `env:"-" help:"Of every collector that the registry knows, asked at the address that it has told."`
	CollectorAddress string        `default:"127.0.0.1:7480" group:"peer" help:"host:port of the collector's gRPC. Not for --all."`
	Registry         string        `default:"127.0.0.1:7470" group:"peer" help:"host:port of a registry's gRPC. For --all."`
	CallTimeout      time.Duration `default:"10s" group:"peer" help:"Longest wait for one answer."`
	listFlags
	process.ClientFlags

	headed bool // a heading stands above what is written
}

// Run shows what a collector holds back, or what all do. One that cannot be asked
// is an error, after the others were shown.
func (c *showHeld) Run(ctx context.Context, o output) error {
	if !c.All {
		return askCollector(ctx, &c.ClientFlags, c.CollectorAddress, c.CallTimeout, c.show(o, ""))
	}
	flags := registryFlags{Registry: c.Registry, CallTimeout: c.CallTimeout, ClientFlags: c.ClientFlags}
	return flags.registry(ctx, func(ctx context.Context, r registryClient) error {
		var failed failures
		err := r.everyCollector(ctx, func(one *registryv1.Collector) error {
			id := one.GetCollectorId()
			failed.add(id, askKnown(ctx, &c.ClientFlags, one, c.CallTimeout, c.show(o, id)))
			return ctx.Err()
		})
		return errors.Join(err, failed.err("could not be asked"))
	})
}

// show asks one collector. Where several are asked its id is told with each.
func (c *showHeld) show(o output, collector string) func(context.Context, collectorv1.CollectionServiceClient) error {
	return func(ctx context.Context, client collectorv1.CollectionServiceClient) error {
		req := &collectorv1.ListHeldRequest{PageSize: pageSize}
		for {
			resp, err := client.ListHeld(ctx, req)
			if err != nil {
				return err
			}
			if err := c.print(o, collector, resp.GetHeld()); err != nil {
				return err
			}
			if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
				return nil
			}
		}
	}
}

func (c *showHeld) print(o output, collector string, held []*collectorv1.HeldProducer) error {
	var rows [][]string
	for _, h := range held {
		if c.Output == "json" {
			if err := o.jsonOf(collector, h); err != nil {
				return err
			}
			continue
		}
		rows = append(rows, heldRow(collector, h, c.Output == "wide"))
	}
	if c.Output == "json" {
		return nil
	}
	var heading []string
	if !c.headed {
		c.headed = true
		heading = []string{"PRODUCER", "HELD", "CONFIRMED", "CAUSE", "ANSWERS", "FAILING"}
		if collector != "" {
			heading = append([]string{"COLLECTOR"}, heading...)
		}
		if c.Output == "wide" {
			heading = append(heading, "EPOCH", "ENDPOINT", "LABELS")
		}
	}
	return o.table(heading, rows)
}

func heldRow(collector string, h *collectorv1.HeldProducer, wide bool) []string {
	var row []string
	if collector != "" {
		row = append(row, collector)
	}
	row = append(row,
		h.GetAssignment().GetProducerId(),
		ago(h.GetHoldTime()),
		h.GetConfirmedDuration().AsDuration().Round(time.Second).String(),
		short(h.GetCause().String(), "REMOVAL_CAUSE_"),
		strconv.FormatBool(h.GetAnswers()),
		ago(h.GetFailingSince()),
	)
	if wide {
		row = append(row, dash(h.GetEpoch()), h.GetAssignment().GetEndpoint(), labelText(h.GetAssignment().GetLabels()))
	}
	return row
}

type release struct {
	IDs []string `arg:"" optional:"" name:"id" help:"The producers' ids."`
	All bool     `help:"Everything that is held."`
	answerFlags
	collectorFlags
}

// Validate asks for either ids or all.
func (c *release) Validate() error {
	if c.All == (len(c.IDs) > 0) {
		return errors.New("either ids or --all is needed")
	}
	return nil
}

// Run lets go of held producers. One that is not held is an error, after the
// others were released.
func (c *release) Run(ctx context.Context, o output) error {
	return c.collections(ctx, func(ctx context.Context, client collectorv1.CollectionServiceClient) error {
		resp, err := client.ReleaseHeld(ctx, &collectorv1.ReleaseHeldRequest{ProducerIds: c.IDs, All: c.All})
		if err != nil {
			return err
		}
		if c.Output == "json" {
			err = o.json(resp)
		} else {
			_, err = fmt.Fprintf(o.out, "%d released\n", resp.GetReleasedCount())
		}
		switch lost := resp.GetNotHeldProducerIds(); {
		case err != nil:
			return err
		case !resp.GetPersisted():
			return errors.New("the collector could not write its state file: a restart may hold them again")
		case len(lost) > 0:
			return fmt.Errorf("%d of them not held: %s", len(lost), lost[0])
		}
		return nil
	})
}
