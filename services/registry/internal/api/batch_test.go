package api_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
)

// TestRegistrationRoundTrip: what is registered is what is read, with the
// defaults filled in; a renewal changes nothing, in whatever order its labels
// come.
func TestRegistrationRoundTrip(t *testing.T) {
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		in := &registryv1.Producer{
			ProducerId: "team/app:1", Endpoint: "https://h.example:9100/metrics?x=1", Interval: durationpb.New(30 * time.Second),
			Labels:     []*registryv1.Label{{Name: "zone", Value: "a"}, {Name: "app", Value: "ü"}, {Name: "none"}},
			InstanceId: "i1", HonorLabels: true, IgnoreTimestamps: true,
			Limits:         &registryv1.CollectionLimits{MaxBodyBytes: 1, MaxSampleCount: 2, MaxLabelCount: 3, MaxLabelValueBytes: 4},
			FallbackFormat: registryv1.ExpositionFormat_EXPOSITION_FORMAT_OPENMETRICS_TEXT,
		}
		resp := r.register(t, in)
		if !resp.GetChanged() || resp.GetRenewAfter().AsDuration() != renewAfter || resp.GetEpoch() == "" || resp.GetRevision() == 0 {
			t.Errorf("%v", resp)
		}
		got, err := r.GetProducer(t.Context(), &registryv1.GetProducerRequest{ProducerId: in.GetProducerId(), MinRevision: resp.GetRevision()})
		if err != nil {
			t.Fatal(err)
		}
		want := &registryv1.Producer{
			ProducerId: in.GetProducerId(), Endpoint: in.GetEndpoint(), Interval: in.GetInterval(), Timeout: durationpb.New(10 * time.Second),
			Labels:     []*registryv1.Label{{Name: "app", Value: "ü"}, {Name: "zone", Value: "a"}},
			InstanceId: "i1", HonorLabels: true, IgnoreTimestamps: true, Limits: in.GetLimits(), FallbackFormat: in.GetFallbackFormat(),
			Permanent: new(false), LeaseDuration: durationpb.New(10 * time.Minute), ExpireAfter: durationpb.New(time.Hour),
			State: registryv1.ProducerState_PRODUCER_STATE_UNASSIGNED,
		}
		if diff := cmp.Diff(want, got.GetProducer(), protocmp.Transform(),
			protocmp.IgnoreFields(want, "version", "create_time", "update_time")); diff != "" {
			t.Errorf("producer (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(resp.GetProducer(), got.GetProducer(), protocmp.Transform()); diff != "" {
			t.Errorf("answered and read differ (-answered +read):\n%s", diff)
		}
		in.Labels[0], in.Labels[1] = in.Labels[1], in.Labels[0]
		if again := r.register(t, in); again.GetChanged() || again.GetRevision() != resp.GetRevision() {
			t.Errorf("the renewal: %v", again)
		}
	})
}

// TestBatchResults stand in the order of the requests, each by itself.
func TestBatchResults(t *testing.T) {
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		r.enlist(t, "c1", "a")
		r.register(t, with("taken", func(p *registryv1.Producer) { p.InstanceId = "old" }))
		r.register(t, with("taken", func(p *registryv1.Producer) { p.InstanceId = "new" }))
		m := &registryv1.BatchRegisterProducersRequest{}
		want := map[int]*registryv1.BatchRegisterProducersResult{}
		for i := range 1000 {
			req := &registryv1.RegisterProducerRequest{Producer: producer(fmt.Sprintf("p%d", i))}
			switch i % 100 {
			case 17:
				req.Producer.Endpoint = "nonsense"
				req.Producer.Labels = []*registryv1.Label{{Name: "0"}}
				want[i] = &registryv1.BatchRegisterProducersResult{
					Code:            int32(codes.InvalidArgument),
					FieldViolations: []*registryv1.FieldViolation{{Field: "producer.endpoint"}, {Field: "producer.labels[0].name"}},
				}
			case 42:
				req.Producer = nil
				want[i] = &registryv1.BatchRegisterProducersResult{
					Code: int32(codes.InvalidArgument), FieldViolations: []*registryv1.FieldViolation{{Field: "producer"}},
				}
			case 63:
				req.ValidateOnly = true
			}
			m.Requests = append(m.Requests, req)
		}
		m.Requests[500].Producer.ProducerId, m.Requests[500].Producer.InstanceId = "taken", "old"
		want[500] = &registryv1.BatchRegisterProducersResult{Code: int32(codes.Aborted)}

		resp, err := r.BatchRegisterProducers(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		if len(resp.GetResults()) != 1000 {
			t.Fatalf("%d results", len(resp.GetResults()))
		}
		for i, result := range resp.GetResults() {
			checkResult(t, i, m.GetRequests()[i], result, want[i])
		}
		all, err := r.ListProducers(t.Context(), &registryv1.ListProducersRequest{PageSize: 1000})
		if n := len(all.GetProducers()); err != nil || n != 1000-10-10-10-1+1 {
			t.Errorf("%d producers, %v", n, err)
		}
	})
}

