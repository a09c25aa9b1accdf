package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/deploy/internal/child"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/receiver/receivertest"
)

// receive starts OpenTelemetry's own receiver of OTLP. It returns where it
// listens and what it puts everything into.
func receive(t *testing.T) (address string, got *consumertest.MetricsSink) {
	t.Helper()
	address, got = freeAddress(t), new(consumertest.MetricsSink)
	factory := otlpreceiver.NewFactory()
	cfg := factory.CreateDefaultConfig()
	conf := confmap.NewFromStringMap(map[string]any{"protocols": map[string]any{"grpc": map[string]any{"endpoint": address}}})
	if err := conf.Unmarshal(cfg); err != nil {
		t.Fatal(err)
	}
	r, err := factory.CreateMetrics(t.Context(), receivertest.NewNopSettings(factory.Type()), cfg, got)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Start(t.Context(), componenttest.NewNopHost()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := r.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return address, got
}

func freeAddress(t *testing.T) string {
	t.Helper()
	all, err := child.FreePorts(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	return all[0]
}

// A found is what a receiver has, by what it is.
type found map[string]int

// look counts what all messages have.
func look(t *testing.T, all []pmetric.Metrics) found {
	t.Helper()
	f := found{}
	for _, md := range all {
		for _, rm := range md.ResourceMetrics().All() {
			if service(rm.Resource()) == "" {
				t.Error("a resource without service.name and service.instance.id")
			}
			for _, sm := range rm.ScopeMetrics().All() {
				if sm.Scope().Name() == "" {
					t.Error("a scope without a name")
				}
				for _, m := range sm.Metrics().All() {
					f.metric(t, m)
				}
			}
		}
	}
	return f
}

func service(r pcommon.Resource) string {
	name, ok := r.Attributes().Get("service.name")
	_, too := r.Attributes().Get("service.instance.id")
	if !ok || !too {
		return ""
	}
	return name.Str()
}

func (f found) metric(t *testing.T, m pmetric.Metric) {
	t.Helper()
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		for _, p := range m.Gauge().DataPoints().All() {
			f.point("gauge", p.Flags())
		}
	case pmetric.MetricTypeSum:
		sum := m.Sum()
		for _, p := range sum.DataPoints().All() {
			if sum.IsMonotonic() && p.StartTimestamp() == 0 && !p.Flags().NoRecordedValue() {
				t.Errorf("%s: no start time", m.Name())
			}
			f.point("sum", p.Flags())
		}
		if sum.AggregationTemporality() != pmetric.AggregationTemporalityCumulative {
			t.Errorf("%s: not cumulative", m.Name())
		}
	case pmetric.MetricTypeHistogram:
		for _, p := range m.Histogram().DataPoints().All() {
			if !p.Flags().NoRecordedValue() && p.BucketCounts().Len() != p.ExplicitBounds().Len()+1 {
				t.Errorf("%s: %d buckets, %d bounds", m.Name(), p.BucketCounts().Len(), p.ExplicitBounds().Len())
			}
			f.point("histogram", p.Flags())
		}
	case pmetric.MetricTypeExponentialHistogram:
		for _, p := range m.ExponentialHistogram().DataPoints().All() {
			f.point("exponential histogram", p.Flags())
		}
	case pmetric.MetricTypeSummary:
		for _, p := range m.Summary().DataPoints().All() {
			f.point("summary", p.Flags())
		}
	default:
		t.Errorf("%s: a metric without data", m.Name())
	}
}

func (f found) point(kind string, flags pmetric.DataPointFlags) {
	f[kind]++
	if flags.NoRecordedValue() {
		f["stale "+kind]++
	}
}

// await waits until the receiver has of all kinds.
func await(t *testing.T, got *consumertest.MetricsSink, limit time.Duration, kinds ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for {
		f, missing := look(t, got.AllMetrics()), ""
		for _, kind := range kinds {
			if f[kind] == 0 {
				missing = kind
			}
		}
		if missing == "" {
			t.Log(f)
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("no %s among %v", missing, f)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
