package registrar

import (
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// Suspect finds what is known of a producer that fails at its collector.
func (r *Registrar) Suspect(id assignment.ProducerID) (roster.SuspectEntry, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.view.Suspect(id)
}

// Load is about how many samples a second a collector's producers yield.
func (r *Registrar) Load(s *CollectorStatus) float64 {
	return r.weights.load(s.Collector.ID, s.Assigned)
}
