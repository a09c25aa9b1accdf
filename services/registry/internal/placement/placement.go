// Package placement chooses the collector that a producer is given to.
//
// Its invariant: it never moves a producer that has a collector. The first
// placement is the least loaded collector by the number of producers; equal
// loads are ordered by id, so that the choice is a function of the loads.
package placement

import (
	"container/heap"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A Load is how many producers a collector has.
type Load struct {
	Collector assignment.CollectorID
	Producers int
}

// A Plan hands out collectors, each time the least loaded one, and counts what
// it has handed out. It is not safe for concurrent use.
type Plan struct{ loads loads }

// NewPlan makes a plan. It owns loads from now on.
func NewPlan(all []Load) *Plan {
	p := &Plan{loads: all}
	heap.Init(&p.loads)
	return p
}

// Next is the collector for one more producer; empty when there is none.
func (p *Plan) Next() assignment.CollectorID {
	if len(p.loads) == 0 {
		return ""
	}
	least := p.loads[0].Collector
	p.loads[0].Producers++
	heap.Fix(&p.loads, 0)
	return least
}

// loads is a heap with the least loaded collector on top.
type loads []Load

func (l loads) Len() int { return len(l) }
func (l loads) Less(i, j int) bool {
	if l[i].Producers != l[j].Producers {
		return l[i].Producers < l[j].Producers
	}
	return l[i].Collector < l[j].Collector
}
func (l loads) Swap(i, j int) { l[i], l[j] = l[j], l[i] }

// Push is not used: the collectors of a plan are given at once.
func (l *loads) Push(x any) { *l = append(*l, x.(Load)) } //nolint:errcheck,forcetypeassert // demanded by heap.Interface

// Pop is not used either.
func (l *loads) Pop() any {
	last := (*l)[len(*l)-1]
	*l = (*l)[:len(*l)-1]
	return last
}
