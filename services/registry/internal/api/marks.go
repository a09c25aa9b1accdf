package api

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
)

// MarksOf are the marks of an encoded assignment, for the registrar.
func MarksOf(stored []byte) registrar.Marks {
	a, err := wire.DecodeStored(stored)
	if err != nil {
		return registrar.Marks{}
	}
	return registrar.Marks{Series: series(a), Address: address(a)}
}

// address is the host and port at which a producer answers, as two that are the
// same have it; empty where a newer version has put something else.
func address(a *assignment.Assignment) string {
	u, err := endpoint.Parse(a.Endpoint)
	if err != nil {
		return ""
	}
	return strings.ToLower(endpoint.HostPort(u))
}

// finalLabels are those that a producer's series have in the end: with the job
// and the instance that its collector adds.
func finalLabels(a *assignment.Assignment) []assignment.Label {
	all := make([]assignment.Label, 0, len(a.Labels)+2)
	has := map[string]bool{}
	for _, l := range a.Labels {
		if l.Value != "" {
			all, has[l.Name] = append(all, l), true
		}
	}
	if !has["job"] {
		all = append(all, assignment.Label{Name: "job", Value: "rollcall"})
	}
	if u, err := endpoint.Parse(a.Endpoint); err == nil && !has["instance"] {
		all = append(all, assignment.Label{Name: "instance", Value: endpoint.HostPort(u)})
	}
	slices.SortFunc(all, func(a, b assignment.Label) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// series are the final labels as one string, the same for the same labels.
func series(a *assignment.Assignment) string {
	var b strings.Builder
	for _, l := range finalLabels(a) {
		// No label has this byte: it is not in UTF-8.
		b.WriteString(l.Name + "\xff" + l.Value + "\xff")
	}
	return b.String()
}

// conflictOf tells in words what speaks against a registration.
func conflictOf(c registrar.Conflict) string {
	var says []string
	if len(c.Namesakes) > 0 {
		names := make([]string, len(c.Namesakes))
		for i, id := range c.Namesakes {
			names[i] = string(id)
		}
		others := ""
		if c.More {
			others = " and others"
		}
		says = append(says, "has the same labels as "+strings.Join(names, ", ")+others)
	}
	if c.Rival != "" {
		says = append(says, fmt.Sprintf("instance %s was replaced and goes on registering it", c.Rival))
	}
	return strings.Join(says, "; ")
}
