package main

import (
	"context"
	"fmt"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

type why struct {
	Producer string `arg:"" help:"The producer's id."`
	registryFlags
}

// Help tells more than one line.
func (c *why) Help() string {
	return "Tells in words who collects the producer, since when and why, what a handoff waits for, whether it is about to be struck off, " +
		"and what its collectors themselves say of it."
}

// Run tells why a producer is where it is.
func (c *why) Run(ctx context.Context, o output) error {
	return c.registry(ctx, func(ctx context.Context, r registryClient) error {
		resp, err := r.GetProducer(ctx, &registryv1.GetProducerRequest{ProducerId: c.Producer})
		if err != nil {
			return err
		}
		p := resp.GetProducer()
		var heard []testimony
		for _, part := range p.GetPlacements() {
			heard = append(heard, r.hear(ctx, part.GetCollectorId(), p.GetProducerId(), c.CallTimeout))
		}
		lines := story(p, heard, time.Now())
		if resp.GetStale() {
			lines = append(lines, "The registry cannot reach its store: all of this may be old.")
		}
		for _, line := range lines {
			if _, err := fmt.Fprintln(o.out, line); err != nil {
				return err
			}
		}
		return nil
	})
}

// story tells why a producer is where it is. heard has a testimony for each of
// its placements.
func story(p *registryv1.Producer, heard []testimony, now time.Time) []string {
	lines := placed(p)
	if waits := waitsFor(p, heard); waits != "" {
		lines = append(lines, waits)
	}
	lines = append(lines, doomed(p, now))
	for _, t := range heard {
		lines = append(lines, t.says()+".")
	}
	if p.GetConflict() != "" {
		lines = append(lines, "Against it speaks: "+p.GetConflict()+".")
	}
	return lines
}

// placed tells who has it, since when, why, and from whom it came.
func placed(p *registryv1.Producer) []string {
	if len(p.GetPlacements()) == 0 {
		return []string{p.GetProducerId() + " has no collector: none was live and open to it. It is given one as soon as there is one."}
	}
	given := p.GetPlacements()[0]
	line := fmt.Sprintf("%s was given to %s %s ago%s.", p.GetProducerId(), given.GetCollectorId(), ago(given.GetAssignTime()), because(given.GetReason()))
	if from := given.GetPreviousCollectorId(); from != "" {
		line += " It came from " + from + "."
	}
	return []string{line}
}

// reasons are why a collector was given a producer, as the end of a sentence.
var reasons = map[registryv1.PlacementReason]string{
	registryv1.PlacementReason_PLACEMENT_REASON_LEAST_LOADED: "it had the least to do for what it is made for",
	registryv1.PlacementReason_PLACEMENT_REASON_HINT:         "the registration named it as its last collector",
	registryv1.PlacementReason_PLACEMENT_REASON_GONE:         "the collector before had no subscription for longer than its grace",
	registryv1.PlacementReason_PLACEMENT_REASON_DRAIN:        "the collector before is drained or was expunged",
	registryv1.PlacementReason_PLACEMENT_REASON_REBALANCE:    "the collector before had more than its share",
	registryv1.PlacementReason_PLACEMENT_REASON_OPERATOR:     "an operator moved it",
	registryv1.PlacementReason_PLACEMENT_REASON_UNREACHABLE:  "it renewed, and the collector before could not reach it",
	registryv1.PlacementReason_PLACEMENT_REASON_RETURNED:     "the one it was moved to did not come to collect it, and this one does",
	registryv1.PlacementReason_PLACEMENT_REASON_ADOPTED:      "the registry had lost its store, and this collector had kept it",
	registryv1.PlacementReason_PLACEMENT_REASON_THIRD:        "the collector that it was moved to is gone, too",
}

func because(r registryv1.PlacementReason) string {
	switch text := reasons[r]; {
	case text != "":
		return ", because " + text
	case r == registryv1.PlacementReason_PLACEMENT_REASON_UNSPECIFIED:
		return ""
	default:
		return fmt.Sprintf(", for the reason %d of a newer registry", r)
	}
}

// waitsFor tells of a handoff that is under way, and what is missing to its end;
// empty when there is none.
func waitsFor(p *registryv1.Producer, heard []testimony) string {
	if len(p.GetPlacements()) < 2 {
		return ""
	}
	to, from := p.GetPlacements()[0].GetCollectorId(), p.GetPlacements()[1].GetCollectorId()
	begin := fmt.Sprintf("It is being handed off: %s goes on with it until %s has collected it. ", from, to)
	switch t := heard[0]; {
	case t.err != nil:
		return begin + "What is missing is not known."
	case t.collection == nil:
		return begin + fmt.Sprintf("It waits for %s to take it into its set.", to)
	case t.collection.GetSuccessCount() > 0:
		return begin + fmt.Sprintf("It waits for %s to have that on its disk, and to say so.", to)
	case t.collection.GetFailureCount() > 0:
		return begin + fmt.Sprintf("It waits for the first collection by %s that succeeds; %d have failed.", to, t.collection.GetFailureCount())
	default:
		return begin + fmt.Sprintf("It waits for the first collection by %s.", to)
	}
}

// doomed tells what keeps it on the roll, and until when.
func doomed(p *registryv1.Producer, now time.Time) string {
	switch {
	case p.GetPermanent():
		return "It is permanent: it stays on the roll until it is deregistered."
	case p.GetSuspectTime() == nil:
		return fmt.Sprintf("It is under no suspicion: it is struck off only if it fails at its collector, and then has not renewed for %s.", span(p.GetExpireAfter()))
	}
	renewed := "has not renewed since"
	if t := p.GetRenewTime(); t != nil {
		renewed = "last renewed " + ago(t) + " ago"
	}
	return fmt.Sprintf("It has been known to fail at its collector for %s, and %s. %s", ago(p.GetSuspectTime()), renewed, ends(p.GetExpireTime(), now))
}

func ends(t *timestamppb.Timestamp, now time.Time) string {
	at := t.AsTime()
	if !at.After(now) {
		return "It is due: it is struck off as soon as its collector confirms that it still fails, unless expiry is held."
	}
	return fmt.Sprintf("If it neither renews nor answers it is struck off in %s at the earliest, at %s.",
		at.Sub(now).Round(time.Second), clock(t))
}
