package registrar

import (
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/placement"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// Suspect finds what is known of a producer that fails at its collector.
func (r *Registrar) Suspect(id assignment.ProducerID) (roster.SuspectEntry, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.view.Suspect(id)
}

// Rate is about how many samples a second a collector's producers yield. Placement
// reckons with more: each producer costs something by itself.
func (r *Registrar) Rate(s *CollectorStatus) float64 {
	return RateOf(r.weights.load(s.Collector.ID, s.Assigned), s.Assigned)
}

// RateOf is how many samples a second so many producers yield that cost that much.
func RateOf(load float64, producers int) float64 {
	return max(0, load-float64(producers)*placement.Cost(0))
}
