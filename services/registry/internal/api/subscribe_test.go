package api_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/feed"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	scopeAll     = registryv1.SnapshotScope_SNAPSHOT_SCOPE_ALL
	scopeBuckets = registryv1.SnapshotScope_SNAPSHOT_SCOPE_BUCKETS
	scopeChanges = registryv1.SnapshotScope_SNAPSHOT_SCOPE_CHANGES
)

// A follower is a verifier on a stream.
type follower struct {
	*verifier
	t      *testing.T
	stream grpc.ServerStreamingClient[registryv1.SubscribeResponse]
	cancel context.CancelFunc
}

// follow subscribes, and reads the first snapshot.
func (r *rig) follow(t *testing.T, m *registryv1.SubscribeRequest, v *verifier) *follower {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	stream, err := r.Subscribe(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{v, t, stream, cancel}
	f.seal()
	return f
}

// seal reads until the next seal.
func (f *follower) seal() {
	f.t.Helper()
	if err := f.untilSeal(f.stream); err != nil {
		f.t.Fatal(err)
	}
}

// next reads one frame.
func (f *follower) next() *registryv1.SubscribeResponse {
	f.t.Helper()
	m, err := f.stream.Recv()
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := f.take(m); err != nil {
		f.t.Fatal(err)
	}
	return m
}

// TestFrames follows a stream from its begin through changes and a resume, with
// a client that knows the proto's comments only.
func TestFrames(t *testing.T) {
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		cmd := r.enlist(t, "c1", "a")
		f := r.follow(t, cmd, newVerifier())
		b := f.last
		if b.GetScope() != scopeAll || b.GetSnapshotId() != 1 || b.GetReason() != registryv1.SnapshotReason_SNAPSHOT_REASON_SUBSCRIBED ||
			b.GetHeartbeatInterval().AsDuration() != heartbeat || b.GetRegistryInstanceId() != "registry-1" || b.GetAssignmentFormat() != 3 {
			t.Errorf("begin %v", b)
		}
		registered := r.register(t, with("p", func(p *registryv1.Producer) {
			p.Labels, p.HonorLabels = []*registryv1.Label{{Name: "b", Value: "2"}, {Name: "a", Value: "1"}}, true
		}))
		f.seal()
		if b := f.last; b.GetScope() != scopeChanges || b.GetReason() != registryv1.SnapshotReason_SNAPSHOT_REASON_CHANGED || b.GetRevision() != registered.GetRevision() {
			t.Errorf("begin %v", b)
		}
		want := &registryv1.Assignment{
			ProducerId: "p", Version: registered.GetProducer().GetVersion(), Endpoint: "http://h.example:9100/metrics",
			Interval: durationpb.New(15 * time.Second), Timeout: durationpb.New(10 * time.Second),
			Labels: []*registryv1.Label{{Name: "a", Value: "1"}, {Name: "b", Value: "2"}}, Role: registryv1.Role_ROLE_OWNER, HonorLabels: true, Permanent: true,
		}
		if diff := cmp.Diff(want, f.set["p"], protocmp.Transform()); diff != "" {
			t.Errorf("assignment (-want +got):\n%s", diff)
		}
		r.register(t, producer("q"))
		f.seal()
		resp, err := r.DeregisterProducer(t.Context(), &registryv1.DeregisterProducerRequest{ProducerId: "p"})
		if err != nil {
			t.Fatal(err)
		}
		f.seal()
		removals := []*registryv1.Removal{{ProducerId: "p", Cause: registryv1.RemovalCause_REMOVAL_CAUSE_DEREGISTERED, Revision: resp.GetRevision()}}
		if diff := cmp.Diff(removals, f.lastRemovals, protocmp.Transform()); diff != "" || len(f.set) != 1 {
			t.Errorf("%d members, removals (-want +got):\n%s", len(f.set), diff)
		}
		f.cancel()
		cmd.Accepted = f.accepted()
		again := r.follow(t, cmd, f.verifier)
		if b := again.last; b.GetScope() != scopeBuckets || len(b.GetReplacedBuckets()) > 0 || again.chunks > 0 || b.GetSnapshotId() != 1 {
			t.Errorf("nothing has changed, and the resume is %v with %d chunks", b, again.chunks)
		}
	})
}

