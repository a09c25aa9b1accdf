package api_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// join registers a collector, and reads its stream from now on.
func (r *rig) join(t *testing.T, id string) (*registryv1.SubscribeRequest, *follower) {
	t.Helper()
	cmd := r.enlist(t, id, id+"-a")
	return cmd, r.follow(t, cmd, newVerifier())
}

// hinted is a valid registration that goes to a collector.
func hinted(id, collector string) *registryv1.Producer {
	return with(id, func(p *registryv1.Producer) { p.LastCollectorId = collector })
}

func (r *rig) collector(t *testing.T, id string) *registryv1.Collector {
	t.Helper()
	resp, err := r.GetCollector(t.Context(), &registryv1.GetCollectorRequest{CollectorId: id})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetCollector()
}

func (r *rig) producer(t *testing.T, id string) *registryv1.Producer {
	t.Helper()
	resp, err := r.GetProducer(t.Context(), &registryv1.GetProducerRequest{ProducerId: id})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetProducer()
}

// must fails the test when a call does.
func (r *rig) must(t *testing.T, calls ...call) {
	t.Helper()
	for _, c := range calls {
		if err := c(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
}

const (
	live     = registryv1.CollectorState_COLLECTOR_STATE_LIVE
	away     = registryv1.CollectorState_COLLECTOR_STATE_AWAY
	drains   = registryv1.CollectorState_COLLECTOR_STATE_DRAINING
	drained  = registryv1.CollectorState_COLLECTOR_STATE_DRAINED
	expunged = registryv1.CollectorState_COLLECTOR_STATE_EXPUNGED

	owner  = registryv1.Role_ROLE_OWNER
	source = registryv1.Role_ROLE_HANDOFF_SOURCE
	target = registryv1.Role_ROLE_HANDOFF_TARGET
)

// TestDryDrain answers what a drain would do, and writes nothing.
func TestDryDrain(t *testing.T) {
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		r.join(t, "c1")
		r.join(t, "c2")
		for i := range 3 {
			r.register(t, with(fmt.Sprint("p", i), func(p *registryv1.Producer) {
				p.LastCollectorId, p.ExpectedSamplesPerSecond = "c1", float64(10*i)
			}))
		}
		r.register(t, hinted("other", "c2"))
		r.join(t, "leaving") // what others do is not the drain's
		r.register(t, hinted("theirs", "leaving"))
		r.must(t, draining("leaving", false))
		before := r.collector(t, "c1")
		at := r.feed.Revision()
		resp, err := r.DrainCollector(t.Context(), &registryv1.DrainCollectorRequest{CollectorId: "c1", ValidateOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if diff := cmp.Diff(before, resp.GetCollector(), protocmp.Transform()); diff != "" || r.feed.Revision() != at {
			t.Errorf("revision %d, then %d, and the collector (-before +answered):\n%s", at, r.feed.Revision(), diff)
		}
		plan := resp.GetPlan()
		for _, m := range plan.GetMoves() {
			if m.GetFromCollectorId() != "c1" || m.GetToCollectorId() != "c2" {
				t.Errorf("%v", m)
			}
		}
		if len(plan.GetMoves()) != 3 || plan.GetMoveCount() != 3 || plan.GetStuckCount() != 0 || plan.GetMoves()[0].GetSamplesPerSecond() != 20 {
			t.Errorf("%v", plan)
		}
		loads := plan.GetLoads()
		if len(loads) != 3 || loads[0].GetProducerCountBefore() != 3 || loads[0].GetProducerCountAfter() != 0 ||
			loads[1].GetProducerCountAfter() != 5 || loads[1].GetSamplesPerSecondBefore() != 1 || loads[1].GetSamplesPerSecondAfter() != 2+1+10+20 {
			t.Errorf("%v", loads)
		}
	})
}

// TestDrain goes from LIVE over DRAINING to DRAINED: each producer is handed to
// another collector, which has to have collected it and to have it on its disk.
func TestDrain(t *testing.T) {
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		r.join(t, "c1")
		cmd, f := r.join(t, "c2")
		r.register(t, hinted("p", "c1"))
		resp, err := r.DrainCollector(t.Context(), &registryv1.DrainCollectorRequest{CollectorId: "c1"})
		if err != nil {
			t.Fatal(err)
		}
		c := resp.GetCollector()
		if c.GetState() != drains || !c.GetDrainTime().AsTime().Equal(time.Now()) || resp.GetPlan().GetMoveCount() != 1 || resp.GetEpoch() == "" {
			t.Errorf("%v", resp)
		}
		again, err := r.DrainCollector(t.Context(), &registryv1.DrainCollectorRequest{CollectorId: "c1"})
		if err != nil || again.GetRevision() != resp.GetRevision() {
			t.Errorf("again: %v, %v", again, err)
		}
		if r.enlist(t, "c1", "another"); r.collector(t, "c1").GetState() != drains {
			t.Error("registering ended the drain")
		}
		r.register(t, producer("new"))
		f.seal()
		r.must(t, moving("p", "c2"))
		f.seal()
		if c := r.collector(t, "c1"); c.GetState() != drains || c.GetAssignedCount() != 0 || c.GetLeavingCount() != 1 {
			t.Errorf("what it hands off is its own until another one has collected it: %v", c)
		}
		m := f.applied(cmd)
		m.CollectedProducerIds, m.Persisted = []string{"p"}, false
		if r.must(t, acknowledging(m)); r.collector(t, "c1").GetState() != drains {
			t.Error("what is not on the disk completed the handoff")
		}
		m.Persisted = true
		r.must(t, acknowledging(m))
		if c := r.collector(t, "c1"); c.GetState() != drained || c.GetLeavingCount() != 0 {
			t.Errorf("%v", c)
		}
		if got := slices.Sorted(maps.Keys(f.set)); !slices.Equal(got, []string{"new", "p"}) {
			t.Errorf("c2 has %v", got)
		}
		r.must(t, undraining("c1"), undraining("c1"))
		if c := r.collector(t, "c1"); c.GetState() != live || c.GetDrainTime() != nil {
			t.Errorf("undrained: %v", c)
		}
	})
}

