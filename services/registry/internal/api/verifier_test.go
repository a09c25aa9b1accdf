package api_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"

	"github.com/cespare/xxhash/v2"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// A verifier is a client of Subscribe, written from the comments of the proto
// alone: nothing of this repository but the generated messages is in it.
type verifier struct {
	set      map[string]*registryv1.Assignment
	epoch    string
	revision int64

	begin           *registryv1.SnapshotBegin // of the open snapshot
	staged          map[string]*registryv1.Assignment
	named           map[string]bool // in the open snapshot
	chunks          uint64
	upserts         int64
	removals        int64
	last            *registryv1.SnapshotBegin
	lastUpserts     int64
	lastRemovals    []*registryv1.Removal
	largest, frames int
	goAway          *registryv1.GoAway
	beat            *registryv1.Heartbeat
}

func newVerifier() *verifier { return &verifier{set: map[string]*registryv1.Assignment{}} }

func hash(a *registryv1.Assignment) uint64 {
	b := append([]byte(a.GetProducerId()), 0)
	b = binary.BigEndian.AppendUint64(b, a.GetVersion())
	return xxhash.Sum64(append(b, byte(a.GetRole())))
}

func digest(set map[string]*registryv1.Assignment) uint64 {
	var sum uint64
	for _, a := range set {
		sum += hash(a)
	}
	return sum
}

func bucket(id string, bits uint32) uint32 {
	if bits == 0 {
		return 0
	}
	return uint32(xxhash.Sum64String(id) >> (64 - bits))
}

func bucketBits(count int) uint32 {
	bits := math.Ceil(math.Log2(float64(count) / 64))
	return uint32(max(0, min(16, bits)))
}

// accepted tells what the verifier holds.
func (v *verifier) accepted() *registryv1.AcceptedSet {
	bits := bucketBits(len(v.set))
	a := &registryv1.AcceptedSet{
		Epoch: v.epoch, Revision: v.revision, SetCount: int64(len(v.set)), SetDigest: digest(v.set),
		BucketBits: bits, BucketDigests: make([]uint64, 1<<bits), AssignmentFormat: v.last.GetAssignmentFormat(),
	}
	for id, m := range v.set {
		a.BucketDigests[bucket(id, bits)] += hash(m)
	}
	return a
}

// take takes one frame, and tells whether it was a seal.
func (v *verifier) take(m *registryv1.SubscribeResponse) (sealed bool, err error) {
	v.frames++
	v.largest = max(v.largest, proto.Size(m))
	switch f := m.GetFrame().(type) {
	case *registryv1.SubscribeResponse_SnapshotBegin:
		return false, v.open(f.SnapshotBegin)
	case *registryv1.SubscribeResponse_SnapshotChunk:
		return false, v.chunk(f.SnapshotChunk)
	case *registryv1.SubscribeResponse_SnapshotEnd:
		return true, v.seal(f.SnapshotEnd)
	case *registryv1.SubscribeResponse_Heartbeat:
		return false, v.heartbeat(f.Heartbeat)
	case *registryv1.SubscribeResponse_GoAway:
		v.goAway = f.GoAway
	}
	return false, nil
}

func (v *verifier) open(b *registryv1.SnapshotBegin) error {
	switch {
	case v.begin != nil:
		return errors.New("a begin inside a snapshot")
	case b.GetScope() == registryv1.SnapshotScope_SNAPSHOT_SCOPE_CHANGES && b.GetBaseRevision() != v.revision:
		return fmt.Errorf("changes on revision %d, not %d", b.GetBaseRevision(), v.revision)
	case b.GetSnapshotId() != v.last.GetSnapshotId()+1 && v.last.GetSubscriptionId() == b.GetSubscriptionId():
		return fmt.Errorf("snapshot %d after %d", b.GetSnapshotId(), v.last.GetSnapshotId())
	case b.GetEpoch() == "" || b.GetSubscriptionId() == "" || b.GetRegistryInstanceId() == "" || b.GetHeartbeatInterval().AsDuration() <= 0:
		return fmt.Errorf("begin %v", b)
	}
	v.begin, v.named, v.chunks, v.upserts, v.removals, v.lastRemovals = b, map[string]bool{}, 0, 0, 0, nil
	v.staged = map[string]*registryv1.Assignment{}
	switch b.GetScope() {
	case registryv1.SnapshotScope_SNAPSHOT_SCOPE_ALL:
	case registryv1.SnapshotScope_SNAPSHOT_SCOPE_CHANGES:
		maps.Copy(v.staged, v.set)
	case registryv1.SnapshotScope_SNAPSHOT_SCOPE_BUCKETS:
		return v.openBuckets(b)
	default:
		return fmt.Errorf("scope %v", b.GetScope())
	}
	return nil
}