func checkResult(t *testing.T, i int, req *registryv1.RegisterProducerRequest, got, want *registryv1.BatchRegisterProducersResult) {
	t.Helper()
	if want == nil {
		p := got.GetResponse().GetProducer()
		if got.GetCode() != 0 || got.GetMessage() != "" || p.GetProducerId() != req.GetProducer().GetProducerId() || !got.GetResponse().GetChanged() {
			t.Errorf("result %d: %v", i, got)
		}
		if (got.GetResponse().GetRevision() == 0) != req.GetValidateOnly() {
			t.Errorf("result %d at revision %d, only validated: %v", i, got.GetResponse().GetRevision(), req.GetValidateOnly())
		}
		return
	}
	if diff := cmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreFields(want, "message"),
		protocmp.IgnoreFields(&registryv1.FieldViolation{}, "description")); diff != "" || got.GetMessage() == "" {
		t.Errorf("result %d, message %q (-want +got):\n%s", i, got.GetMessage(), diff)
	}
}

// TestBatchesAreRefusedWhole for what is wrong with them as batches.
func TestBatchesAreRefusedWhole(t *testing.T) {
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		at := r.memory.Revision()
		batch := func(ids ...string) *registryv1.BatchRegisterProducersRequest {
			m := &registryv1.BatchRegisterProducersRequest{}
			for _, id := range ids {
				m.Requests = append(m.Requests, &registryv1.RegisterProducerRequest{Producer: producer(id)})
			}
			return m
		}
		tooMany := batch()
		for i := range 1001 {
			tooMany.Requests = append(tooMany.Requests, &registryv1.RegisterProducerRequest{Producer: producer(fmt.Sprint(i))})
		}
		firstAtFault := batch("a", "b", "a")
		firstAtFault.Requests[0].Producer.Endpoint = ""
		bothAtFault := batch("a", "b", "a")
		bothAtFault.Requests[0].Producer.Endpoint, bothAtFault.Requests[2].Producer.Endpoint = "", ""
		for name, test := range map[string]struct {
			m     *registryv1.BatchRegisterProducersRequest
			field string
		}{
			"too many":                              {tooMany, "requests"},
			"twice":                                 {batch("a", "b", "a"), "requests[2].producer.producer_id"},
			"twice, the first one at fault":         {firstAtFault, "requests[2].producer.producer_id"},
			"twice, both at fault":                  {bothAtFault, "requests[2].producer.producer_id"},
			"twice, and another one in front of it": {batch("x", "y", "y", "x"), "requests[2].producer.producer_id"},
		} {
			_, err := r.BatchRegisterProducers(t.Context(), test.m)
			if got := faultOf(t, err); got.code != codes.InvalidArgument || len(got.fields) != 1 || got.fields[0] != test.field {
				t.Errorf("%s: %+v, want %s", name, got, test.field)
			}
		}
		if resp, err := r.BatchRegisterProducers(t.Context(), nil); err != nil || len(resp.GetResults()) != 0 {
			t.Errorf("an empty batch: %v, %v", resp, err)
		}
		if r.memory.Revision() != at {
			t.Error("something was written")
		}
	})
}

// TestEmptyIdsAreFaultsOfTheirOwn, not twice the same id.
func TestEmptyIdsAreFaultsOfTheirOwn(t *testing.T) {
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		resp, err := r.BatchRegisterProducers(t.Context(), &registryv1.BatchRegisterProducersRequest{
			Requests: []*registryv1.RegisterProducerRequest{{Producer: producer("")}, {}, {Producer: producer("")}, {Producer: producer("p")}},
		})
		if err != nil {
			t.Fatal(err)
		}
		for i, result := range resp.GetResults() {
			want := codes.InvalidArgument
			if i == 3 {
				want = codes.OK
			}
			if result.GetCode() != int32(want) {
				t.Errorf("result %d: %v", i, result)
			}
		}
	})
}

func TestValidateOnlyWritesNothing(t *testing.T) {
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		at := r.memory.Revision()
		resp, err := r.RegisterProducer(t.Context(), &registryv1.RegisterProducerRequest{Producer: producer("p"), ValidateOnly: true})
		if err != nil || !resp.GetChanged() || resp.GetProducer().GetVersion() == 0 || resp.GetRevision() != 0 {
			t.Errorf("%v, %v", resp, err)
		}
		if err := getting("p", 0)(t.Context(), r); faultOf(t, err).code != codes.NotFound || r.memory.Revision() != at {
			t.Errorf("it was written: %v", err)
		}
	})
}

func TestDeregister(t *testing.T) {
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		registered := r.register(t, producer("p"))
		for i, changed := range []bool{true, false} {
			resp, err := r.DeregisterProducer(t.Context(), &registryv1.DeregisterProducerRequest{ProducerId: "p"})
			if err != nil || resp.GetChanged() != changed || resp.GetRevision() <= registered.GetRevision() || resp.GetEpoch() != registered.GetEpoch() {
				t.Errorf("time %d: %v, %v", i, resp, err)
			}
		}
	})
}
