package roster

import "github.com/rollcall-metrics/rollcall/services/internal/assignment"

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
	KindSuspect
	KindLeader
	KindExpiry
)

// A Key names a record: its kind and the id of what it is about. That of the
// epoch, the leader and the expiry is empty.
type Key struct {
	Kind Kind
	ID   string
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

// Key is where the record stands.
func (r *Suspect) Key() Key { return SuspectKey(r.ID) }

// Key is where the record stands.
func (r *Leader) Key() Key { return LeaderKey() }

// Key is where the record stands.
func (r *Expiry) Key() Key { return ExpiryKey() }

// SuspectKey is the key of a producer's suspect record.
func SuspectKey(id assignment.ProducerID) Key { return Key{KindSuspect, string(id)} }

// LeaderKey is the key of the leader's record.
func LeaderKey() Key { return Key{Kind: KindLeader} }

// ExpiryKey is the key of the expiry record.
func ExpiryKey() Key { return Key{Kind: KindExpiry} }

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