func (v *verifier) openBuckets(b *registryv1.SnapshotBegin) error {
	replaced := map[uint32]bool{}
	for i, n := range b.GetReplacedBuckets() {
		if i > 0 && n <= b.GetReplacedBuckets()[i-1] || n >= 1<<b.GetBucketBits() {
			return fmt.Errorf("bucket %d is out of order or range", n)
		}
		replaced[n] = true
	}
	for id, a := range v.set {
		if !replaced[bucket(id, b.GetBucketBits())] {
			v.staged[id] = a
		}
	}
	return nil
}

func (v *verifier) chunk(c *registryv1.SnapshotChunk) error {
	if v.begin == nil || c.GetSnapshotId() != v.begin.GetSnapshotId() || c.GetSequence() != v.chunks {
		return fmt.Errorf("chunk %d of snapshot %d is out of place", c.GetSequence(), c.GetSnapshotId())
	}
	v.chunks++
	for _, a := range c.GetAssignments() {
		if id := a.GetProducerId(); id == "" || v.named[id] {
			return fmt.Errorf("the id %q is empty or repeated", id)
		}
		v.named[a.GetProducerId()] = true
		v.staged[a.GetProducerId()] = a
		v.upserts++
	}
	for _, r := range c.GetRemovals() {
		if id := r.GetProducerId(); id == "" || v.named[id] || v.begin.GetScope() != registryv1.SnapshotScope_SNAPSHOT_SCOPE_CHANGES {
			return fmt.Errorf("the removal of %q is empty, repeated or out of scope", id)
		}
		v.named[r.GetProducerId()] = true
		delete(v.staged, r.GetProducerId())
		v.lastRemovals = append(v.lastRemovals, r)
		v.removals++
	}
	return nil
}

func (v *verifier) seal(e *registryv1.SnapshotEnd) error {
	b := v.begin
	switch {
	case b == nil, e.GetSnapshotId() != b.GetSnapshotId(), e.GetEpoch() != b.GetEpoch(), e.GetRevision() != b.GetRevision():
		return fmt.Errorf("end %v of %v", e, b)
	case e.GetChunkCount() != v.chunks, e.GetUpsertCount() != v.upserts, e.GetRemovalCount() != v.removals,
		e.GetSetCount() != int64(len(v.staged)), b.GetExpectedUpsertCount() != v.upserts:
		return fmt.Errorf("end %v after %d chunks, %d upserts, %d removals, %d members", e, v.chunks, v.upserts, v.removals, len(v.staged))
	case e.GetSetDigest() != digest(v.staged):
		return fmt.Errorf("digest %x, want %x", digest(v.staged), e.GetSetDigest())
	case e.GetEpoch() == v.epoch && e.GetRevision() < v.revision:
		return fmt.Errorf("revision %d after %d", e.GetRevision(), v.revision)
	}
	v.set, v.epoch, v.revision, v.last, v.begin, v.lastUpserts = v.staged, e.GetEpoch(), e.GetRevision(), b, nil, v.upserts
	return nil
}

func (v *verifier) heartbeat(h *registryv1.Heartbeat) error {
	switch {
	case v.begin != nil || v.last == nil:
		return errors.New("a heartbeat before or inside a snapshot")
	case h.GetEpoch() != v.epoch, h.GetRevision() < v.revision, h.GetSetCount() != int64(len(v.set)), h.GetSetDigest() != digest(v.set):
		return fmt.Errorf("heartbeat %v, held are %d members of revision %d", h, len(v.set), v.revision)
	}
	v.revision, v.beat = h.GetRevision(), h
	return nil
}

// untilSeal reads frames until a snapshot is sealed.
func (v *verifier) untilSeal(stream grpc.ServerStreamingClient[registryv1.SubscribeResponse]) error {
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if sealed, err := v.take(m); sealed || err != nil {
			return err
		}
	}
}

// untilEnd reads frames until the stream fails.
func (v *verifier) untilEnd(stream grpc.ServerStreamingClient[registryv1.SubscribeResponse]) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return errors.New("the stream ended without an error")
		}
		if err != nil {
			return err
		}
		if _, err := v.take(m); err != nil {
			return err
		}
	}
}