// TestDrainUntilRestart ends with the next instance, not with the same one, and not
// when an operator has drained the collector, too.
func TestDrainUntilRestart(t *testing.T) {
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		r.join(t, "c1")
		r.join(t, "c2")
		r.register(t, hinted("p", "c1"))
		untilRestart := func(instance string) error {
			_, err := r.DrainCollector(t.Context(), &registryv1.DrainCollectorRequest{CollectorId: "c1", UntilRestart: true, InstanceId: instance})
			return err
		}
		if err := untilRestart("c1-a"); err != nil {
			t.Fatal(err)
		}
		r.enlist(t, "c1", "c1-a")
		if c := r.collector(t, "c1"); c.GetState() != drains || !c.GetDrainUntilRestart() || c.GetDrainTime() == nil {
			t.Errorf("the same instance registered: %v", c)
		}
		r.enlist(t, "c1", "c1-b")
		if c := r.collector(t, "c1"); c.GetState() != live || c.GetDrainUntilRestart() || c.GetDrainTime() != nil {
			t.Errorf("another instance registered: %v", c)
		}
		if got := faultOf(t, untilRestart("c1-a")); got.reason != "INSTANCE_REPLACED" {
			t.Errorf("a late request: %+v", got)
		}
		if got := faultOf(t, untilRestart("no id")); got.code != codes.InvalidArgument {
			t.Errorf("a wrong instance: %+v", got)
		}
		if err := untilRestart(""); err != nil {
			t.Fatal(err)
		}
		r.must(t, draining("c1", false))
		if err := untilRestart(""); err != nil {
			t.Fatal(err)
		}
		r.enlist(t, "c1", "c1-c")
		if c := r.collector(t, "c1"); c.GetState() != drains || c.GetDrainUntilRestart() {
			t.Errorf("an operator's drain: %v", c)
		}
	})
}

// TestExpunge: one that is live needs force; its stream ends, and it may not come
// back before it is undrained.
func TestExpunge(t *testing.T) {
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		cmd, f := r.join(t, "c1")
		r.register(t, hinted("p", "c1"))
		resp, err := r.ExpungeCollector(t.Context(), &registryv1.ExpungeCollectorRequest{CollectorId: "c1", Force: true})
		if err != nil {
			t.Fatal(err)
		}
		if c := resp.GetCollector(); c.GetState() != expunged || !c.GetDrainTime().AsTime().Equal(time.Now()) || resp.GetRevision() == 0 {
			t.Errorf("%v", resp)
		}
		if err := f.untilEnd(f.stream); err == nil {
			t.Error("its stream ended well")
		}
		if got := faultOf(t, subscribing(cmd)(t.Context(), r)); got.reason != "EXPUNGED" {
			t.Errorf("it subscribes again: %+v", got)
		}
		r.must(t, expunging("c1", false), undraining("c1"))
		f = r.follow(t, cmd, newVerifier())
		if c := r.collector(t, "c1"); c.GetState() != live || len(f.set) != 1 {
			t.Errorf("%v with %d", c, len(f.set))
		}
	})
}

