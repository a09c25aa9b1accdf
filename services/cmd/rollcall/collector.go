package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
)

type showMembership struct {
	answerFlags
	collectorFlags
}

// Run shows which set a collector holds.
func (c *showMembership) Run(ctx context.Context, o output) error {
	return c.collections(ctx, func(ctx context.Context, client collectorv1.CollectionServiceClient) error {
		m, err := client.GetMembership(ctx, &collectorv1.GetMembershipRequest{})
		if err != nil {
			return err
		}
		if c.Output == "json" {
			return o.json(m)
		}
		subscription := "live"
		if !m.GetSubscribed() {
			subscription = "none"
		}
		rows := [][]string{
			{"collector", m.GetCollectorId()},
			{"instance", fmt.Sprintf("%s, generation %d", m.GetInstanceId(), m.GetGeneration())},
			{"subscription", fmt.Sprintf("%s, at %s", subscription, dash(m.GetRegistryAddress()))},
			{"last error", dash(m.GetLastError())},
			{"accepted", fmt.Sprintf("%d at revision %d of epoch %s, digest %016x",
				m.GetAcceptedCount(), m.GetRevision(), dash(m.GetEpoch()), m.GetAcceptedDigest())},
			{"on disk", strconv.FormatBool(m.GetPersisted())},
			{"last seal", ago(m.GetLastSealTime())},
			{"collected", fmt.Sprintf("%d, digest %016x", m.GetAppliedCount(), m.GetAppliedDigest())},
			{"held", strconv.FormatInt(m.GetHeldCount(), 10)},
			{"unrunnable", strconv.FormatInt(m.GetUnrunnableCount(), 10)},
			{"last refusal", dash(strings.TrimSpace(m.GetLastRefusal().GetReason() + " " + m.GetLastRefusal().GetMessage()))},
		}
		return o.table(nil, rows)
	})
}

type collectNow struct {
	ID string `arg:"" help:"The producer's id."`
	answerFlags
	collectorFlags
}

// Run collects a producer at once. A collection that fails is an error.
func (c *collectNow) Run(ctx context.Context, o output) error {
	return c.collections(ctx, func(ctx context.Context, client collectorv1.CollectionServiceClient) error {
		resp, err := client.CollectNow(ctx, &collectorv1.CollectNowRequest{ProducerId: c.ID})
		if err != nil {
			return err
		}
		r := resp.GetResult()
		if c.Output == "json" {
			err = o.json(r)
		}
		switch {
		case err != nil:
			return err
		case r.GetFailureReason() != collectorv1.FailureReason_FAILURE_REASON_UNSPECIFIED:
			return fmt.Errorf("%s: %s: %s", c.ID, short(r.GetFailureReason().String(), "FAILURE_REASON_"), r.GetFailureMessage())
		case c.Output != "json":
			_, err = fmt.Fprintf(o.out, "%s: %d samples, %d bytes in %s\n", c.ID, r.GetSampleCount(), r.GetBodyBytes(), span(r.GetDuration()))
		}
		return err
	})
}
