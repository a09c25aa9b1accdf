package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
)

// storeFlags say which collector's store is meant, and how long it may take.
type storeFlags struct {
	answerFlags
	CollectorAddress string        `default:"127.0.0.1:7480" group:"peer" help:"host:port of the collector's gRPC."`
	CallTimeout      time.Duration `default:"10m" group:"peer" help:"Longest wait for the answer."`

	process.ClientFlags
}

type deleteSeries struct {
	Selectors []string  `arg:"" name:"selector" help:"Which series: PromQL selectors, such as 'up{job=\"a\"}'."`
	Start     time.Time `env:"-" placeholder:"TIME" help:"Delete samples from this time on, as 2006-01-02T15:04:05Z. Default: from the first one."`
	End       time.Time `env:"-" placeholder:"TIME" help:"Delete samples up to this time. Default: up to the last one."`
	storeFlags

	parsed []*collectorv1.Selector
}

// Validate parses the selectors.
func (c *deleteSeries) Validate() error {
	for _, text := range c.Selectors {
		matchers, err := parser.NewParser(parser.Options{}).ParseMetricSelector(text)
		if err != nil {
			return fmt.Errorf("%q: %w", text, err)
		}
		s := &collectorv1.Selector{}
		narrow := false
		for _, m := range matchers {
			narrow = narrow || !m.Matches("")
			s.Matchers = append(s.Matchers, encodeMatcher(m))
		}
		if !narrow {
			return fmt.Errorf("%q: a matcher is needed that does not match the empty value", text)
		}
		c.parsed = append(c.parsed, s)
	}
	if !c.Start.IsZero() && !c.End.IsZero() && c.End.Before(c.Start) {
		return errors.New("--end is before --start")
	}
	return nil
}

func encodeMatcher(m *labels.Matcher) *collectorv1.LabelMatcher {
	return &collectorv1.LabelMatcher{
		Type: collectorv1.MatchType(m.Type) + collectorv1.MatchType_MATCH_TYPE_EQUAL, Name: m.Name, Value: m.Value,
	}
}

// Run deletes series from a collector's store.
func (c *deleteSeries) Run(ctx context.Context, o output) error {
	req := &collectorv1.DeleteSeriesRequest{Selectors: c.parsed}
	if !c.Start.IsZero() {
		ms := c.Start.UnixMilli()
		req.StartMs = &ms
	}
	if !c.End.IsZero() {
		ms := c.End.UnixMilli()
		req.EndMs = &ms
	}
	return askCollector(ctx, &c.ClientFlags, c.CollectorAddress, c.CallTimeout, func(ctx context.Context, client collectorv1.CollectionServiceClient) error {
		resp, err := client.DeleteSeries(ctx, req)
		switch {
		case err != nil:
			return err
		case c.Output == "json":
			return o.json(resp)
		}
		_, err = fmt.Fprintf(o.out, "%d series deleted\n", resp.GetSeriesCount())
		return err
	})
}

type createSnapshot struct{ storeFlags }

// Run makes a snapshot of a collector's store.
func (c *createSnapshot) Run(ctx context.Context, o output) error {
	return askCollector(ctx, &c.ClientFlags, c.CollectorAddress, c.CallTimeout, func(ctx context.Context, client collectorv1.CollectionServiceClient) error {
		resp, err := client.CreateSnapshot(ctx, &collectorv1.CreateSnapshotRequest{})
		switch {
		case err != nil:
			return err
		case c.Output == "json":
			return o.json(resp)
		}
		_, err = fmt.Fprintf(o.out, "%s\n%d bytes, at the collector\n", resp.GetPath(), resp.GetSizeBytes())
		return err
	})
}