// TestCollectorStates: each is listed as what it is, and found by that.
func TestCollectorStates(t *testing.T) {
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		for _, id := range []string{"draining", "drained", "live"} {
			r.join(t, id)
		}
		r.enlist(t, "away", "a")
		r.enlist(t, "expunged", "a")
		r.register(t, hinted("p", "draining"))
		r.must(t, draining("draining", false), draining("drained", false), expunging("expunged", false))
		for id, want := range map[string]registryv1.CollectorState{
			"draining": drains, "drained": drained, "live": live, "away": away, "expunged": expunged,
		} {
			if got := r.collector(t, id).GetState(); got != want {
				t.Errorf("%s is %v", id, got)
			}
			resp, err := r.ListCollectors(t.Context(), &registryv1.ListCollectorsRequest{State: want})
			if all := resp.GetCollectors(); err != nil || len(all) != 1 || all[0].GetCollectorId() != id {
				t.Errorf("%v are %v, %v", want, all, err)
			}
		}
	})
}

// TestCollectorTells what it was registered with, and how much it has to do.
func TestCollectorTells(t *testing.T) {
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		resp, err := r.RegisterCollector(t.Context(), &registryv1.RegisterCollectorRequest{Collector: &registryv1.Collector{
			CollectorId: "c1", InstanceId: "a", CapacitySamplesPerSecond: 5e4, Zone: "eu-1",
		}})
		if c := resp.GetCollector(); err != nil || c.GetCapacitySamplesPerSecond() != 5e4 || c.GetZone() != "eu-1" {
			t.Fatalf("%v, %v", c, err)
		}
		r.follow(t, &registryv1.SubscribeRequest{CollectorId: "c1", InstanceId: "a", Generation: 1}, newVerifier())
		r.register(t, hinted("p", "c1"))
		r.register(t, hinted("q", "c1"))
		r.registrar.Weigh("c1", map[assignment.ProducerID]float64{"p": 300, "q": 40})
		r.registrar.SumWeights()
		if got := r.collector(t, "c1").GetSamplesPerSecond(); got != 340 {
			t.Errorf("%v samples a second", got)
		}
	})
}

// TestMove hands a producer off, tells both parts of it, and is idempotent.
func TestMove(t *testing.T) {
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		_, from := r.join(t, "c1")
		cmd, to := r.join(t, "c2")
		r.register(t, hinted("p", "c1"))
		r.register(t, hinted("q", "c1"))
		begun := time.Now()
		move := &registryv1.MoveProducerRequest{ProducerId: "p", CollectorId: "c2"}
		resp, err := r.MoveProducer(t.Context(), move)
		if err != nil || !resp.GetChanged() || resp.GetEpoch() == "" {
			t.Fatalf("%v, %v", resp, err)
		}
		time.Sleep(time.Second)
		r.register(t, producer("r")) // the store has moved on
		again, err := r.MoveProducer(t.Context(), move)
		if err != nil || again.GetChanged() || again.GetRevision() != resp.GetRevision() {
			t.Errorf("again: %v, %v; at first %v", again, err, resp)
		}
		given := &registryv1.Placement{
			CollectorId: "c2", Role: target, AssignTime: timestamppb.New(begun),
			Reason: registryv1.PlacementReason_PLACEMENT_REASON_OPERATOR, PreviousCollectorId: "c1",
		}
		want := []*registryv1.Placement{given, {CollectorId: "c1", Role: source}}
		if diff := cmp.Diff(want, r.producer(t, "p").GetPlacements(), protocmp.Transform()); diff != "" {
			t.Errorf("under way (-want +got):\n%s", diff)
		}
		for collector, want := range map[string]int{"c1": 2, "c2": 1} {
			all := slices.Concat(r.pages(t, &registryv1.ListProducersRequest{CollectorId: collector, Selector: `{instance="h.example:9100"}`})...)
			all = slices.DeleteFunc(all, func(id string) bool { return id == "r" })
			if len(all) != want {
				t.Errorf("%s has a part in %v", collector, all)
			}
		}
		for to.set["p"] == nil || from.set["p"].GetRole() != source {
			if to.set["p"] == nil {
				to.seal()
			} else {
				from.seal()
			}
		}
		if role := to.set["p"].GetRole(); role != target {
			t.Errorf("c2 is told %v", role)
		}
		m := to.applied(cmd)
		m.CollectedProducerIds = []string{"p"}
		r.must(t, acknowledging(m))
		given.Role = owner
		if diff := cmp.Diff([]*registryv1.Placement{given}, r.producer(t, "p").GetPlacements(), protocmp.Transform()); diff != "" {
			t.Errorf("done (-want +got):\n%s", diff)
		}
	})
}

