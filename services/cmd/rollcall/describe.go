package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
)

type describeProducer struct {
	ID string `arg:"" help:"The producer's id."`
	answerFlags
	registryFlags
}

// Run shows all that is known of a producer.
func (c *describeProducer) Run(ctx context.Context, o output) error {
	return c.registry(ctx, func(ctx context.Context, r registryClient) error {
		resp, err := r.GetProducer(ctx, &registryv1.GetProducerRequest{ProducerId: c.ID})
		if err != nil {
			return err
		}
		p := resp.GetProducer()
		var heard []testimony
		for _, part := range p.GetPlacements() {
			heard = append(heard, r.hear(ctx, part.GetCollectorId(), c.ID, c.CallTimeout))
		}
		if c.Output == "json" {
			return o.described(resp.GetProducer(), heard)
		}
		return o.table(nil, append(producerRows(p, heard), staleRows(resp.GetStale())...))
	})
}

// described writes a producer as one line, and one more for what each of its
// collectors says.
func (o output) described(p *registryv1.Producer, heard []testimony) error {
	if err := o.json(p); err != nil {
		return err
	}
	for _, t := range heard {
		if t.collection == nil {
			if _, err := fmt.Fprintln(o.remarks, t.says()); err != nil {
				return err
			}
			continue
		}
		if err := o.json(t.collection); err != nil {
			return err
		}
	}
	return nil
}

func producerRows(p *registryv1.Producer, heard []testimony) [][]string {
	rows := [][]string{
		{"producer", p.GetProducerId()},
		{"endpoint", p.GetEndpoint()},
		{"interval", fmt.Sprintf("%s, timeout %s", span(p.GetInterval()), span(p.GetTimeout()))},
		{"labels", labelText(p.GetLabels())},
		{"options", dash(optionText(p))},
		{"zone", dash(p.GetZone())},
		{"instance", dash(p.GetInstanceId())},
		{"version", fmt.Sprintf("%016x", p.GetVersion())},
		{"registered", fmt.Sprintf("%s ago, changed %s ago", ago(p.GetCreateTime()), ago(p.GetUpdateTime()))},
		{"lease", leaseText(p)},
		{"suspicion", suspicionText(p)},
		{"conflict", dash(p.GetConflict())},
		{"state", short(p.GetState().String(), "PRODUCER_STATE_")},
	}
	for _, part := range p.GetPlacements() {
		rows = append(rows, []string{"collector", partText(part)})
	}
	rows = append(rows, []string{"weight", weightText(p, heard)})
	for _, t := range heard {
		rows = append(rows, []string{"testimony", t.says()})
	}
	return rows
}

// optionText names what is not as usual about a producer's collection.
func optionText(p *registryv1.Producer) string {
	var texts []string
	add := func(name string, on bool) {
		if on {
			texts = append(texts, name)
		}
	}
	limit := func(name string, most int64) { add(fmt.Sprintf("%s %d", name, most), most > 0) }
	add("honor-labels", p.GetHonorLabels())
	add("ignore-timestamps", p.GetIgnoreTimestamps())
	format := p.GetFallbackFormat()
	add("fallback "+short(format.String(), "EXPOSITION_FORMAT_"), format != registryv1.ExpositionFormat_EXPOSITION_FORMAT_UNSPECIFIED)
	add("credential "+p.GetCredential(), p.GetCredential() != "")
	add("tls-server-name "+p.GetTlsServerName(), p.GetTlsServerName() != "")
	limits := p.GetLimits()
	limit("max-body-bytes", limits.GetMaxBodyBytes())
	limit("max-samples", int64(limits.GetMaxSampleCount()))
	limit("max-labels", int64(limits.GetMaxLabelCount()))
	limit("max-label-value-bytes", int64(limits.GetMaxLabelValueBytes()))
	return strings.Join(texts, ", ")
}

func leaseText(p *registryv1.Producer) string {
	if p.GetPermanent() {
		return "permanent"
	}
	return fmt.Sprintf("%s, expires after %s", span(p.GetLeaseDuration()), span(p.GetExpireAfter()))
}

