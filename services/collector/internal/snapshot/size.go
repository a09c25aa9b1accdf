package snapshot

import "github.com/rollcall-metrics/rollcall/services/internal/assignment"

// size is about what the members would take after a staged change.
func (a *Assembler) size(s *Sealed) int {
	n := a.accepted.bytes
	for _, was := range s.Gone {
		n -= sizeOf(was)
	}
	for _, m := range s.Upserts {
		n += sizeOf(m)
		if old, had := a.accepted.Set.Find(m.ProducerID); had {
			n -= sizeOf(old)
		}
	}
	return n
}

// sizeOf is about how much memory the variable parts of an assignment take.
func sizeOf(m *assignment.Assignment) int {
	n := len(m.ProducerID) + len(m.Endpoint)
	for _, l := range m.Labels {
		n += labelOverhead + len(l.Name) + len(l.Value)
	}
	return n
}

// labelOverhead is what a label takes beside its text.
const labelOverhead = 32
