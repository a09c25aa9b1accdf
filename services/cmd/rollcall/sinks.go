package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
)

type showSinks struct {
	listFlags
	collectorFlags
}

// Run shows where samples go.
func (c *showSinks) Run(ctx context.Context, o output) error {
	return c.collections(ctx, func(ctx context.Context, client collectorv1.CollectionServiceClient) error {
		resp, err := client.ListSinks(ctx, &collectorv1.ListSinksRequest{})
		switch {
		case err != nil:
			return err
		case c.Output == "json":
			return o.json(resp)
		}
		if err := c.print(o, resp.GetSinks()); err != nil || resp.GetQueue() == nil {
			return err
		}
		_, err = fmt.Fprintln(o.out, "queue: "+queueText(resp.GetQueue()))
		return err
	})
}

func (c *showSinks) print(o output, sinks []*collectorv1.Sink) error {
	heading := []string{"SINK", "KIND", "STATE", "BEHIND", "BYTES", "RATE", "DELIVERED", "DROPPED", "ERROR"}
	if c.Output == "wide" {
		heading = append(heading, "TARGET", "PROTOCOL", "REQUESTS", "LAST OK", "LAST ERROR")
	}
	var rows [][]string
	for _, s := range sinks {
		state, trouble := "OK", ""
		if s.GetFailing() {
			state, trouble = "FAILING", s.GetLastError()
		}
		row := []string{
			s.GetName(), short(s.GetKind().String(), "SINK_KIND_"), state,
			span(s.GetLagDuration()), strconv.FormatInt(s.GetLagBytes(), 10),
			fmt.Sprintf("%.1f/s", s.GetSamplesPerSecond()), strconv.FormatInt(s.GetDeliveredSampleCount(), 10),
			droppedText(s.GetDropped()), dash(trouble),
		}
		if c.Output == "wide" {
			row = append(row, dash(s.GetTarget()), dash(s.GetProtocol()),
				fmt.Sprintf("%d of %d", s.GetRequestsInFlight(), s.GetConcurrency()), ago(s.GetLastSuccessTime()), lastErrorText(s))
		}
		rows = append(rows, row)
	}
	return o.table(heading, rows)
}

// droppedText tells what was dropped, by reason.
func droppedText(dropped []*collectorv1.DroppedSamples) string {
	var all []string
	for _, d := range dropped {
		all = append(all, fmt.Sprintf("%d %s", d.GetSampleCount(), d.GetReason()))
	}
	return dash(strings.Join(all, ", "))
}

// lastErrorText tells the last error, also one that is over.
func lastErrorText(s *collectorv1.Sink) string {
	if s.GetLastErrorTime() == nil {
		return "-"
	}
	return ago(s.GetLastErrorTime()) + " ago: " + s.GetLastError()
}

func queueText(q *collectorv1.Queue) string {
	text := fmt.Sprintf("%d of %d bytes on disk, synced %s ago", q.GetDiskBytes(), q.GetMaxDiskBytes(), ago(q.GetSyncedTime()))
	if q.GetMemoryBytes() > 0 {
		text += fmt.Sprintf(", %d BYTES IN MEMORY ONLY", q.GetMemoryBytes())
	}
	switch {
	case q.GetFailing():
		text += ", THE DISK FAILS: " + q.GetLastError()
	case q.GetLastErrorTime() != nil:
		text += fmt.Sprintf(", the disk last failed %s ago: %s", ago(q.GetLastErrorTime()), q.GetLastError())
	}
	return text
}
