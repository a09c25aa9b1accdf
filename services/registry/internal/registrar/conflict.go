package registrar

import (
	"context"
	"maps"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// A Conflict is what speaks against a registration; the zero value is nothing.
type Conflict struct {
	// Namesakes are some of the other producers with the same labels, More tells
	// that there are more of them.
	Namesakes []assignment.ProducerID
	More      bool

	// Rival is an instance that was replaced and goes on registering; empty: none
	// does.
	Rival assignment.InstanceID
}

// maxNamesakes is how many are named.
const maxNamesakes = 3

// Conflict tells what speaks against a producer whose labels are these in the
// end, as Marks has them. What this process has not been told of rivals it does
// not know: the other replicas were.
func (r *Registrar) Conflict(id assignment.ProducerID, series string) Conflict {
	r.mu.RLock()
	defer r.mu.RUnlock()
	c := Conflict{
		Namesakes: r.names.others(&r.names.series, series, id, maxNamesakes+1),
		Rival:     r.rivals.of(id, time.Now()),
	}
	if c.More = len(c.Namesakes) > maxNamesakes; c.More {
		c.Namesakes = c.Namesakes[:maxNamesakes]
	}
	return c
}

// follows takes changes of the view into the namesakes and the arrivals. It is called before they
// are made, and what it returns afterwards. The caller holds mu.
func (r *Registrar) follows(b roster.Batch) (after func()) {
	before := map[assignment.ProducerID]*roster.Entry{}
	for _, e := range b.Events {
		if e.Key.Kind == roster.KindProducer {
			id := assignment.ProducerID(e.Key.ID)
			before[id] = r.view.Producer(id)
			r.arrivals.show(id)
		}
	}
	return func() {
		for id, old := range before {
			r.names.change(old, r.view.Producer(id))
		}
	}
}

// namesakesOf are those of a whole view.
func namesakesOf(view *roster.View, marksOf func([]byte) Marks) *namesakes {
	n := newNamesakes(marksOf)
	view.Snapshot().Ascend(func(e *roster.Entry) bool {
		n.change(nil, e)
		return true
	})
	return n
}

// Overtaken are producers with a lease at whose host and port another one answers
// that was registered later: all of those that are suspected, and up to so many
// of the others, not always the same ones.
func (r *Registrar) Overtaken(most int) []*roster.Entry {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.serving() != nil || r.names.addresses.count == 0 {
		return nil
	}
	newest := map[*party]time.Time{}
	overtaken := func(p *party, e *roster.Entry) bool {
		if _, known := newest[p]; !known {
			newest[p] = r.names.newest(p)
		}
		return !e.Permanent && e.CreateTime.Before(newest[p])
	}
	var all []*roster.Entry
	for s := range r.view.Suspects {
		if e := r.view.Producer(s.ID); e != nil {
			if p, _ := r.names.find(&r.names.addresses, r.names.marks(e).Address); p != nil && overtaken(p, e) {
				all = append(all, e)
			}
		}
	}
	most += len(all)
	for _, parties := range r.names.addresses.parties {
		for _, p := range parties {
			r.names.look(p, func(e *roster.Entry) bool {
				if _, suspect := r.view.Suspect(e.ID); !suspect && overtaken(p, e) {
					all = append(all, e)
				}
				return len(all) < most
			})
		}
		if len(all) >= most {
			break
		}
	}
	return all
}

// maxRivals bounds how many producers are remembered for which more than one
// instance registers.
const maxRivals = 10_000

// rivals remember which instances go on registering though they were replaced:
// of a producer for which two do, each wants to be the one. One that does so once
// has just been replaced, and stops when it hears so.
type rivals map[assignment.ProducerID]rival

type rival struct {
	instance assignment.InstanceID
	again    bool
	last     time.Time
	lease    time.Duration // within which it must have come again
}

// note takes it that a replaced instance was refused.
func (r rivals) note(id assignment.ProducerID, instance assignment.InstanceID, lease time.Duration, now time.Time) {
	before, known := r[id]
	if !known && len(r) >= maxRivals {
		for any := range r {
			delete(r, any)
			break
		}
	}
	if lease == 0 {
		lease = roster.LifeOf(true).Lease
	}
	r[id] = rival{instance: instance, again: before.stands(now), last: now, lease: lease}
}

// stands tells whether it is remembered still.
func (r rival) stands(now time.Time) bool { return now.Sub(r.last) <= r.lease }

// of is the rival of the instance that stands, or empty.
func (r rivals) of(id assignment.ProducerID, now time.Time) assignment.InstanceID {
	if rival := r[id]; rival.again && rival.stands(now) {
		return rival.instance
	}
	return ""
}

// forget forgets those that have not come again, and tells how many are left that
// have.
func (r rivals) forget(now time.Time) (left int) {
	maps.DeleteFunc(r, func(_ assignment.ProducerID, rival rival) bool {
		if rival.again && rival.stands(now) {
			left++
		}
		return !rival.stands(now)
	})
	return left
}

// tellConflicts counts the conflicts, and logs how many there are when that has
// changed.
func (r *Registrar) tellConflicts(ctx context.Context) error {
	labels, instances := 0, 0
	for pause(ctx, conflictInterval) {
		r.mu.Lock()
		wasLabels, wasInstances := labels, instances
		labels, instances = r.names.series.count, r.rivals.forget(time.Now())
		r.mu.Unlock()
		r.Metrics.Conflicts.WithLabelValues("labels").Set(float64(labels))
		r.Metrics.Conflicts.WithLabelValues("instances").Set(float64(instances))
		switch {
		case labels == wasLabels && instances == wasInstances:
		case labels+instances == 0:
			r.Logger.InfoContext(ctx, "no producers are in conflict any more")
		default:
			r.Logger.WarnContext(ctx, "producers are in conflict: with the same labels as another one, or with two instances that register it",
				"same_labels", labels, "two_instances", instances)
		}
	}
	return ctx.Err()
}
