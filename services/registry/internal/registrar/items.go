package registrar

import (
	"iter"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/feed"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// members ranges over every assigned producer of a view, as an item.
func members(v *roster.View) iter.Seq2[assignment.CollectorID, *feed.Item] {
	return func(yield func(assignment.CollectorID, *feed.Item) bool) {
		v.Snapshot().Ascend(func(e *roster.Entry) bool {
			for collector, role := range e.Parts {
				if !yield(collector, item(e, role)) {
					return false
				}
			}
			return true
		})
	}
}

func item(e *roster.Entry, role assignment.Role) *feed.Item {
	return &feed.Item{ProducerID: e.ID, Version: e.Version, Role: role, Stored: e.Stored}
}

func feedChanges(changes []roster.Change) []feed.Change {
	out := make([]feed.Change, len(changes))
	for i, c := range changes {
		out[i] = feed.Change{Collector: c.Collector, ID: c.ID, Cause: c.Cause}
		if c.Entry != nil {
			out[i].Item = item(c.Entry, c.Role)
		}
	}
	return out
}
