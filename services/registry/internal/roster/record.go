package roster

import (
	"strings"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A Record is what stands in the store under a key: an *Epoch, *Producer,
// *Collector, *Session, *Ack, *Removed, *Suspect, *Leader or *Expiry. Records are immutable; a change makes
// a new one.
type Record interface {
	Key() Key
}

// Extra are the fields of a record that only a newer version knows, kept as
// they are, so that a write by this version does not lose them.
type Extra []byte

// An Epoch is the lineage of the store.
type Epoch struct {
	Epoch      assignment.Epoch
	CreateTime time.Time
	Extra      Extra
}

// A PlacementReason says why a collector was given a producer, numbered as in
// the protocol.
type PlacementReason int32

// The reasons.
const (
	PlacementLeastLoaded PlacementReason = 1
	PlacementHint        PlacementReason = 2
	PlacementGone        PlacementReason = 3
	PlacementDrain       PlacementReason = 4
	PlacementRebalance   PlacementReason = 5
	PlacementOperator    PlacementReason = 6
	PlacementUnreachable PlacementReason = 7
	PlacementReturned    PlacementReason = 8
	PlacementAdopted     PlacementReason = 9
	PlacementThird       PlacementReason = 10
)

// A Producer is the record of one producer.
type Producer struct {
	ID assignment.ProducerID

	// Stored is the producer's assignment, encoded, without version and role.
	// The roster does not look inside.
	Stored []byte

	// Version is assignment.VersionOf(Stored).
	Version assignment.Version

	// Instances registered this producer.
	Instances Instances

	// Collector is empty while there is none to give the producer to.
	Collector    assignment.CollectorID
	AssignTime   time.Time
	AssignReason PlacementReason

	// HandoffFrom goes on with the producer until Collector has collected it;
	// empty outside of a handoff.
	HandoffFrom assignment.CollectorID

	// MovedFrom had the producer before Collector was given it, or is empty.
	MovedFrom assignment.CollectorID

	Life

	// Zone may be empty. Rate is about how many samples a second it yields, as
	// it was registered; zero when that was not told.
	Zone string
	Rate float64

	// Owner is for whom it counts.
	Owner Owner

	CreateTime time.Time
	UpdateTime time.Time
	Extra      Extra
}

// A Life says what keeps a producer on the roll.
type Life struct {
	// Permanent producers go by deregistration only.
	Permanent bool

	// Lease is how long a registration lives without being renewed; ExpireAfter
	// how long a producer that fails must not have renewed before it is struck
	// off. Both are zero for a permanent one.
	Lease       time.Duration
	ExpireAfter time.Duration
}

// Instances are those that registered a producer, oldest first, at most
// MaxInstances: one text, with a space between two, which no id holds. Nearly
// every producer has one, and a slice would take as much again as its id.
type Instances string

// InstancesOf are those in this order.
func InstancesOf(ids ...assignment.InstanceID) Instances {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = string(id)
	}
	return Instances(strings.Join(texts, " "))
}

// All are those one by one.
func (s Instances) All() []assignment.InstanceID {
	var all []assignment.InstanceID
	for text := range strings.FieldsSeq(string(s)) {
		all = append(all, assignment.InstanceID(text))
	}
	return all
}

// Has tells whether one is among them.
func (s Instances) Has(id assignment.InstanceID) bool {
	for text := range strings.FieldsSeq(string(s)) {
		if text == string(id) {
			return true
		}
	}
	return false
}

// Newest is the one that stands; empty where there is none.
func (s Instances) Newest() assignment.InstanceID {
	return assignment.InstanceID(s[strings.LastIndexByte(string(s), ' ')+1:])
}

// With are those and one more, without the oldest if they are too many.
func (s Instances) With(id assignment.InstanceID) Instances {
	return InstancesOf(appendLast(s.All(), id)...)
}

// LifeOf is that of a producer whose registration does not tell: what was
// registered by hand stays, what a process registers has a lease.
func LifeOf(process bool) Life {
	if !process {
		return Life{Permanent: true}
	}
	return Life{Lease: 10 * time.Minute, ExpireAfter: time.Hour}
}

// RoleOf is the part that a collector has in the producer; unspecified for none.
func (r *Producer) RoleOf(collector assignment.CollectorID) assignment.Role {
	switch {
	case collector == "":
		return assignment.RoleUnspecified
	case collector == r.Collector && r.HandoffFrom != "":
		return assignment.RoleHandoffTarget
	case collector == r.Collector:
		return assignment.RoleOwner
	case collector == r.HandoffFrom:
		return assignment.RoleHandoffSource
	default:
		return assignment.RoleUnspecified
	}
}

