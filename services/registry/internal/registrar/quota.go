package registrar

import (
	"slices"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// A Quota says for whom a registration counts, and how many producers may count
// for that one; the zero value: for nobody.
//
// It bounds what is new, as far as this process knows: each replica may give out
// what is left before its view shows what the others have. So there may be as many
// times the limit as there are replicas, and no more.
type Quota struct {
	Owner roster.Owner

	// Limit is 0 for as many as come.
	Limit int
}

// An arrival is a producer that comes to count for somebody and that the view does
// not show yet.
type arrival struct {
	id      assignment.ProducerID
	owner   roster.Owner
	writers int // how many calls are writing it

	// committed tells that it is in the store: it counts until the view shows that.
	committed bool
}

// arrivals are all of them. Whoever owns the view guards them.
type arrivals struct {
	of     map[assignment.ProducerID][]*arrival // one for each owner
	counts map[roster.Owner]int
}

func newArrivals() arrivals {
	return arrivals{of: map[assignment.ProducerID][]*arrival{}, counts: map[roster.Owner]int{}}
}

// note takes it that a producer is being written. What it returns must leave.
func (a *arrivals) note(id assignment.ProducerID, owner roster.Owner) *arrival {
	for _, one := range a.of[id] {
		if one.owner == owner {
			one.writers++
			return one
		}
	}
	one := &arrival{id: id, owner: owner, writers: 1}
	a.of[id] = append(a.of[id], one)
	a.counts[owner]++
	return one
}

// leave takes it that one writer is done. shown tells that the view shows it by now
// if it was committed.
func (a *arrivals) leave(one *arrival, committed, shown bool) {
	one.writers--
	one.committed = one.committed || committed
	at := slices.Index(a.of[one.id], one)
	if at < 0 || one.committed && !shown || one.writers > 0 && !committed {
		return
	}
	a.forget(one.owner)
	if a.of[one.id] = slices.Delete(a.of[one.id], at, at+1); len(a.of[one.id]) == 0 {
		delete(a.of, one.id)
	}
}

// show takes it that the view has another record of a producer: what was being
// written of it is in that, or is not committed any more.
func (a *arrivals) show(id assignment.ProducerID) {
	for _, one := range a.of[id] {
		a.forget(one.owner)
	}
	delete(a.of, id)
}

// reload takes it that another view was loaded, which shows what was committed.
func (a *arrivals) reload(view *roster.View) {
	for id, all := range a.of {
		e := view.Producer(id)
		if slices.ContainsFunc(all, func(one *arrival) bool { return one.committed || e != nil && e.Owner == one.owner }) {
			a.show(id)
		}
	}
}

func (a *arrivals) forget(owner roster.Owner) {
	if a.counts[owner]--; a.counts[owner] == 0 {
		delete(a.counts, owner)
	}
}

// besides is how many arrive for an owner beside one producer.
func (a *arrivals) besides(id assignment.ProducerID, owner roster.Owner) int {
	n := a.counts[owner]
	if slices.ContainsFunc(a.of[id], func(one *arrival) bool { return one.owner == owner }) {
		n--
	}
	return n
}

// owned is how many producers count for an owner, those that arrive included, but
// for this one if it arrives. The caller holds mu.
func (r *Registrar) owned(owner roster.Owner, id assignment.ProducerID) int {
	return r.view.Owned(owner) + r.arrivals.besides(id, owner)
}

// arrive notes that a registration which is being written counts for somebody
// anew; nil: it does not. The caller holds mu.
func (r *Registrar) arrive(next *roster.Producer) *arrival {
	before := r.view.Producer(next.ID)
	if next.Owner == 0 || before != nil && before.Owner == next.Owner {
		return nil
	}
	return r.arrivals.note(next.ID, next.Owner)
}

// arrived takes what became of a round's arrivals, in the order of its
// transactions; none of unknown outcome is committed.
func (r *Registrar) arrived(d *round, outcomes []roster.Outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n, one := range d.arriving {
		if one == nil {
			continue
		}
		committed := outcomes != nil && outcomes[n].Committed
		r.arrivals.leave(one, committed, committed && outcomes[n].Revision <= r.view.Revision())
	}
}
