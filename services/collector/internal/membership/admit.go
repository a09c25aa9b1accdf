package membership

import (
	"fmt"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/snapshot"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// admit says what is against sealing a snapshot: that more producers would be
// held than a set may have. A registry that calls another roll each time would
// otherwise have everybody held that it ever made up. What is held already stays
// so, and is collected.
func (m *Membership) admit(s *snapshot.Sealed) string {
	newly := len(s.Absent)
	for _, r := range s.Removed {
		if r.Cause != assignment.CauseDeregistered && r.Cause != assignment.CauseHandedOff {
			newly++
		}
	}
	if newly == 0 || m.guard.Len()+newly <= m.MaxProducers {
		return ""
	}
	returned := 0
	for _, a := range s.Upserts {
		if m.guard.Holds(a.ProducerID) {
			returned++
		}
	}
	if held := m.guard.Len() + newly - returned; held > m.MaxProducers {
		return fmt.Sprintf("%d producers would be held, at most %d may be", held, m.MaxProducers)
	}
	return ""
}

// maxBytes bounds the text of a set: ids, endpoints and labels. A producer takes
// a few hundred bytes; the registry allows about 10 KiB.
func maxBytes(producers int) int { return 64<<20 + producers<<10 }
