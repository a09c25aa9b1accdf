package api_test

import (
	"context"
	"math"
	"strings"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
)

// A call is one request that must fail.
type call func(ctx context.Context, r *rig) error

func registering(p *registryv1.Producer) call {
	return func(ctx context.Context, r *rig) error {
		_, err := r.RegisterProducer(ctx, &registryv1.RegisterProducerRequest{Producer: p})
		return err
	}
}

func deregistering(id, instance string) call {
	return func(ctx context.Context, r *rig) error {
		_, err := r.DeregisterProducer(ctx, &registryv1.DeregisterProducerRequest{ProducerId: id, InstanceId: instance})
		return err
	}
}

func getting(id string, least int64) call {
	return func(ctx context.Context, r *rig) error {
		_, err := r.GetProducer(ctx, &registryv1.GetProducerRequest{ProducerId: id, MinRevision: least})
		return err
	}
}

func gettingCollector(id string, least int64) call {
	return func(ctx context.Context, r *rig) error {
		_, err := r.GetCollector(ctx, &registryv1.GetCollectorRequest{CollectorId: id, MinRevision: least})
		return err
	}
}

func enlisting(c *registryv1.Collector) call {
	return func(ctx context.Context, r *rig) error {
		_, err := r.RegisterCollector(ctx, &registryv1.RegisterCollectorRequest{Collector: c})
		return err
	}
}

func subscribing(m *registryv1.SubscribeRequest) call {
	return func(ctx context.Context, r *rig) error {
		stream, err := r.Subscribe(ctx, m)
		if err != nil {
			return err
		}
		return newVerifier().untilEnd(stream)
	}
}

func acknowledging(m *registryv1.AcknowledgeRequest) call {
	return func(ctx context.Context, r *rig) error {
		_, err := r.Acknowledge(ctx, m)
		return err
	}
}

func listing(m *registryv1.ListProducersRequest) call {
	return func(ctx context.Context, r *rig) error {
		_, err := r.ListProducers(ctx, m)
		return err
	}
}

func listingCollectors(m *registryv1.ListCollectorsRequest) call {
	return func(ctx context.Context, r *rig) error {
		_, err := r.ListCollectors(ctx, m)
		return err
	}
}

func draining(id string, only bool) call {
	return func(ctx context.Context, r *rig) error {
		_, err := r.DrainCollector(ctx, &registryv1.DrainCollectorRequest{CollectorId: id, ValidateOnly: only})
		return err
	}
}

func undraining(id string) call {
	return func(ctx context.Context, r *rig) error {
		_, err := r.UndrainCollector(ctx, &registryv1.UndrainCollectorRequest{CollectorId: id})
		return err
	}
}

func expunging(id string, force bool) call {
	return func(ctx context.Context, r *rig) error {
		_, err := r.ExpungeCollector(ctx, &registryv1.ExpungeCollectorRequest{CollectorId: id, Force: force})
		return err
	}
}

func moving(producer, collector string) call {
	return func(ctx context.Context, r *rig) error {
		_, err := r.MoveProducer(ctx, &registryv1.MoveProducerRequest{ProducerId: producer, CollectorId: collector})
		return err
	}
}

func previewing(ctx context.Context, r *rig) error {
	_, err := r.PreviewRebalance(ctx, &registryv1.PreviewRebalanceRequest{})
	return err
}

func rebalancing(most int32) call {
	return func(ctx context.Context, r *rig) error {
		_, err := r.Rebalance(ctx, &registryv1.RebalanceRequest{MaxMoveCount: most})
		return err
	}
}

func confirming(mode registryv1.ExpiryMode, span *durationpb.Duration) call {
	return func(ctx context.Context, r *rig) error {
		_, err := r.ConfirmExpiry(ctx, &registryv1.ConfirmExpiryRequest{Mode: mode, Duration: span})
		return err
	}
}

func adopting(collector string, all ...*registryv1.Assignment) call {
	return func(ctx context.Context, r *rig) error {
		_, err := r.AdoptProducers(ctx, &registryv1.AdoptProducersRequest{CollectorId: collector, Assignments: all})
		return err
	}
}

func invalid(fields ...string) fault { return fault{code: codes.InvalidArgument, fields: fields} }

func with(id string, change func(*registryv1.Producer)) *registryv1.Producer {
	p := producer(id)
	change(p)
	return p
}

func applied(change func(*registryv1.AcknowledgeRequest)) *registryv1.AcknowledgeRequest {
	m := &registryv1.AcknowledgeRequest{
		CollectorId: "c1", InstanceId: "b", Generation: 2, Outcome: registryv1.AcknowledgeOutcome_ACKNOWLEDGE_OUTCOME_APPLIED,
	}
	change(m)
	return m
}

