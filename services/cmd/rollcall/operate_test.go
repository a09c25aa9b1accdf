package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	owner  = registryv1.Role_ROLE_OWNER
	source = registryv1.Role_ROLE_HANDOFF_SOURCE
	target = registryv1.Role_ROLE_HANDOFF_TARGET
)

// TestStoryOfAHandoff tells what is missing to its end.
func TestStoryOfAHandoff(t *testing.T) {
	p := &registryv1.Producer{ProducerId: "p", Permanent: new(true), Placements: []*registryv1.Placement{
		{
			CollectorId: "new", Role: target, Reason: registryv1.PlacementReason_PLACEMENT_REASON_REBALANCE, PreviousCollectorId: "old",
			AssignTime: timestamppb.New(time.Now().Add(-time.Minute)),
		},
		{CollectorId: "old", Role: source},
	}}
	goesOn := "It is being handed off: old goes on with it until new has collected it. "
	for name, c := range map[string]struct {
		heard testimony
		want  string
	}{
		"unreachable":   {testimony{collector: "new", err: errNoAddress}, "What is missing is not known."},
		"not there":     {testimony{collector: "new"}, "It waits for new to take it into its set."},
		"not collected": {testimony{collector: "new", collection: &collectorv1.Collection{}}, "It waits for the first collection by new."},
		"failing": {testimony{collector: "new", collection: &collectorv1.Collection{FailureCount: 3}},
			"It waits for the first collection by new that succeeds; 3 have failed."},
		"collected": {testimony{collector: "new", collection: &collectorv1.Collection{SuccessCount: 1, FailureCount: 1}},
			"It waits for new to have that on its disk, and to say so."},
	} {
		t.Run(name, func(t *testing.T) {
			lines := story(p, []testimony{c.heard, {collector: "old", err: errors.New("it is broken")}}, time.Now())
			want := []string{
				"p was given to new 1m0s ago, because the collector before had more than its share. It came from old.",
				goesOn + c.want,
				"It is permanent: it stays on the roll until it is deregistered.",
				c.heard.says() + ".",
				"old cannot be asked: it is broken.",
			}
			if diff := cmp.Diff(want, lines); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestStoryOfTheDoomed tells until when a producer has.
func TestStoryOfTheDoomed(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(d)) }
	for name, c := range map[string]struct {
		p    *registryv1.Producer
		want string
	}{
		"nobody's":   {&registryv1.Producer{ProducerId: "p", Conflict: "q"}, "p has no collector: none was live and open to it. It is given one as soon as there is one."},
		"conflict":   {&registryv1.Producer{Conflict: "q has the same labels"}, "Against it speaks: q has the same labels."},
		"innocent":   {&registryv1.Producer{ExpireAfter: durationpb.New(time.Hour)}, "has not renewed for 1h0m0s."},
		"silent":     {&registryv1.Producer{SuspectTime: at(-time.Hour), ExpireTime: at(90 * time.Second)}, "and has not renewed since. If it neither renews nor answers it is struck off in 1m30s at the earliest, at 2026-01-02T03:05:35Z."},
		"due":        {&registryv1.Producer{SuspectTime: at(-time.Hour), ExpireTime: at(0)}, "It is due: it is struck off as soon as"},
		"new reason": {&registryv1.Producer{Placements: []*registryv1.Placement{{CollectorId: "c", Reason: 77}}}, ", for the reason 77 of a newer registry."},
		"no reason":  {&registryv1.Producer{ProducerId: "p", Placements: []*registryv1.Placement{{CollectorId: "c"}}}, "p was given to c - ago."},
	} {
		t.Run(name, func(t *testing.T) {
			var heard []testimony
			for range c.p.GetPlacements() {
				heard = append(heard, testimony{})
			}
			if got := strings.Join(story(c.p, heard, now), "\n"); !strings.Contains(got, c.want) {
				t.Errorf("got %s", got)
			}
		})
	}
}

// TestEveryReasonHasWords: a reason that is added to the proto is added here.
func TestEveryReasonHasWords(t *testing.T) {
	for n, name := range registryv1.PlacementReason_name {
		if n != 0 && reasons[registryv1.PlacementReason(n)] == "" {
			t.Errorf("%s", name)
		}
	}
}

func claimOf(collector, id string, role registryv1.Role, last int64) claim {
	return claim{collector: collector, collection: &collectorv1.Collection{
		Assignment: &registryv1.Assignment{ProducerId: id, Role: role}, LastSuccessTime: &timestamppb.Timestamp{Seconds: last},
	}}
}

// TestSettle: what the registry knows, the role, who collected last, and then the
// id decide, whatever order the claims come in.
func TestSettle(t *testing.T) {
	known := claimOf("c9", "p", target, 0)
	known.known = true
	order := []claim{
		known,
		claimOf("c5", "p", owner, 20), claimOf("c1", "p", owner, 10), claimOf("c2", "p", owner, 10),
		claimOf("c0", "p", source, 90),
		claimOf("c7", "p", target, 99),
	}
	for i, best := range order {
		for j, worse := range order[i+1:] {
			for _, claims := range [][]claim{{best, worse}, {worse, best}} {
				given, others := settle(append(claims, claimOf("c0", "a", target, 1)))
				if len(given) != 2 || given[0].id() != "a" || given[1].collector != best.collector || len(others) != 1 {
					t.Errorf("%d and %d: given %v, others %v", i, i+1+j, given, others)
				}
			}
		}
	}
}

// TestBatches: each is below what the registry takes, and together they are all.
func TestBatches(t *testing.T) {
	for name, c := range map[string]struct{ count, bytes, most int }{
		"many": {2500, 1, 900}, "large": {500, 10_000, 200}, "huge": {3, 3 << 20, 1}, "none": {0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			all := make([]*registryv1.Assignment, c.count)
			for i := range all {
				all[i] = &registryv1.Assignment{ProducerId: fmt.Sprint("p", i), Endpoint: strings.Repeat("x", c.bytes)}
			}
			seen := 0
			for rest := all; len(rest) > 0; {
				n := batch(rest)
				call := &registryv1.AdoptProducersRequest{CollectorId: strings.Repeat("c", 128), Assignments: rest[:n]}
				if n < 1 || n > c.most || proto.Size(call) > 2<<20 && n > 1 {
					t.Fatalf("%d of %d bytes", n, proto.Size(call))
				}
				seen, rest = seen+n, rest[n:]
			}
			if seen != c.count {
				t.Errorf("%d of %d", seen, c.count)
			}
		})
	}
}
