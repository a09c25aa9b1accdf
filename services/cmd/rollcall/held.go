package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
)

type showHeld struct {
	listFlags
	collectorFlags
}

// Run shows what a collector holds back.
func (c *showHeld) Run(ctx context.Context, o output) error {
	return c.collections(ctx, func(ctx context.Context, client collectorv1.CollectionServiceClient) error {
		req := &collectorv1.ListHeldRequest{PageSize: pageSize}
		for first := true; ; first = false {
			resp, err := client.ListHeld(ctx, req)
			if err != nil {
				return err
			}
			if err := c.print(o, resp.GetHeld(), first); err != nil {
				return err
			}
			if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
				return nil
			}
		}
	})
}

func (c *showHeld) print(o output, held []*collectorv1.HeldProducer, first bool) error {
	var rows [][]string
	for _, h := range held {
		if c.Output == "json" {
			if err := o.json(h); err != nil {
				return err
			}
			continue
		}
		row := []string{
			h.GetAssignment().GetProducerId(),
			ago(h.GetHoldTime()),
			h.GetConfirmedDuration().AsDuration().Round(time.Second).String(),
			short(h.GetCause().String(), "REMOVAL_CAUSE_"),
			strconv.FormatBool(h.GetAnswers()),
			ago(h.GetFailingSince()),
		}
		if c.Output == "wide" {
			row = append(row, dash(h.GetEpoch()), h.GetAssignment().GetEndpoint(), labelText(h.GetAssignment().GetLabels()))
		}
		rows = append(rows, row)
	}
	if c.Output == "json" {
		return nil
	}
	var heading []string
	if first {
		heading = []string{"PRODUCER", "HELD", "CONFIRMED", "CAUSE", "ANSWERS", "FAILING"}
		if c.Output == "wide" {
			heading = append(heading, "EPOCH", "ENDPOINT", "LABELS")
		}
	}
	return o.table(heading, rows)
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
