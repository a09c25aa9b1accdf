package assignment

import "time"

// AssignmentFormat counts up whenever Assignment gains a field that the
// registry fills. A set of another format is not resumed but sent whole.
const AssignmentFormat = 3

// MaxChunkBytes is the most that one chunk takes, encoded.
const MaxChunkBytes = 512 << 10

// A Frame is one message of the assignment stream: a Begin, Chunk, End,
// Heartbeat, GoAway or Unknown.
type Frame interface{ frame() }

// A Scope says what a snapshot replaces, numbered as in the protocol.
type Scope int32

// The scopes.
const (
	// ScopeAll replaces the set as a whole.
	ScopeAll Scope = 1

	// ScopeBuckets replaces the listed buckets.
	ScopeBuckets Scope = 2

	// ScopeChanges replaces nothing; it adds, updates and removes.
	ScopeChanges Scope = 3
)

// A Cause says why a producer left a set, numbered as in the protocol. An
// unknown one counts as CauseUnspecified.
type Cause int32

// The causes.
const (
	CauseUnspecified  Cause = 0
	CauseDeregistered Cause = 1
	CauseHandedOff    Cause = 2
	CauseExpired      Cause = 3
)

// A Removal names a producer that is no longer in the set.
type Removal struct {
	ProducerID ProducerID
	Cause      Cause
	Revision   Revision
}

type (
	// Begin opens a snapshot.
	Begin struct {
		SnapshotID         uint64
		SubscriptionID     string
		Epoch              Epoch
		Revision           Revision
		BaseRevision       Revision
		Scope              Scope
		BucketBits         uint8
		ReplacedBuckets    []uint32
		Reason             int32
		ExpectedUpserts    int64
		HeartbeatInterval  time.Duration
		AssignmentFormat   int32
		RegistryInstanceID InstanceID
	}

	// Chunk carries a part of the open snapshot.
	Chunk struct {
		SnapshotID  uint64
		Sequence    uint64
		Assignments []*Assignment
		Removals    []Removal
	}

	// End seals the open snapshot.
	End struct {
		SnapshotID uint64
		Epoch      Epoch
		Revision   Revision
		Chunks     uint64
		Upserts    int64
		Removals   int64
		SetCount   int64
		SetDigest  Digest
	}

	// Heartbeat tells the set as of the last end frame.
	Heartbeat struct {
		Epoch                Epoch
		Revision             Revision
		SetCount             int64
		SetDigest            Digest
		AcknowledgedRevision Revision

		// ServerTime is zero when it was not told.
		ServerTime time.Time
	}

	// GoAway comes before a planned close.
	GoAway struct {
		Reason        int32
		Message       string
		RetryAfterMin time.Duration
		RetryAfterMax time.Duration
	}

	// Unknown is a frame of a kind that only a newer peer knows. It is ignored.
	Unknown struct{}
)

func (*Begin) frame()     {}
func (*Chunk) frame()     {}
func (*End) frame()       {}
func (*Heartbeat) frame() {}
func (*GoAway) frame()    {}
func (*Unknown) frame()   {}

// Accepted tells what a collector holds, so that a registry can send only what
// differs.
type Accepted struct {
	Epoch            Epoch
	Revision         Revision
	SetCount         int64
	SetDigest        Digest
	BucketBits       uint8
	BucketDigests    []Digest
	AssignmentFormat int32
}

// A Refusal says why a snapshot was not accepted.
type Refusal struct {
	// Reason is a short constant name, like DIGEST_MISMATCH.
	Reason string

	// Message is for people.
	Message string

	// ProducerID is empty unless the refusal is about one producer.
	ProducerID ProducerID

	// Revision is that of the refused snapshot.
	Revision Revision
}