// Parts calls yield with each collector that has a part in the producer, and
// which.
func (r *Producer) Parts(yield func(assignment.CollectorID, assignment.Role) bool) {
	if r.Collector != "" && !yield(r.Collector, r.RoleOf(r.Collector)) {
		return
	}
	if r.HandoffFrom != "" && r.HandoffFrom != r.Collector {
		yield(r.HandoffFrom, assignment.RoleHandoffSource)
	}
}

// An Instance is one process of a collector.
type Instance struct {
	ID         assignment.InstanceID
	Generation assignment.Generation
}

// A Collector is the record of one collector.
type Collector struct {
	ID assignment.CollectorID

	// Instances are its processes, oldest first, at most MaxInstances; the last
	// one stands.
	Instances             []Instance
	IntrospectionEndpoint string
	Labels                []assignment.Label
	SoftwareVersion       string
	CreateTime            time.Time

	// Capacity is how many samples a second it is made for; zero when it did not
	// tell. Zone may be empty.
	Capacity float64
	Zone     string

	// DrainTime is when it was drained, ExpungeTime when it was expunged; zero
	// when it was not.
	DrainTime   time.Time
	ExpungeTime time.Time

	// DrainInstance is whose drain it is: the drain stands while that is the newest
	// instance. Empty: it stands until somebody ends it.
	DrainInstance assignment.InstanceID

	// GoneTimes are the last times, at most two, at which it had been without a
	// subscription for longer than its grace.
	GoneTimes []time.Time

	Extra Extra
}

// Leaves tells whether everything shall move off the collector.
func (r *Collector) Leaves() bool { return r.Drains() || r.Expunged() }

// Drains tells whether a drain stands. One until the restart has ended once
// another instance is the newest, also where a replica of an older version, which
// knows no such drains, wrote that.
func (r *Collector) Drains() bool {
	return !r.DrainTime.IsZero() && (r.DrainInstance == "" || r.DrainInstance == r.Newest().ID)
}

// DrainsUntilRestart tells whether the drain that stands ends by itself.
func (r *Collector) DrainsUntilRestart() bool { return r.Drains() && r.DrainInstance != "" }

// Expunged tells whether it shall be a collector no more.
func (r *Collector) Expunged() bool { return !r.ExpungeTime.IsZero() }

// Newest is the instance that stands; zero where the record names none.
func (r *Collector) Newest() Instance {
	if len(r.Instances) == 0 {
		return Instance{}
	}
	return r.Instances[len(r.Instances)-1]
}

// MaxInstances is how many instances a record remembers.
const MaxInstances = 4

// A Session stands while a collector has a subscription. It goes by itself when
// the registry process that serves it dies.
type Session struct {
	Collector      assignment.CollectorID
	SubscriptionID string
	Instance       assignment.InstanceID
	Generation     assignment.Generation
	Registry       assignment.InstanceID
	ConnectTime    time.Time
	Extra          Extra
}

// An Ack is the last acknowledgement of a collector.
type Ack struct {
	Collector  assignment.CollectorID
	Instance   assignment.InstanceID
	Epoch      assignment.Epoch
	Revision   assignment.Revision
	Held       int64
	Unrunnable int64

	// Persisted tells whether the set is on the collector's stable storage.
	Persisted   bool
	Refusal     *assignment.Refusal
	ReceiveTime time.Time
	Extra       Extra
}

// A Removed record names a producer that left, for as long as a collector may
// ask.
type Removed struct {
	ID         assignment.ProducerID
	Cause      assignment.Cause
	Instances  Instances
	Collector  assignment.CollectorID
	RemoveTime time.Time

	// HandoffFrom is the collector that was handing it off, or empty.
	HandoffFrom assignment.CollectorID
	Extra       Extra
}

// A Suspect record stands while a producer with a lease fails at its collector.
type Suspect struct {
	ID assignment.ProducerID

	// SuspectTime is when that became known, from Collector.
	SuspectTime time.Time
	Collector   assignment.CollectorID

	// RenewTime is when the producer last renewed since; zero if it has not.
	RenewTime time.Time

	// Reason is why it fails, for people.
	Reason string
	Extra  Extra
}

// A Leader record stands while a registry process leads. It goes by itself when
// that process dies.
type Leader struct {
	Registry  assignment.InstanceID
	ElectTime time.Time
	Extra     Extra
}

// An ExpiryMode says how producers that are due are struck off, numbered as in
// the protocol.
type ExpiryMode int32

// The modes.
const (
	ExpiryAuto   ExpiryMode = 1
	ExpiryHold   ExpiryMode = 2
	ExpiryHasten ExpiryMode = 3
)

// An Expiry record is what an operator has said of those that are due.
type Expiry struct {
	Mode  ExpiryMode
	Until time.Time
	Extra Extra
}

// Stands is the mode at a time.
func (r *Expiry) Stands(now time.Time) ExpiryMode {
	if r == nil || !now.Before(r.Until) {
		return ExpiryAuto
	}
	return r.Mode
}
