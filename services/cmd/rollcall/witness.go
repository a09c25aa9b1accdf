package main

import (
	"context"
	"fmt"
	"time"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A testimony is what a collector itself says of a producer.
type testimony struct {
	collector string

	// collection is nil where err says why, and where it does not collect the
	// producer.
	collection *collectorv1.Collection
	err        error
}

// hear asks a collector about a producer, at the address that it has told the
// registry. That it cannot be asked is an answer too.
func (r registryClient) hear(ctx context.Context, collector, producer string, limit time.Duration) testimony {
	t := testimony{collector: collector}
	known, err := r.GetCollector(ctx, &registryv1.GetCollectorRequest{CollectorId: collector})
	if err == nil {
		err = askKnown(ctx, r.flags, known.GetCollector(), limit, func(ctx context.Context, client collectorv1.CollectionServiceClient) error {
			resp, err := client.GetCollection(ctx, &collectorv1.GetCollectionRequest{ProducerId: producer})
			if status.Code(err) == codes.NotFound {
				return nil
			}
			t.collection = resp.GetCollection()
			return err
		})
	}
	t.err = err
	return t
}

// says tells in words how the producer is doing at that collector.
func (t testimony) says() string {
	c := t.collection
	switch {
	case t.err != nil:
		return fmt.Sprintf("%s cannot be asked: %v", t.collector, t.err)
	case c == nil:
		return t.collector + " says that it does not collect it"
	case c.GetUnrunnableReason() != "":
		return fmt.Sprintf("%s says that it cannot run it: %s", t.collector, c.GetUnrunnableReason())
	case c.GetLastResult() == nil:
		return t.collector + " says that it has not collected it yet"
	case c.GetLastResult().GetFailureReason() == collectorv1.FailureReason_FAILURE_REASON_UNSPECIFIED:
		return fmt.Sprintf("%s says that it answers: %d samples %s ago%s", t.collector,
			c.GetLastResult().GetSampleCount(), ago(c.GetLastSuccessTime()), held(c))
	default:
		return fmt.Sprintf("%s says that it fails: %s, last answer %s%s", t.collector, failureText(c.GetLastResult()), since(c), held(c))
	}
}

func failureText(r *collectorv1.CollectionResult) string {
	text := short(r.GetFailureReason().String(), "FAILURE_REASON_")
	if m := r.GetFailureMessage(); m != "" {
		text += " (" + m + ")"
	}
	return text
}

func since(c *collectorv1.Collection) string {
	if c.GetLastSuccessTime() == nil {
		return "never"
	}
	return ago(c.GetLastSuccessTime()) + " ago"
}

func held(c *collectorv1.Collection) string {
	if c.GetHeld() {
		return "; it holds it: absent from its set, still collected"
	}
	return ""
}

// yields is how many samples a second the producer yields by its last collection;
// false if that is not known.
func (t testimony) yields() (float64, bool) {
	last, interval := t.collection.GetLastResult(), t.collection.GetAssignment().GetInterval().AsDuration()
	if last == nil || last.GetFailureReason() != collectorv1.FailureReason_FAILURE_REASON_UNSPECIFIED || interval <= 0 {
		return 0, false
	}
	return float64(last.GetSampleCount()) / interval.Seconds(), true
}
