package membership

import (
	"fmt"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/snapshot"
)

// admit says what is against sealing a snapshot: that it brings new producers,
// and more would be applied, accepted and held together, than twice what a set
// may have. A registry that calls another roll each time would otherwise have
// everybody held, and collected, that it ever made up.
//
// Absences are never refused: they make nothing grow, and the registry that
// comes after a liar brings back whom it knows.
func (m *Membership) admit(s *snapshot.Sealed) string {
	added := 0
	for _, a := range s.Upserts {
		if _, accepted := m.accepted.Set.HashOf(a.ProducerID); !accepted && !m.guard.Holds(a.ProducerID) {
			added++
		}
	}
	if applied := m.accepted.Set.Len() + m.guard.Len() + added; added > 0 && applied > 2*m.MaxProducers {
		return fmt.Sprintf("%d producers would be collected, %d of them held, at most %d may be",
			applied, m.guard.Len()+len(s.Absent), 2*m.MaxProducers)
	}
	return ""
}

// maxBytes bounds the text of a set: ids, endpoints and labels. A producer takes
// a few hundred bytes; the registry allows about 10 KiB.
func maxBytes(producers int) int { return 64<<20 + producers<<10 }
