package api_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
)

// kept is a valid assignment as a collector keeps it.
func kept(id string, change func(*registryv1.Assignment)) *registryv1.Assignment {
	a := &registryv1.Assignment{
		ProducerId: id, Version: 7, Endpoint: "http://h.example:9100/metrics", Role: owner,
		Interval: durationpb.New(15 * time.Second), Timeout: durationpb.New(10 * time.Second),
	}
	change(a)
	return a
}

func asIs(*registryv1.Assignment) {}

// adopt adopts what a collector has kept, and returns the outcomes and messages.
func (r *rig) adopt(t *testing.T, collector string, only bool, all ...*registryv1.Assignment) []*registryv1.AdoptResult {
	t.Helper()
	resp, err := r.AdoptProducers(t.Context(), &registryv1.AdoptProducersRequest{
		CollectorId: collector, Assignments: all, ValidateOnly: only,
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.GetResults()) != len(all) {
		t.Fatalf("%d results of %d", len(resp.GetResults()), len(all))
	}
	return resp.GetResults()
}

const (
	created      = registryv1.AdoptOutcome_ADOPT_OUTCOME_CREATED
	known        = registryv1.AdoptOutcome_ADOPT_OUTCOME_KNOWN
	conflict     = registryv1.AdoptOutcome_ADOPT_OUTCOME_CONFLICT
	deregistered = registryv1.AdoptOutcome_ADOPT_OUTCOME_DEREGISTERED
	refused      = registryv1.AdoptOutcome_ADOPT_OUTCOME_REFUSED
)

// TestAdopt: each has an outcome of its own, and those that are at fault do not
// keep the others from the roll. Only to ask answers the same, and writes nothing.
func TestAdopt(t *testing.T) {
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		r.join(t, "c1")
		r.join(t, "c2")
		r.register(t, hinted("known", "c1"))
		r.register(t, hinted("changed", "c1"))
		r.register(t, hinted("other", "c2"))
		r.register(t, hinted("left", "c1"))
		r.register(t, hinted("moving", "c1"))
		r.must(t, deregistering("left", ""), moving("moving", "c2"))
		permanent := func(a *registryv1.Assignment) { a.Permanent = true }
		all := []*registryv1.Assignment{
			kept("new", permanent),
			kept("known", permanent),
			kept("changed", func(a *registryv1.Assignment) { a.Endpoint = "http://elsewhere.example/" }),
			kept("other", permanent),
			kept("left", permanent),
			kept("moving", permanent),
			kept("no id", asIs),
			kept("ftp", func(a *registryv1.Assignment) { a.Endpoint = "ftp://h/" }),
			kept("forbidden", func(a *registryv1.Assignment) { a.Endpoint = "http://169.254.169.254/" }),
			kept("slow", func(a *registryv1.Assignment) { a.Timeout = durationpb.New(time.Minute) }),
			kept("new", permanent),
			{},
			kept("leased", asIs),
		}
		want := []registryv1.AdoptOutcome{
			created, known, conflict, conflict, deregistered, known, refused, refused, refused, refused, refused, refused, created,
		}
		at := r.feed.Revision()
		asked := r.adopt(t, "c1", true, all...)
		if synctest.Wait(); r.feed.Revision() != at {
			t.Errorf("asking moved revision %d to %d", at, r.feed.Revision())
		}
		results := r.adopt(t, "c1", false, all...)
		if diff := cmp.Diff(asked, results, protocmp.Transform()); diff != "" {
			t.Errorf("asked and done differ (-asked +done):\n%s", diff)
		}
		for i, got := range results {
			if got.GetProducerId() != all[i].GetProducerId() || got.GetOutcome() != want[i] {
				t.Errorf("%v, want %v", got, want[i])
			}
			if plain := want[i] == created || want[i] == known; plain != (got.GetMessage() == "") {
				t.Errorf("%v", got)
			}
		}
		if m := results[3].GetMessage(); !strings.Contains(m, "c2") {
			t.Errorf("a conflict that does not say whose it is: %s", m)
		}
		if m := results[9].GetMessage(); !strings.Contains(m, "assignment.timeout: 1m0s") {
			t.Errorf("a refusal that does not say why: %s", m)
		}
		again := r.adopt(t, "c1", false, all[0], all[12])
		if again[0].GetOutcome() != known || again[1].GetOutcome() != known {
			t.Errorf("again: %v", again)
		}
		p := r.producer(t, "leased")
		if p.GetPermanent() || p.GetLeaseDuration().AsDuration() != 10*time.Minute || p.GetExpireAfter().AsDuration() != time.Hour ||
			p.GetPlacements()[0].GetCollectorId() != "c1" || p.GetPlacements()[0].GetReason() != registryv1.PlacementReason_PLACEMENT_REASON_ADOPTED {
			t.Errorf("%v", p)
		}
	})
}

// TestAdoptionMovesNothing: a registry that lost its store, and is given back
// what the collectors have, tells each of them exactly the set that it has.
func TestAdoptionMovesNothing(t *testing.T) {
	var set map[string]*registryv1.Assignment
	var before *registryv1.Producer
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		_, f := r.join(t, "c1")
		in := hinted("full", "c1")
		in.Labels = []*registryv1.Label{{Name: "zone", Value: "b"}, {Name: "app", Value: "ü"}}
		in.HonorLabels, in.IgnoreTimestamps, in.FallbackFormat = true, true, registryv1.ExpositionFormat_EXPOSITION_FORMAT_OPENMETRICS_TEXT
		in.Limits = &registryv1.CollectionLimits{MaxBodyBytes: 1, MaxSampleCount: 2, MaxLabelCount: 3, MaxLabelValueBytes: 4}
		r.register(t, in)
		leased := hinted("leased", "c1")
		leased.InstanceId = "a"
		r.register(t, leased)
		for len(f.set) < 2 {
			f.seal()
		}
		set, before = f.set, r.producer(t, "full")
	})
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		cmd := r.enlist(t, "c1", "b")
		for id, a := range set {
			if got := r.adopt(t, "c1", false, a)[0]; got.GetOutcome() != created {
				t.Errorf("%s: %v", id, got)
			}
		}
		f := r.follow(t, cmd, newVerifier())
		if diff := cmp.Diff(set, f.set, protocmp.Transform()); diff != "" {
			t.Errorf("the set (-kept +told):\n%s", diff)
		}
		after := r.producer(t, "full")
		if diff := cmp.Diff(before, after, protocmp.Transform(), protocmp.IgnoreFields(before, "create_time", "update_time"),
			protocmp.IgnoreFields(&registryv1.Placement{}, "reason", "assign_time")); diff != "" {
			t.Errorf("the producer (-before +after):\n%s", diff)
		}
	})
}

// TestAdoptAnswerFits: the answer to every call that is taken is one that a client
// takes, however much is wrong in it.
func TestAdoptAnswerFits(t *testing.T) {
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		r.enlist(t, "c1", "a")
		all := make([]*registryv1.Assignment, 1000)
		for i := range all {
			all[i] = kept(fmt.Sprintf("no id %04d", i), func(a *registryv1.Assignment) {
				for range 20 {
					a.Labels = append(a.Labels, &registryv1.Label{Name: strings.Repeat("é", 40), Value: "v"})
				}
			})
		}
		if n := proto.Size(&registryv1.AdoptProducersRequest{Assignments: all}); n < 3<<19 || n > 2<<20 {
			t.Fatalf("%d bytes", n)
		}
		for _, result := range r.adopt(t, "c1", false, all...) {
			if result.GetOutcome() != refused || len(result.GetMessage()) < 500 {
				t.Fatal(result)
			}
		}
	})
}