// TestRebalance: the plan is told without being carried out, and then begun as
// far as was asked.
func TestRebalance(t *testing.T) {
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		r.join(t, "c1")
		weights := map[assignment.ProducerID]float64{}
		for i := range 40 {
			id := fmt.Sprintf("p%02d", i)
			r.register(t, producer(id))
			weights[assignment.ProducerID(id)] = 100
		}
		time.Sleep(time.Minute)
		r.join(t, "c2")
		r.registrar.Weigh("c1", weights)
		r.registrar.SumWeights()
		preview, err := r.PreviewRebalance(t.Context(), &registryv1.PreviewRebalanceRequest{})
		if err != nil {
			t.Fatal(err)
		}
		plan := preview.GetPlan()
		if n := plan.GetMoveCount(); n < 17 || n > 20 || int(n) != len(plan.GetMoves()) || plan.GetMoves()[0].GetSamplesPerSecond() != 100 {
			t.Errorf("%v", plan)
		}
		if plan.GetMaxOverMeanBefore() != 2 || plan.GetMaxOverMeanAfter() > 1.1 {
			t.Errorf("max over mean %v, then %v", plan.GetMaxOverMeanBefore(), plan.GetMaxOverMeanAfter())
		}
		if n := r.collector(t, "c2").GetAssignedCount(); n != 0 {
			t.Errorf("the preview moved %d", n)
		}
		did, err := r.Rebalance(t.Context(), &registryv1.RebalanceRequest{MaxMoveCount: 3})
		if err != nil || did.GetBegunCount() != 3 || did.GetPlan().GetMoveCount() != 3 {
			t.Errorf("%v, %v", did, err)
		}
		p := r.producer(t, did.GetPlan().GetMoves()[0].GetProducerId())
		if all := p.GetPlacements(); len(all) != 2 || all[0].GetReason() != registryv1.PlacementReason_PLACEMENT_REASON_REBALANCE {
			t.Errorf("%v", p)
		}
		r.registrar.Weigh("c2", nil) // one that has not told is left out
		if did, err = r.Rebalance(t.Context(), nil); err != nil || did.GetBegunCount() < 14 {
			t.Errorf("the rest: %v, %v", did, err)
		}
	})
}

// TestRebalanceIsBounded: a plan tells of a thousand moves, and as many are begun
// by who does not say how many.
func TestRebalanceIsBounded(t *testing.T) {
	bubble(t, filled(2500), func(t *testing.T, r *rig) {
		r.join(t, "c1")
		r.join(t, "c2")
		r.registrar.Weigh("c1", nil)
		preview, err := r.PreviewRebalance(t.Context(), nil)
		if plan := preview.GetPlan(); err != nil || plan.GetMoveCount() < 1100 || len(plan.GetMoves()) != 1000 {
			t.Errorf("%d of %d moves, %v", len(plan.GetMoves()), plan.GetMoveCount(), err)
		}
		did, err := r.Rebalance(t.Context(), nil)
		if err != nil || did.GetBegunCount() != 1000 || r.collector(t, "c2").GetAssignedCount() != 1000 {
			t.Errorf("%d begun, %v", did.GetBegunCount(), err)
		}
	})
}

// TestConfirmExpiry stands for as long as was asked.
func TestConfirmExpiry(t *testing.T) {
	const (
		auto, hold, hasten = registryv1.ExpiryMode_EXPIRY_MODE_AUTO, registryv1.ExpiryMode_EXPIRY_MODE_HOLD, registryv1.ExpiryMode_EXPIRY_MODE_HASTEN
	)
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		for _, c := range []struct {
			mode, want registryv1.ExpiryMode
			asked      *durationpb.Duration
			span       time.Duration
		}{
			{hold, hold, nil, time.Hour},
			{hasten, hasten, durationpb.New(time.Minute), time.Minute},
			{hold, hold, durationpb.New(24 * time.Hour), 24 * time.Hour},
			{auto, auto, nil, 0},
			{0, auto, nil, 0},
		} {
			resp, err := r.ConfirmExpiry(t.Context(), &registryv1.ConfirmExpiryRequest{Mode: c.mode, Duration: c.asked})
			if err != nil {
				t.Fatal(err)
			}
			want := &registryv1.ConfirmExpiryResponse{Mode: c.want}
			if c.span > 0 {
				want.Until = timestamppb.New(time.Now().Add(c.span))
			}
			if diff := cmp.Diff(want, resp, protocmp.Transform()); diff != "" {
				t.Errorf("%v for %v (-want +got):\n%s", c.mode, c.asked, diff)
			}
			if got := r.stands(t); got != c.want {
				t.Errorf("%v stands, want %v", got, c.want)
			}
		}
	})
}
