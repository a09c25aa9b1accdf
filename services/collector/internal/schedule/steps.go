package schedule

import (
	"cmp"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A mention is a producer with where in a change it stands: the upserts before
// the removals.
type mention struct {
	id assignment.ProducerID
	at int
}

// stepsOf are the steps of a change in the order of the ids, one for an id: its
// last mention. A first set is large and in no order; mentions are sorted, for
// they are small.
func stepsOf(c Change) []step {
	mentions := make([]mention, 0, len(c.Upserts)+len(c.Removals))
	for i, a := range c.Upserts {
		if a != nil {
			mentions = append(mentions, mention{a.ProducerID, i})
		}
	}
	for i, r := range c.Removals {
		mentions = append(mentions, mention{r.ProducerID, len(c.Upserts) + i})
	}
	slices.SortFunc(mentions, func(a, b mention) int {
		return cmp.Or(compareIDs(a.id, b.id), a.at-b.at)
	})
	steps := make([]step, 0, len(mentions))
	for i, m := range mentions {
		if i+1 < len(mentions) && m.id == mentions[i+1].id {
			continue
		}
		st := step{edit: edit{id: m.id}}
		if n := m.at - len(c.Upserts); n >= 0 {
			st.remove, st.change, st.stale = true, remove, c.Removals[n].Stale
		} else {
			st.put.assigned = c.Upserts[m.at]
		}
		steps = append(steps, st)
	}
	return steps
}

// partSize is how many steps of a large change a goroutine takes at a time.
const partSize = 512

// inParts calls do for each of the numbers below count, where they are many by
// several goroutines. It returns when all is done.
func inParts(count int, do func(i int)) {
	workers := min(runtime.GOMAXPROCS(0), count/partSize)
	if workers <= 1 {
		for i := range count {
			do(i)
		}
		return
	}
	var next atomic.Int64
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for from := int(next.Add(partSize)) - partSize; from < count; from = int(next.Add(partSize)) - partSize {
				for i := from; i < min(from+partSize, count); i++ {
					do(i)
				}
			}
		})
	}
	running.Wait()
}
