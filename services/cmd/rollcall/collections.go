package main

import (
	"context"
	"fmt"
	"strconv"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

type showCollections struct {
	ID      string `arg:"" optional:"" help:"One producer, with all that is known of its collections."`
	Failing bool   `help:"Only those whose last collection failed."`
	Held    bool   `help:"Only those that are held: absent from the accepted set and still collected."`
	listFlags
	collectorFlags
}

// Run shows what a collector collects.
func (c *showCollections) Run(ctx context.Context, o output) error {
	return c.collections(ctx, func(ctx context.Context, client collectorv1.CollectionServiceClient) error {
		if c.ID != "" {
			return c.one(ctx, o, client)
		}
		req := &collectorv1.ListCollectionsRequest{PageSize: pageSize, Failing: c.Failing, Held: c.Held}
		for first := true; ; first = false {
			resp, err := client.ListCollections(ctx, req)
			if err != nil {
				return err
			}
			if err := c.print(o, resp.GetCollections(), first); err != nil {
				return err
			}
			if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
				return nil
			}
		}
	})
}

// one shows one collection.
func (c *showCollections) one(ctx context.Context, o output, client collectorv1.CollectionServiceClient) error {
	resp, err := client.GetCollection(ctx, &collectorv1.GetCollectionRequest{ProducerId: c.ID})
	switch {
	case err != nil:
		return err
	case c.Output == "json":
		return o.json(resp.GetCollection())
	}
	one := resp.GetCollection()
	return o.table(nil, [][]string{
		{"producer", one.GetAssignment().GetProducerId()},
		{"endpoint", one.GetAssignment().GetEndpoint()},
		{"labels", labelText(one.GetAssignment().GetLabels())},
		{"state", collectionState(one)},
		{"unrunnable", dash(one.GetUnrunnableReason())},
		{"interval", span(one.GetAssignment().GetInterval())},
		{"next", clock(one.GetNextTime())},
		{"succeeded", strconv.FormatInt(one.GetSuccessCount(), 10)},
		{"last success", resultText(one.GetLastSuccessTime(), one.GetLastSuccess())},
		{"failed", strconv.FormatInt(one.GetFailureCount(), 10)},
		{"last failure", resultText(one.GetLastFailureTime(), one.GetLastFailure())},
		{"missed", missedText(one)},
	})
}

// resultText tells what a collection came to and how long ago it was complete.
func resultText(at *timestamppb.Timestamp, r *collectorv1.CollectionResult) string {
	if r == nil {
		return ago(at) // an older collector tells no more
	}
	text := fmt.Sprintf("%s ago, in %s: %d samples, %d bytes", ago(at), span(r.GetDuration()), r.GetSampleCount(), r.GetBodyBytes())
	if r.GetFailureReason() != collectorv1.FailureReason_FAILURE_REASON_UNSPECIFIED {
		text += ": " + failureText(r)
	}
	return text
}

// lastFailure tells the last failure, also after a success.
func lastFailure(c *collectorv1.Collection) string {
	if c.GetLastFailure() == nil {
		return "-"
	}
	return ago(c.GetLastFailureTime()) + " ago: " + failureText(c.GetLastFailure())
}

// missedText tells the missed due times, and why there was no collection at them.
func missedText(c *collectorv1.Collection) string {
	if c.GetMissedCount() == 0 {
		return "0"
	}
	return fmt.Sprintf("%d: %d overlap, %d budget", c.GetMissedCount(), c.GetMissedOverlapCount(), c.GetMissedBudgetCount())
}

func (c *showCollections) print(o output, collections []*collectorv1.Collection, first bool) error {
	var rows [][]string
	for _, one := range collections {
		if c.Output == "json" {
			if err := o.json(one); err != nil {
				return err
			}
			continue
		}
		rows = append(rows, collectionRow(one, c.Output == "wide"))
	}
	if c.Output == "json" {
		return nil
	}
	var heading []string
	if first {
		heading = []string{"PRODUCER", "STATE", "OK", "FAILED", "MISSED", "SAMPLES", "TOOK", "LAST OK", "FAILURE"}
		if c.Output == "wide" {
			heading = append(heading, "INTERVAL", "ENDPOINT", "LABELS", "NEXT", "OVERLAP", "BUDGET", "LAST FAILURE")
		}
	}
	return o.table(heading, rows)
}

// collectionState is the state of a collection in a word.
func collectionState(c *collectorv1.Collection) string {
	last, state := c.GetLastResult(), "OK"
	switch {
	case c.GetUnrunnableReason() != "":
		state = "UNRUNNABLE"
	case last == nil:
		state = "NEW"
	case last.GetFailureReason() != collectorv1.FailureReason_FAILURE_REASON_UNSPECIFIED:
		state = short(last.GetFailureReason().String(), "FAILURE_REASON_")
	}
	if c.GetHeld() {
		state += ",HELD"
	}
	return state
}

func collectionRow(c *collectorv1.Collection, wide bool) []string {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	last := c.GetLastResult()
	row := []string{
		c.GetAssignment().GetProducerId(),
		collectionState(c),
		number(c.GetSuccessCount()),
		number(c.GetFailureCount()),
		number(c.GetMissedCount()),
		number(last.GetSampleCount()),
		span(last.GetDuration()),
		ago(c.GetLastSuccessTime()),
		dash(last.GetFailureMessage() + c.GetUnrunnableReason()),
	}
	if !wide {
		return row
	}
	return append(row, span(c.GetAssignment().GetInterval()), c.GetAssignment().GetEndpoint(), labelText(c.GetAssignment().GetLabels()),
		clock(c.GetNextTime()), number(c.GetMissedOverlapCount()), number(c.GetMissedBudgetCount()), lastFailure(c))
}