// TestHeartbeats come at the interval, with what was acknowledged here.
func TestHeartbeats(t *testing.T) {
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		cmd := r.enlist(t, "c1", "a")
		f := r.follow(t, cmd, newVerifier())
		begin := time.Now()
		for i := range 5 {
			f.next()
			if want := time.Duration(i+1) * heartbeat; f.beat == nil || time.Since(begin) != want {
				t.Errorf("heartbeat %d after %v, want %v", i, time.Since(begin), want)
			}
			if !f.beat.GetServerTime().AsTime().Equal(time.Now()) {
				t.Errorf("server time %v", f.beat.GetServerTime().AsTime())
			}
		}
		if f.beat.GetAcknowledgedRevision() != 0 {
			t.Errorf("%v: nothing was acknowledged", f.beat)
		}
		acknowledged := f.revision
		if err := acknowledging(f.applied(cmd))(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		f.next()
		if f.beat.GetAcknowledgedRevision() != acknowledged {
			t.Errorf("%v, want revision %d acknowledged", f.beat, acknowledged)
		}
	})
}

// applied is the acknowledgement of what was sealed last.
func (v *verifier) applied(cmd *registryv1.SubscribeRequest) *registryv1.AcknowledgeRequest {
	return &registryv1.AcknowledgeRequest{
		CollectorId: cmd.GetCollectorId(), InstanceId: cmd.GetInstanceId(), Generation: cmd.GetGeneration(),
		SubscriptionId: v.last.GetSubscriptionId(), SnapshotId: v.last.GetSnapshotId(), Epoch: v.epoch, Revision: v.revision,
		AcceptedCount: int64(len(v.set)), AcceptedDigest: digest(v.set), Persisted: true,
		Outcome: registryv1.AcknowledgeOutcome_ACKNOWLEDGE_OUTCOME_APPLIED,
	}
}

