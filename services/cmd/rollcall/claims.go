package main

import (
	"cmp"
	"slices"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/protobuf/proto"
)

// A claim is a collector's word that it collects a producer.
type claim struct {
	collector  string
	collection *collectorv1.Collection

	// known tells that the registry has the producer with this collector.
	known bool
}

func (c claim) id() string { return c.collection.GetAssignment().GetProducerId() }

// settle decides who of several shall be given a producer that all of them
// collect: others are those claims that are not the best to their producer. A
// registry that lost its store does not know, and either answer keeps the
// producer collected: the others hold it until it is handed off to that one.
// claims are changed.
func settle(claims []claim) (given, others []claim) {
	slices.SortFunc(claims, func(a, b claim) int {
		return cmp.Or(cmp.Compare(a.id(), b.id()), better(a, b))
	})
	for i, c := range claims {
		if i > 0 && claims[i-1].id() == c.id() {
			others = append(others, c)
		} else {
			given = append(given, c)
		}
	}
	return given, others
}

// better is negative when a has the better claim to a producer than b: what the
// registry knows stands; then who had it as its own comes before who was handing it off, and that one before who had only been
// given it; then who collected it last.
func better(a, b claim) int {
	return cmp.Or(
		cmp.Compare(standing(a), standing(b)),
		b.collection.GetLastSuccessTime().AsTime().Compare(a.collection.GetLastSuccessTime().AsTime()),
		cmp.Compare(a.collector, b.collector),
	)
}

func standing(c claim) int {
	if c.known {
		return -1
	}
	switch c.collection.GetAssignment().GetRole() {
	case registryv1.Role_ROLE_HANDOFF_SOURCE:
		return 1
	case registryv1.Role_ROLE_HANDOFF_TARGET:
		return 2
	default:
		return 0
	}
}

// contested are the claims to producers that have several. claims are sorted by
// id.
func contested(claims []claim) (several []*claim) {
	for i := range claims {
		same := func(other int) bool {
			return other >= 0 && other < len(claims) && claims[other].id() == claims[i].id()
		}
		if same(i-1) || same(i+1) {
			several = append(several, &claims[i])
		}
	}
	return several
}

// differs tells whether two collectors collect a producer in different ways.
func differs(a, b claim) bool {
	x, y := proto.CloneOf(a.collection.GetAssignment()), proto.CloneOf(b.collection.GetAssignment())
	x.Role, y.Role = 0, 0
	return !proto.Equal(x, y)
}