func suspicionText(p *registryv1.Producer) string {
	if p.GetSuspectTime() == nil {
		return "-"
	}
	renewed := "not renewed since"
	if p.GetRenewTime() != nil {
		renewed = "renewed " + ago(p.GetRenewTime()) + " ago"
	}
	return fmt.Sprintf("for %s, %s, struck off at %s at the earliest", ago(p.GetSuspectTime()), renewed, clock(p.GetExpireTime()))
}

func partText(part *registryv1.Placement) string {
	text := part.GetCollectorId() + ", " + short(part.GetRole().String(), "ROLE_")
	if part.GetAssignTime() == nil {
		return text
	}
	text += fmt.Sprintf(", for %s, %s", ago(part.GetAssignTime()), short(part.GetReason().String(), "PLACEMENT_REASON_"))
	if from := part.GetPreviousCollectorId(); from != "" {
		text += ", from " + from
	}
	return text
}

// weightText tells how many samples a second it yields, as registered and as
// measured.
func weightText(p *registryv1.Producer, heard []testimony) string {
	text := "not told"
	if told := p.GetExpectedSamplesPerSecond(); told > 0 {
		text = "expected " + rate(told) + " samples/s"
	}
	for _, t := range heard {
		if measured, ok := t.yields(); ok {
			text += fmt.Sprintf(", %s at %s", rate(measured), t.collector)
		}
	}
	return text
}

func staleRows(stale bool) [][]string {
	if !stale {
		return nil
	}
	return [][]string{{"stale", "the registry cannot reach its store; this may be old"}}
}

type describeCollector struct {
	ID string `arg:"" help:"The collector's id."`
	answerFlags
	registryFlags
}

// Run shows all that is known of a collector.
func (c *describeCollector) Run(ctx context.Context, o output) error {
	return c.registry(ctx, func(ctx context.Context, r registryClient) error {
		resp, err := r.GetCollector(ctx, &registryv1.GetCollectorRequest{CollectorId: c.ID})
		if err != nil {
			return err
		}
		if c.Output == "json" {
			return o.json(resp.GetCollector())
		}
		return o.table(nil, append(collectorRows(resp.GetCollector()), staleRows(resp.GetStale())...))
	})
}

func collectorRows(c *registryv1.Collector) [][]string {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	state := collectorState(c)
	if c.GetDrainTime() != nil {
		state += ", for " + ago(c.GetDrainTime())
	}
	subscription := "none"
	if c.GetConnectTime() != nil {
		subscription = "for " + ago(c.GetConnectTime())
	}
	capacity := "not told"
	if c.GetCapacitySamplesPerSecond() > 0 {
		capacity = rate(c.GetCapacitySamplesPerSecond()) + " samples/s"
	}
	refusal := c.GetLastRefusal()
	return [][]string{
		{"collector", c.GetCollectorId()},
		{"state", state},
		{"subscription", subscription},
		{"instance", fmt.Sprintf("%s, generation %d, software %s", c.GetInstanceId(), c.GetGeneration(), dash(c.GetSoftwareVersion()))},
		{"address", dash(c.GetIntrospectionEndpoint())},
		{"zone", dash(c.GetZone())},
		{"labels", labelText(c.GetLabels())},
		{"assigned", number(c.GetAssignedCount())},
		{"leaving", number(c.GetLeavingCount())},
		{"held", number(c.GetHeldCount())},
		{"unrunnable", number(c.GetUnrunnableCount())},
		{"load", rate(c.GetSamplesPerSecond()) + " samples/s"},
		{"capacity", capacity},
		{"acknowledged", fmt.Sprintf("revision %d of epoch %s, %s ago", c.GetAcknowledgedRevision(), dash(c.GetAcknowledgedEpoch()), ago(c.GetLastSeenTime()))},
		{"last refusal", dash(strings.TrimSpace(fmt.Sprintf("%s %s", refusal.GetReason(), refusal.GetMessage())))},
	}
}
