package guard

import (
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A Held producer is absent from the accepted set and still collected, because
// nobody has named its removal.
type Held struct {
	// Assignment is what was accepted last.
	Assignment *assignment.Assignment

	// Epoch is that of the set which first lacked it.
	Epoch assignment.Epoch

	// Since is when it was first absent.
	Since time.Time

	// Confirmed is for how long in all the registry has confirmed the absence.
	Confirmed time.Duration
}