// TestAckTruth: the registry shows what was acknowledged, and explains what is
// held and rightly gone.
func TestAckTruth(t *testing.T) {
	bubble(t, filled(3), func(t *testing.T, r *rig) {
		cmd := r.enlist(t, "c1", "a")
		f := r.follow(t, cmd, newVerifier())
		gone, err := r.DeregisterProducer(t.Context(), &registryv1.DeregisterProducerRequest{ProducerId: "p000001"})
		if err != nil {
			t.Fatal(err)
		}
		f.seal()
		m := f.applied(cmd)
		m.HeldCount, m.HeldProducerIds = 2, []string{"p000001", "never"}
		m.UnrunnableCount, m.Unrunnable = 1, []*registryv1.UnrunnableAssignment{{ProducerId: "p000000", Reason: "scheme"}}
		resp, err := r.Acknowledge(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		want := []*registryv1.Removal{{ProducerId: "p000001", Cause: registryv1.RemovalCause_REMOVAL_CAUSE_DEREGISTERED, Revision: gone.GetRevision()}}
		if diff := cmp.Diff(want, resp.GetExplained(), protocmp.Transform()); diff != "" {
			t.Errorf("explained (-want +got):\n%s", diff)
		}
		m.Outcome = registryv1.AcknowledgeOutcome_ACKNOWLEDGE_OUTCOME_REFUSED
		m.Refusal = &registryv1.Refusal{Reason: "DIGEST_MISMATCH", Message: "m", ProducerId: "p", Revision: 99}
		if err := acknowledging(m)(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		got, err := r.GetCollector(t.Context(), &registryv1.GetCollectorRequest{CollectorId: "c1"})
		c := got.GetCollector()
		if err != nil || c.GetHeldCount() != 2 || c.GetUnrunnableCount() != 1 || c.GetAcknowledgedEpoch() != f.epoch ||
			c.GetAcknowledgedRevision() != f.revision || !c.GetLastSeenTime().AsTime().Equal(time.Now()) || c.GetAssignedCount() != 2 {
			t.Errorf("%v, %v", c, err)
		}
		if diff := cmp.Diff(m.GetRefusal(), c.GetLastRefusal(), protocmp.Transform()); diff != "" {
			t.Errorf("refusal (-want +got):\n%s", diff)
		}
	})
}

// TestBoundedMessages: no frame is larger than 64 KiB, however large the set.
func TestBoundedMessages(t *testing.T) {
	bubble(t, filled(20_000), func(t *testing.T, r *rig) {
		cmd := r.enlist(t, "c1", "a")
		f := r.follow(t, cmd, newVerifier())
		if len(f.set) != 20_000 || f.chunks < 40 || f.largest < 50<<10 || f.largest > 64<<10 {
			t.Errorf("%d members in %d chunks of up to %d bytes", len(f.set), f.chunks, f.largest)
		}
		// A few changes while nobody is connected cost a few buckets.
		f.cancel()
		for i := range 3 {
			r.register(t, producer(fmt.Sprintf("p%06d", i*1000)))
		}
		cmd.Accepted = f.accepted()
		f = r.follow(t, cmd, f.verifier)
		if b := f.last; b.GetBucketBits() != 9 || len(b.GetReplacedBuckets()) != 3 || f.lastUpserts > 3*100 {
			t.Errorf("three changes: %d buckets of 2^%d with %d assignments", len(b.GetReplacedBuckets()), b.GetBucketBits(), f.lastUpserts)
		}
		// Long names come and, with all others, go at once, each by its name.
		var come, gone []feed.Change
		for i := range 4000 {
			id := assignment.ProducerID(fmt.Sprintf("%0120d", i))
			stored := wire.EncodeStored(&assignment.Assignment{ProducerID: id, Endpoint: "http://h/"})
			come = append(come, feed.Change{Collector: "c1", ID: id, Item: &feed.Item{
				ProducerID: id, Version: assignment.VersionOf(stored), Role: assignment.RoleOwner, Stored: stored,
			}})
		}
		r.feed.Apply(r.feed.Revision()+1, come)
		f.seal()
		for id := range f.set {
			gone = append(gone, feed.Change{Collector: "c1", ID: assignment.ProducerID(id), Cause: assignment.CauseHandedOff})
		}
		r.feed.Apply(r.feed.Revision()+1, gone)
		f.seal()
		if len(f.set) > 0 || f.removals != 24_000 || f.chunks < 2 {
			t.Errorf("%d members are left after %d removals in %d chunks", len(f.set), f.removals, f.chunks)
		}
		if f.largest > 512<<10 {
			t.Errorf("a frame of %d bytes", f.largest)
		}
	})
}

func observing(collector string) *registryv1.SubscribeRequest {
	return &registryv1.SubscribeRequest{CollectorId: collector, Observe: true}
}

// TestObservers see what the collector would be sent, take no part, and are
// bounded in number.
func TestObservers(t *testing.T) {
	bubble(t, filled(3), func(t *testing.T, r *rig) {
		look := observing("c1")
		first := r.follow(t, look, newVerifier())
		got, err := r.GetCollector(t.Context(), &registryv1.GetCollectorRequest{CollectorId: "c1"})
		if err != nil || got.GetCollector().GetState() != registryv1.CollectorState_COLLECTOR_STATE_AWAY {
			t.Errorf("%v, %v: who is only looked at is not live", got, err)
		}
		collector := r.follow(t, r.enlist(t, "c1", "a"), newVerifier())
		for range 63 {
			r.follow(t, look, newVerifier())
		}
		want := fault{code: codes.ResourceExhausted, reason: "TOO_MANY_OBSERVERS", retry: time.Second}
		if diff := cmp.Diff(want, faultOf(t, subscribing(look)(t.Context(), r)), cmp.AllowUnexported(fault{})); diff != "" {
			t.Errorf("the next one (-want +got):\n%s", diff)
		}
		r.register(t, producer("p"))
		first.seal()
		collector.seal()
		if len(first.set) != 4 || len(collector.set) != 4 {
			t.Errorf("%d and %d members", len(first.set), len(collector.set))
		}
		first.cancel()
		synctest.Wait()
		r.follow(t, look, newVerifier())
	})
}

// TestHangingUp ends the session: the collector is away at once, and nothing is
// left of the stream.
func TestHangingUp(t *testing.T) {
	bubble(t, filled(3), func(t *testing.T, r *rig) {
		f := r.follow(t, r.enlist(t, "c1", "a"), newVerifier())
		f.cancel()
		synctest.Wait()
		got, err := r.GetCollector(t.Context(), &registryv1.GetCollectorRequest{CollectorId: "c1"})
		if err != nil || got.GetCollector().GetState() != registryv1.CollectorState_COLLECTOR_STATE_AWAY || got.GetCollector().GetConnectTime() != nil {
			t.Errorf("%v, %v", got, err)
		}
		if n := r.feed.Subscribers(); n != 0 {
			t.Errorf("%d subscribers are left", n)
		}
	})
}
