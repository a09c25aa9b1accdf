package roster

import (
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A Kind is a kind of record.
type Kind uint8

// The kinds.
const (
	KindEpoch Kind = iota + 1
	KindProducer
	KindCollector
	KindSession
	KindAck
	KindRemoved
)

// A Key names a record: its kind and the id of what it is about. The epoch's id
// is empty.
type Key struct {
	Kind Kind
	ID   string
}

// A Record is what stands in the store under a key: an *Epoch, *Producer,
// *Collector, *Session, *Ack or *Removed. Records are immutable; a change makes
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
)

// A Producer is the record of one producer.
type Producer struct {
	ID assignment.ProducerID

	// Stored is the producer's assignment, encoded, without version and role.
	// The roster does not look inside.
	Stored []byte

	// Version is assignment.VersionOf(Stored).
	Version assignment.Version

	// Instances registered this producer, oldest first, at most MaxInstances.
	Instances []assignment.InstanceID

	// Collector is empty while there is none to give the producer to.
	Collector    assignment.CollectorID
	AssignTime   time.Time
	AssignReason PlacementReason

	CreateTime time.Time
	UpdateTime time.Time
	Extra      Extra
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
	Extra                 Extra
}

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
	Collector   assignment.CollectorID
	Instance    assignment.InstanceID
	Epoch       assignment.Epoch
	Revision    assignment.Revision
	Held        int64
	Unrunnable  int64
	Refusal     *assignment.Refusal
	ReceiveTime time.Time
	Extra       Extra
}

// A Removed record names a producer that left, for as long as a collector may
// ask.
type Removed struct {
	ID         assignment.ProducerID
	Cause      assignment.Cause
	Instances  []assignment.InstanceID
	Collector  assignment.CollectorID
	RemoveTime time.Time
	Extra      Extra
}

// Key is where the record stands.
func (r *Epoch) Key() Key { return Key{Kind: KindEpoch} }

// Key is where the record stands.
func (r *Producer) Key() Key { return ProducerKey(r.ID) }

// Key is where the record stands.
func (r *Collector) Key() Key { return CollectorKey(r.ID) }

// Key is where the record stands.
func (r *Session) Key() Key { return SessionKey(r.Collector) }

// Key is where the record stands.
func (r *Ack) Key() Key { return AckKey(r.Collector) }

// Key is where the record stands.
func (r *Removed) Key() Key { return RemovedKey(r.ID) }

// ProducerKey is the key of a producer's record.
func ProducerKey(id assignment.ProducerID) Key { return Key{KindProducer, string(id)} }

// CollectorKey is the key of a collector's record.
func CollectorKey(id assignment.CollectorID) Key { return Key{KindCollector, string(id)} }

// SessionKey is the key of a collector's session.
func SessionKey(id assignment.CollectorID) Key { return Key{KindSession, string(id)} }

// AckKey is the key of a collector's last acknowledgement.
func AckKey(id assignment.CollectorID) Key { return Key{KindAck, string(id)} }

// RemovedKey is the key of what is remembered of a producer that left.
func RemovedKey(id assignment.ProducerID) Key { return Key{KindRemoved, string(id)} }
