package roster

import (
	"slices"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// RegisterProducer is the command of a producer that asks to be collected.
type RegisterProducer struct {
	ID assignment.ProducerID

	// Stored is the assignment, encoded, as it will stand in the record.
	Stored []byte

	// Same tells whether Stored means the same as what stands in the record,
	// although the bytes may differ.
	Same bool

	// Instance is empty for a registration by hand.
	Instance assignment.InstanceID

	Life
	Zone string
	Rate float64

	// Owner is for whom the producer is to count. Limit is how many may, 0 for as
	// many as come; Owned how many do already.
	Owner Owner
	Limit int
	Owned int
}

// Registration is what became of a registration.
type Registration struct {
	// Txn is what it writes, empty for nothing.
	Txn Txn

	// Producer is the one that stands afterwards.
	Producer *Producer

	// Changed tells whether it changes the producer: a renewal may write, and
	// does not.
	Changed bool
}

// A Place is a collector for a new producer, and why; empty where there is
// none.
type Place struct {
	Collector assignment.CollectorID
	Reason    PlacementReason
}

// Register decides what a registration writes.
func (v *View) Register(cmd RegisterProducer, place func() Place, now time.Time) (Registration, error) {
	before := v.Producer(cmd.ID)
	removed, wasRemoved := v.Removed(cmd.ID)
	next := Producer{ID: cmd.ID, CreateTime: now}
	var expect assignment.Revision
	switch {
	case before != nil:
		next, expect = before.Producer, before.Revision
	case wasRemoved:
		next.Instances = removed.Instances // none of them may take it back
		if removed.Cause != assignment.CauseExpired && cmd.Instance != "" && removed.Instances.Has(cmd.Instance) {
			return Registration{}, Refuse(FailedPrecondition, ReasonInstanceDeregistered,
				"producer %q: instance %q was deregistered; only a new instance may register it again", cmd.ID, cmd.Instance)
		}
	}
	if err := replaced(cmd.ID, next.Instances, cmd.Instance); err != nil {
		return Registration{}, err
	}
	if before == nil && cmd.full() {
		return Registration{}, overQuota(cmd)
	}
	if !next.take(cmd, before == nil, now) {
		return Registration{Txn: v.renew(before, now), Producer: &before.Producer}, nil
	}
	if next.Collector == "" {
		if p := place(); p.Collector != "" {
			next.Collector, next.AssignReason, next.AssignTime = p.Collector, p.Reason, now
		}
	}
	txn := Txn{{Key: next.Key(), Expect: expect, Record: &next}}
	if before == nil {
		// That nobody has struck it off meanwhile is a condition too: a producer
		// that came and went since the view was current is absent as well.
		txn = append(txn, Write{Key: RemovedKey(cmd.ID), Expect: removed.Revision, Check: removed.Revision == 0})
	}
	if s, ok := v.suspects[cmd.ID]; ok {
		txn = append(txn, s.renewed(&next, now))
	}
	return Registration{Txn: txn, Producer: &next, Changed: true}, nil
}

// take makes of a record what a registration asks for, and tells whether that
// changes it.
func (r *Producer) take(cmd RegisterProducer, isNew bool, now time.Time) (changed bool) {
	if isNew || !cmd.Same {
		r.Stored, r.Version, r.UpdateTime = cmd.Stored, assignment.VersionOf(cmd.Stored), now
		changed = true
	}
	if r.Life != cmd.Life || r.Zone != cmd.Zone || r.Rate != cmd.Rate {
		r.Life, r.Zone, r.Rate = cmd.Life, cmd.Zone, cmd.Rate
		changed = true
	}
	if cmd.Instance != "" && !r.Instances.Has(cmd.Instance) {
		r.Instances = r.Instances.With(cmd.Instance)
		changed = true
	}
	if changed {
		r.own(cmd)
	}
	return changed
}

// Deregister decides what a deregistration writes. An empty Txn means that
// there is no such producer.
func (v *View) Deregister(id assignment.ProducerID, instance assignment.InstanceID, now time.Time) (Txn, error) {
	before := v.Producer(id)
	if before == nil {
		return nil, nil
	}
	if newest := before.Instances.Newest(); instance != "" && newest != "" && newest != instance {
		return nil, Refuse(Aborted, ReasonInstanceReplaced,
			"producer %q: instance %q is not the one that stands", id, instance)
	}
	return v.remove(before, assignment.CauseDeregistered, now), nil
}

// remove takes a producer off the roll, and remembers who had it.
func (v *View) remove(e *Entry, cause assignment.Cause, now time.Time) Txn {
	gone := &Removed{
		ID:          e.ID,
		Cause:       cause,
		Instances:   e.Instances,
		Collector:   e.Collector,
		HandoffFrom: e.HandoffFrom,
		RemoveTime:  now,
	}
	txn := Txn{
		{Key: e.Key(), Expect: e.Revision},
		{Key: gone.Key(), Expect: v.removed[e.ID].Revision, Record: gone},
	}
	if s, ok := v.suspects[e.ID]; ok {
		txn = append(txn, Write{Key: s.Key(), Expect: s.Revision})
	}
	return txn
}

// RegisterCollector decides what the registration of a collector writes. want
// tells all but the instances' generations and the time.
func (v *View) RegisterCollector(want Collector, instance assignment.InstanceID, now time.Time) (Txn, *Collector, error) {
	next := Collector{ID: want.ID, CreateTime: now}
	var expect assignment.Revision
	before := v.Collector(want.ID)
	if before != nil {
		next, expect = *before.Collector, before.CollectorRevision
	}
	if next.Expunged() {
		return nil, nil, expunged(want.ID)
	}
	last := next.Newest()
	older := slices.ContainsFunc(next.Instances, func(i Instance) bool { return i.ID == instance })
	if older && last.ID != instance {
		return nil, nil, Refuse(Aborted, ReasonInstanceReplaced,
			"collector %q: a newer instance than %q has registered", want.ID, instance)
	}
	same := before != nil && older &&
		next.IntrospectionEndpoint == want.IntrospectionEndpoint &&
		next.SoftwareVersion == want.SoftwareVersion &&
		next.Capacity == want.Capacity && next.Zone == want.Zone &&
		slices.Equal(next.Labels, want.Labels)
	if same {
		return nil, before.Collector, nil
	}
	if !older {
		if next.DrainInstance != "" { // that drain was until now
			next.DrainTime, next.DrainInstance = time.Time{}, ""
		}
		next.Instances = appendLast(next.Instances, Instance{ID: instance, Generation: last.Generation + 1})
	}
	next.IntrospectionEndpoint, next.SoftwareVersion, next.Labels = want.IntrospectionEndpoint, want.SoftwareVersion, want.Labels
	next.Capacity, next.Zone = want.Capacity, want.Zone
	return Txn{{Key: next.Key(), Expect: expect, Record: &next}}, &next, nil
}

// OpenSession decides what the begin of a subscription writes.
func (v *View) OpenSession(s Session) (Txn, error) {
	c := v.Collector(s.Collector)
	if c == nil {
		return nil, Refuse(NotFound, ReasonUnknownCollector, "collector %q has never registered", s.Collector)
	}
	if c.Collector.Expunged() {
		return nil, expunged(s.Collector)
	}
	at := slices.IndexFunc(c.Collector.Instances, func(i Instance) bool { return i.ID == s.Instance })
	if at < 0 || c.Collector.Instances[at].Generation != s.Generation {
		return nil, Refuse(FailedPrecondition, ReasonGenerationMismatch,
			"collector %q: instance %q has not registered generation %d", s.Collector, s.Instance, s.Generation)
	}
	if c.Session != nil && c.Session.Generation > s.Generation {
		return nil, Refuse(Aborted, ReasonSuperseded,
			"collector %q: generation %d has a subscription, %d is older", s.Collector, c.Session.Generation, s.Generation)
	}
	var expect assignment.Revision
	if c.Session != nil {
		expect = c.SessionRevision
	}
	return Txn{{Key: s.Key(), Expect: expect, Record: &s, Leased: true}}, nil
}

// CloseSession decides what the end of a subscription writes; nothing when
// another one has taken its place.
func (v *View) CloseSession(id assignment.CollectorID, subscription string) Txn {
	c := v.collectors[id]
	if c == nil || c.Session == nil || c.Session.SubscriptionID != subscription {
		return nil
	}
	return Txn{{Key: c.Session.Key(), Expect: c.SessionRevision}}
}

// SaveAck decides what an acknowledgement writes.
func (v *View) SaveAck(ack Ack) Txn {
	c := v.Collector(ack.Collector)
	if c == nil {
		return nil
	}
	var expect assignment.Revision
	if c.Ack != nil {
		expect = c.AckRevision
		ack.Extra = c.Ack.Extra
	}
	return Txn{{Key: ack.Key(), Expect: expect, Record: &ack}}
}

// Explain names those of ids that are rightly absent from a collector's set:
// remembered as removed within this epoch. What its owner took off the roll is gone
// for everybody: a collector that has held it since an earlier epoch may never have
// been its collector in this one. What else ended, ended for the one that had it.
func (v *View) Explain(collector assignment.CollectorID, ids []assignment.ProducerID) []assignment.Removal {
	var explained []assignment.Removal
	for _, id := range ids {
		if v.Producer(id) != nil {
			continue
		}
		if r, ok := v.removed[id]; ok && r.Revision > v.epochRevision && r.names(collector) {
			explained = append(explained, assignment.Removal{ProducerID: id, Cause: r.Cause, Revision: r.Revision})
		}
	}
	return explained
}

// names tells whether the removal is one of the collector's set, too.
func (r *Removed) names(collector assignment.CollectorID) bool {
	return r.Cause == assignment.CauseDeregistered || r.Collector == collector || r.HandoffFrom == collector
}

func expunged(id assignment.CollectorID) error {
	return Refuse(FailedPrecondition, ReasonExpunged, "collector %q was expunged: it is one no more", id)
}

// replaced refuses a registration by an instance that a newer one has replaced.
func replaced(id assignment.ProducerID, instances Instances, instance assignment.InstanceID) error {
	if instance != "" && instance != instances.Newest() && instances.Has(instance) {
		return Refuse(Aborted, ReasonInstanceReplaced, "producer %q: a newer instance than %q has registered", id, instance)
	}
	return nil
}

// appendLast returns a new slice of the last MaxInstances of all and one.
func appendLast[T any](all []T, one T) []T {
	all = append(slices.Clone(all), one)
	return all[max(0, len(all)-MaxInstances):]
}