// failures is every class of error, by the call that meets it. Producer p was
// registered by instances a and b; q was deregistered; collector c1 has the
// instances a and b, the latter with a stream; collector away has none, and gone
// was expunged.
var failures = map[string]struct {
	call call
	want fault
}{
	"no producer":        {registering(nil), invalid("producer")},
	"empty producer":     {registering(&registryv1.Producer{}), invalid("producer.producer_id", "producer.endpoint")},
	"endpoint":           {registering(with("x", func(p *registryv1.Producer) { p.Endpoint = "ftp://h/" })), invalid("producer.endpoint")},
	"forbidden endpoint": {registering(with("x", func(p *registryv1.Producer) { p.Endpoint = "http://169.254.169.254/" })), invalid("producer.endpoint")},
	"times": {registering(with("x", func(p *registryv1.Producer) {
		p.Interval, p.Timeout = durationpb.New(time.Millisecond), durationpb.New(-1)
	})), invalid("producer.interval", "producer.timeout")},
	"label": {registering(with("x", func(p *registryv1.Producer) {
		p.Labels = []*registryv1.Label{{Name: "ok", Value: "v"}, {Name: "__x", Value: "v"}}
	})), invalid("producer.labels[1].name")},
	"ids": {registering(with("x", func(p *registryv1.Producer) { p.InstanceId, p.LastCollectorId = "-", "a/b" })), invalid("producer.instance_id", "producer.last_collector_id")},

	"a permanent one has no lease": {registering(with("x", func(p *registryv1.Producer) {
		p.LeaseDuration, p.ExpireAfter = durationpb.New(time.Minute), durationpb.New(time.Hour)
	})), invalid("producer.lease_duration", "producer.expire_after")},
	"lease": {registering(with("x", func(p *registryv1.Producer) {
		p.InstanceId, p.LeaseDuration = "a", durationpb.New(9*time.Second)
	})), invalid("producer.lease_duration")},
	"expiry below the lease": {registering(with("x", func(p *registryv1.Producer) {
		p.InstanceId, p.LeaseDuration, p.ExpireAfter = "a", durationpb.New(time.Hour), durationpb.New(time.Minute)
	})), invalid("producer.expire_after")},
	"rate and zone": {registering(with("x", func(p *registryv1.Producer) {
		p.ExpectedSamplesPerSecond, p.Zone = math.NaN(), strings.Repeat("z", 129)
	})), invalid("producer.zone", "producer.expected_samples_per_second")},

	"instance replaced":              {registering(with("p", func(p *registryv1.Producer) { p.InstanceId = "a" })), fault{code: codes.Aborted, reason: "INSTANCE_REPLACED"}},
	"instance deregistered":          {registering(with("q", func(p *registryv1.Producer) { p.InstanceId = "a" })), fault{code: codes.FailedPrecondition, reason: "INSTANCE_DEREGISTERED"}},
	"deregister: id":                 {deregistering("", ""), invalid("producer_id")},
	"deregister: instance":           {deregistering("p", "!"), invalid("instance_id")},
	"deregister: replaced":           {deregistering("p", "a"), fault{code: codes.Aborted, reason: "INSTANCE_REPLACED"}},
	"get: unknown":                   {getting("x", 0), fault{code: codes.NotFound, reason: "UNKNOWN_PRODUCER"}},
	"get: id":                        {getting("/", 0), invalid("producer_id")},
	"get: min_revision":              {getting("p", -1), invalid("min_revision")},
	"get: behind":                    {getting("p", 1<<40), fault{code: codes.Unavailable, reason: "BEHIND", retry: time.Second}},
	"get collector: id":              {gettingCollector("a/b", 0), invalid("collector_id")},
	"get collector: unknown":         {gettingCollector("c9", 0), fault{code: codes.NotFound, reason: "UNKNOWN_COLLECTOR"}},
	"get collector: min_revision":    {gettingCollector("c1", -1), invalid("min_revision")},
	"list: page_size":                {listing(&registryv1.ListProducersRequest{PageSize: -1}), invalid("page_size")},
	"list: page_token":               {listing(&registryv1.ListProducersRequest{PageToken: "%"}), invalid("page_token")},
	"list: another's page_token":     {listing(&registryv1.ListProducersRequest{PageToken: "LQ"}), invalid("page_token")},
	"list: min_revision":             {listing(&registryv1.ListProducersRequest{MinRevision: -1}), invalid("min_revision")},
	"list: collector_id":             {listing(&registryv1.ListProducersRequest{CollectorId: "a/b"}), invalid("collector_id")},
	"list: state":                    {listing(&registryv1.ListProducersRequest{State: 77}), invalid("state")},
	"list: selector":                 {listing(&registryv1.ListProducersRequest{Selector: `{job=~"("}`}), invalid("selector")},
	"list: no selector":              {listing(&registryv1.ListProducersRequest{Selector: `rate(x[5m])`}), invalid("selector")},
	"list: unclosed selector":        {listing(&registryv1.ListProducersRequest{Selector: `{job="a"`}), invalid("selector")},
	"list: a metric is no label":     {listing(&registryv1.ListProducersRequest{Selector: `up{job="a"}`}), invalid("selector")},
	"list: huge selector":            {listing(&registryv1.ListProducersRequest{Selector: `{job="` + strings.Repeat("a", 4<<10) + `"}`}), invalid("selector")},
	"list collectors: page_size":     {listingCollectors(&registryv1.ListCollectorsRequest{PageSize: -1}), invalid("page_size")},
	"list collectors: page_token":    {listingCollectors(&registryv1.ListCollectorsRequest{PageToken: "YS9i"}), invalid("page_token")},
	"list collectors: min_revision":  {listingCollectors(&registryv1.ListCollectorsRequest{MinRevision: -1}), invalid("min_revision")},
	"list collectors: state":         {listingCollectors(&registryv1.ListCollectorsRequest{State: 77}), invalid("state")},
	"no collector":                   {enlisting(nil), invalid("collector")},
	"collector":                      {enlisting(&registryv1.Collector{IntrospectionEndpoint: "x"}), invalid("collector.collector_id", "collector.instance_id", "collector.introspection_endpoint")},
	"collector instance replaced":    {enlisting(&registryv1.Collector{CollectorId: "c1", InstanceId: "a"}), fault{code: codes.Aborted, reason: "INSTANCE_REPLACED"}},
	"subscribe: all fields":          {subscribing(&registryv1.SubscribeRequest{MinRevision: -1}), invalid("collector_id", "instance_id", "generation", "min_revision")},
	"subscribe: unknown":             {subscribing(&registryv1.SubscribeRequest{CollectorId: "c9", InstanceId: "a", Generation: 1}), fault{code: codes.NotFound, reason: "UNKNOWN_COLLECTOR"}},
	"observe: unknown":               {subscribing(&registryv1.SubscribeRequest{CollectorId: "c9", Observe: true}), fault{code: codes.NotFound, reason: "UNKNOWN_COLLECTOR"}},
	"subscribe: generation":          {subscribing(&registryv1.SubscribeRequest{CollectorId: "c1", InstanceId: "b", Generation: 9}), fault{code: codes.FailedPrecondition, reason: "GENERATION_MISMATCH"}},
	"subscribe: superseded":          {subscribing(&registryv1.SubscribeRequest{CollectorId: "c1", InstanceId: "a", Generation: 1}), fault{code: codes.Aborted, reason: "SUPERSEDED"}},
	"subscribe: behind":              {subscribing(&registryv1.SubscribeRequest{CollectorId: "c1", InstanceId: "b", Generation: 2, MinRevision: 1 << 40}), fault{code: codes.Unavailable, reason: "BEHIND", retry: time.Second}},
	"subscribe: digests":             {subscribing(&registryv1.SubscribeRequest{CollectorId: "c1", Observe: true, Accepted: &registryv1.AcceptedSet{Epoch: "e", BucketBits: 3, BucketDigests: make([]uint64, 7)}}), invalid("accepted.bucket_digests")},
	"subscribe: bits":                {subscribing(&registryv1.SubscribeRequest{CollectorId: "c1", Observe: true, Accepted: &registryv1.AcceptedSet{Epoch: "e", BucketBits: 1 << 31}}), invalid("accepted.bucket_bits")},
	"acknowledge: outcome":           {acknowledging(applied(func(m *registryv1.AcknowledgeRequest) { m.Outcome = 0 })), invalid("outcome")},
	"acknowledge: unknown outcome":   {acknowledging(applied(func(m *registryv1.AcknowledgeRequest) { m.Outcome = 9 })), invalid("outcome")},
	"acknowledge: held":              {acknowledging(applied(func(m *registryv1.AcknowledgeRequest) { m.HeldProducerIds = make([]string, 1001) })), invalid("held_producer_ids")},
	"acknowledge: unknown collector": {acknowledging(applied(func(m *registryv1.AcknowledgeRequest) { m.CollectorId = "c9" })), fault{code: codes.NotFound, reason: "UNKNOWN_COLLECTOR"}},
	"acknowledge: another's":         {acknowledging(applied(func(m *registryv1.AcknowledgeRequest) { m.InstanceId = "a" })), fault{code: codes.FailedPrecondition, reason: "STALE_ACKNOWLEDGEMENT"}},
	"acknowledge: collected":         {acknowledging(applied(func(m *registryv1.AcknowledgeRequest) { m.CollectedProducerIds = make([]string, 1001) })), invalid("collected_producer_ids")},
	"acknowledge: another epoch":     {acknowledging(applied(func(m *registryv1.AcknowledgeRequest) { m.Epoch = "x" })), fault{code: codes.FailedPrecondition, reason: "STALE_ACKNOWLEDGEMENT"}},

	"drain: id":                 {draining("a/b", false), invalid("collector_id")},
	"drain: unknown":            {draining("c9", false), fault{code: codes.NotFound, reason: "UNKNOWN_COLLECTOR"}},
	"drain: the only one":       {draining("c1", false), fault{code: codes.FailedPrecondition, reason: "NO_OTHER_COLLECTOR"}},
	"drain: only in a plan":     {draining("c1", true), fault{code: codes.FailedPrecondition, reason: "NO_OTHER_COLLECTOR"}},
	"drain: expunged":           {draining("gone", false), fault{code: codes.FailedPrecondition, reason: "EXPUNGED"}},
	"undrain: id":               {undraining(""), invalid("collector_id")},
	"undrain: unknown":          {undraining("c9"), fault{code: codes.NotFound, reason: "UNKNOWN_COLLECTOR"}},
	"expunge: id":               {expunging(" ", true), invalid("collector_id")},
	"expunge: unknown":          {expunging("c9", true), fault{code: codes.NotFound, reason: "UNKNOWN_COLLECTOR"}},
	"expunge: live":             {expunging("c1", false), fault{code: codes.FailedPrecondition, reason: "NOT_DRAINED"}},
	"expunged: register":        {enlisting(&registryv1.Collector{CollectorId: "gone", InstanceId: "b"}), fault{code: codes.FailedPrecondition, reason: "EXPUNGED"}},
	"expunged: subscribe":       {subscribing(&registryv1.SubscribeRequest{CollectorId: "gone", InstanceId: "a", Generation: 1}), fault{code: codes.FailedPrecondition, reason: "EXPUNGED"}},
	"collector rate and zone":   {enlisting(&registryv1.Collector{CollectorId: "c2", InstanceId: "a", CapacitySamplesPerSecond: -1, Zone: strings.Repeat("z", 129)}), invalid("collector.capacity_samples_per_second", "collector.zone")},
	"move: ids":                 {moving("", "c1"), invalid("producer_id")},
	"move: collector":           {moving("p", "a/b"), invalid("collector_id")},
	"move: unknown":             {moving("x", "c1"), fault{code: codes.NotFound, reason: "UNKNOWN_PRODUCER"}},
	"move: unknown collector":   {moving("p", "c9"), fault{code: codes.NotFound, reason: "UNKNOWN_COLLECTOR"}},
	"move: not live":            {moving("p", "away"), fault{code: codes.FailedPrecondition, reason: "COLLECTOR_NOT_OPEN"}},
	"move: expunged":            {moving("p", "gone"), fault{code: codes.FailedPrecondition, reason: "COLLECTOR_NOT_OPEN"}},
	"rebalance: negative":       {rebalancing(-1), invalid("max_move_count")},
	"rebalance: too many":       {rebalancing(10_001), invalid("max_move_count")},
	"confirm: mode":             {confirming(9, nil), invalid("mode")},
	"confirm: short":            {confirming(registryv1.ExpiryMode_EXPIRY_MODE_HOLD, durationpb.New(time.Second)), invalid("duration")},
	"confirm: long":             {confirming(registryv1.ExpiryMode_EXPIRY_MODE_HASTEN, durationpb.New(25*time.Hour)), invalid("duration")},
	"confirm: no duration":      {confirming(registryv1.ExpiryMode_EXPIRY_MODE_HOLD, &durationpb.Duration{Seconds: 60, Nanos: -1}), invalid("duration")},
	"confirm: auto has no end":  {confirming(registryv1.ExpiryMode_EXPIRY_MODE_AUTO, durationpb.New(time.Hour)), invalid("duration")},
	"confirm: unspecified, too": {confirming(0, durationpb.New(time.Hour)), invalid("duration")},
	"adopt: id":                 {adopting("a/b"), invalid("collector_id")},
	"adopt: unknown":            {adopting("c9"), fault{code: codes.NotFound, reason: "UNKNOWN_COLLECTOR"}},
	"adopt: expunged":           {adopting("gone"), fault{code: codes.FailedPrecondition, reason: "EXPUNGED"}},
	"adopt: many":               {adopting("c1", make([]*registryv1.Assignment, 1001)...), invalid("assignments")},
	"adopt: large": {adopting("c1", &registryv1.Assignment{
		ProducerId: "x", Labels: []*registryv1.Label{{Name: "a", Value: strings.Repeat("x", 2<<20)}},
	}), invalid("assignments")},
}
