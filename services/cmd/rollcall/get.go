package main

import (
	"context"
	"strconv"
	"strings"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
)

// pageSize is how many items are asked for at once: the most that is answered.
const pageSize = 1000

// listFlags say how a list is written.
type listFlags struct {
	Output string `short:"o" default:"table" enum:"table,wide,json" help:"table, wide (more columns) or json (one object a line)."`
}

type getProducers struct {
	ID        string `arg:"" optional:"" help:"Only this producer."`
	Selector  string `short:"l" help:"Only those whose labels match, as in PromQL: {job=\"api\",zone=~\"eu-.*\"}."`
	Collector string `help:"Only those of this collector."`
	State     string `enum:",assigned,unassigned" default:"" help:"Only those that are assigned, or unassigned."`
	listFlags
	registryFlags
}

// Run shows producers.
func (c *getProducers) Run(ctx context.Context, o output) error {
	return c.producers(ctx, func(ctx context.Context, client registryv1.ProducerServiceClient) error {
		if c.ID != "" {
			resp, err := client.GetProducer(ctx, &registryv1.GetProducerRequest{ProducerId: c.ID})
			if err != nil {
				return err
			}
			return c.print(o, []*registryv1.Producer{resp.GetProducer()}, true)
		}
		req := &registryv1.ListProducersRequest{PageSize: pageSize, Selector: c.Selector, CollectorId: c.Collector}
		switch c.State {
		case "assigned":
			req.State = registryv1.ProducerState_PRODUCER_STATE_ASSIGNED
		case "unassigned":
			req.State = registryv1.ProducerState_PRODUCER_STATE_UNASSIGNED
		}
		for first := true; ; first = false {
			resp, err := client.ListProducers(ctx, req)
			if err != nil {
				return err
			}
			if err := c.print(o, resp.GetProducers(), first); err != nil {
				return err
			}
			if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
				return nil
			}
		}
	})
}

func (c *getProducers) print(o output, producers []*registryv1.Producer, first bool) error {
	var rows [][]string
	for _, p := range producers {
		if c.Output == "json" {
			if err := o.json(p); err != nil {
				return err
			}
			continue
		}
		rows = append(rows, producerRow(p, c.Output == "wide"))
	}
	if c.Output == "json" {
		return nil
	}
	var heading []string
	if first {
		heading = []string{"PRODUCER", "COLLECTOR", "STATE", "INTERVAL", "ENDPOINT"}
		if c.Output == "wide" {
			heading = append(heading, "TIMEOUT", "LABELS", "PLACED", "REASON", "CHANGED", "INSTANCE", "LEASE", "ZONE")
		}
	}
	return o.table(heading, rows)
}

func producerRow(p *registryv1.Producer, wide bool) []string {
	placement := &registryv1.Placement{}
	if all := p.GetPlacements(); len(all) > 0 {
		placement = all[0]
	}
	row := []string{
		p.GetProducerId(),
		dash(placement.GetCollectorId()),
		stateText(p),
		span(p.GetInterval()),
		p.GetEndpoint(),
	}
	if !wide {
		return row
	}
	return append(row, span(p.GetTimeout()), labelText(p.GetLabels()), ago(placement.GetAssignTime()),
		short(placement.GetReason().String(), "PLACEMENT_REASON_"), ago(p.GetUpdateTime()), dash(p.GetInstanceId()),
		leaseText(p), dash(p.GetZone()))
}

// stateText is a producer's state, and what is going on with it.
func stateText(p *registryv1.Producer) string {
	text := short(p.GetState().String(), "PRODUCER_STATE_")
	if len(p.GetPlacements()) > 1 {
		text += ",HANDOFF"
	}
	if p.GetSuspectTime() != nil {
		text += ",SUSPECT"
	}
	return text
}

type getCollectors struct {
	ID    string `arg:"" optional:"" help:"Only this collector."`
	State string `enum:",live,away,draining,drained,expunged" default:"" help:"Only those that are live (have a subscription), away, draining, drained or expunged."`
	listFlags
	registryFlags
}

// Run shows collectors.
func (c *getCollectors) Run(ctx context.Context, o output) error {
	return c.collectors(ctx, func(ctx context.Context, client registryv1.CollectorServiceClient) error {
		if c.ID != "" {
			resp, err := client.GetCollector(ctx, &registryv1.GetCollectorRequest{CollectorId: c.ID})
			if err != nil {
				return err
			}
			return c.print(o, []*registryv1.Collector{resp.GetCollector()}, true)
		}
		req := &registryv1.ListCollectorsRequest{PageSize: pageSize}
		if c.State != "" {
			req.State = registryv1.CollectorState(registryv1.CollectorState_value["COLLECTOR_STATE_"+strings.ToUpper(c.State)])
		}
		for first := true; ; first = false {
			resp, err := client.ListCollectors(ctx, req)
			if err != nil {
				return err
			}
			if err := c.print(o, resp.GetCollectors(), first); err != nil {
				return err
			}
			if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
				return nil
			}
		}
	})
}

func (c *getCollectors) print(o output, collectors []*registryv1.Collector, first bool) error {
	var rows [][]string
	for _, one := range collectors {
		if c.Output == "json" {
			if err := o.json(one); err != nil {
				return err
			}
			continue
		}
		rows = append(rows, collectorRow(one, c.Output == "wide"))
	}
	if c.Output == "json" {
		return nil
	}
	var heading []string
	if first {
		heading = []string{"COLLECTOR", "STATE", "ASSIGNED", "HELD", "UNRUNNABLE", "ACKNOWLEDGED", "SEEN", "LEAVING", "SAMPLES/S"}
		if c.Output == "wide" {
			heading = append(heading, "ADDRESS", "VERSION", "GENERATION", "INSTANCE", "CONNECTED", "LABELS", "REFUSAL", "CAPACITY", "ZONE")
		}
	}
	return o.table(heading, rows)
}

// collectorState is a collector's state, and whether a drain ends by itself.
func collectorState(c *registryv1.Collector) string {
	text := short(c.GetState().String(), "COLLECTOR_STATE_")
	if c.GetDrainUntilRestart() {
		text += ",UNTIL_RESTART"
	}
	return text
}

func collectorRow(c *registryv1.Collector, wide bool) []string {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	row := []string{
		c.GetCollectorId(),
		collectorState(c),
		number(c.GetAssignedCount()),
		number(c.GetHeldCount()),
		number(c.GetUnrunnableCount()),
		number(c.GetAcknowledgedRevision()),
		ago(c.GetLastSeenTime()),
		number(c.GetLeavingCount()),
		rate(c.GetSamplesPerSecond()),
	}
	if !wide {
		return row
	}
	return append(row, dash(c.GetIntrospectionEndpoint()), dash(c.GetSoftwareVersion()), number(c.GetGeneration()),
		c.GetInstanceId(), ago(c.GetConnectTime()), labelText(c.GetLabels()), dash(c.GetLastRefusal().GetReason()),
		rate(c.GetCapacitySamplesPerSecond()), dash(c.GetZone()))
}
