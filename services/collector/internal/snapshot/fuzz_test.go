package snapshot_test

import (
	"encoding/binary"
	"maps"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/snapshot"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
)

// pack is the reverse of unpack.
func pack(f *testing.F, mend byte, frames ...assignment.Frame) []byte {
	f.Helper()
	b := []byte{mend}
	for _, frame := range frames {
		m, err := wire.MarshalFrame(frame)
		if err != nil {
			f.Fatal(err)
		}
		b = append(binary.AppendUvarint(b, uint64(len(m))), m...)
	}
	return b
}

// unpack reads frames, each after its length, until one is cut off or cannot be
// decoded: there a stream ends.
func unpack(b []byte) (frames []assignment.Frame) {
	for len(b) > 0 && len(frames) < 100 {
		n, used := binary.Uvarint(b)
		if used <= 0 || n > uint64(len(b)-used) {
			break
		}
		frame, err := wire.UnmarshalFrame(b[used : used+int(n)])
		if err != nil {
			break
		}
		frames, b = append(frames, frame), b[used+int(n):]
	}
	return frames
}

// mend makes an end frame agree with the frames before it, so that what the
// fuzzer does to the others is not always refused for its digest.
func mend(before members, open []assignment.Frame, end *assignment.End) {
	begin, ok := open[0].(*assignment.Begin)
	if !ok {
		return
	}
	end.SnapshotID, end.Epoch, end.Revision = begin.SnapshotID, begin.Epoch, begin.Revision
	end.Chunks, end.Upserts, end.Removals = 0, 0, 0
	for _, frame := range open {
		if c, ok := frame.(*assignment.Chunk); ok {
			end.Chunks++
			end.Upserts += int64(len(c.Assignments))
			end.Removals += int64(len(c.Removals))
		}
	}
	set := staged(before, open)
	end.SetCount, end.SetDigest = int64(len(set)), digestOf(set)
}

func FuzzAssembler(f *testing.F) {
	r, accepted := newRegistry(3), &snapshot.Accepted{}
	stream := r.all()
	if a := snapshot.NewAssembler(accepted, maxCount); true {
		for _, frame := range stream {
			if _, err := a.Add(frame); err != nil {
				f.Fatal(err)
			}
		}
	}
	first := stream
	snapshots := step(r, accepted)
	for _, flag := range []byte{0, 1} {
		f.Add([]byte{flag})
		f.Add(pack(f, flag, first...))
		for _, scope := range scopes {
			f.Add(pack(f, flag, append(append([]assignment.Frame{}, first...), snapshots[scope]...)...))
		}
		stream = append(append([]assignment.Frame{}, first...), r.heartbeat(), &assignment.GoAway{}, &assignment.Unknown{})
		f.Add(pack(f, flag, append(stream, snapshots[assignment.ScopeBuckets][:2]...)...))
		f.Add(pack(f, flag, first[0], first[0]))
		f.Add(pack(f, flag, first[0], r.heartbeat(), first[1]))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		accepted := &snapshot.Accepted{}
		a := snapshot.NewAssembler(accepted, maxCount)
		var open []assignment.Frame
		for _, frame := range unpack(b[1:]) {
			switch f := frame.(type) {
			case *assignment.Begin:
				open = []assignment.Frame{f}
			case *assignment.Chunk:
				open = append(open, f)
			case *assignment.End:
				if b[0]&1 == 1 && a.Open() {
					mend(maps.Collect(accepted.Set.All()), open, f)
				}
			}
			before := observe(accepted)
			if _, err := add(t, a, accepted, frame); err != nil {
				checkFault(t, err, reasonOf(err))
			}
			if before.Epoch == accepted.Epoch && accepted.Revision < before.Revision {
				t.Fatalf("from revision %d back to %d", before.Revision, accepted.Revision)
			}
			if accepted.Set.Len() > maxCount {
				t.Fatalf("%d members", accepted.Set.Len())
			}
		}
	})
}

// reasonOf is the reason of a fault, which must be one of the constants.
func reasonOf(err error) string {
	fault, ok := err.(*snapshot.Fault) //nolint:errorlint // the documentation promises this very type
	if !ok {
		return "a fault"
	}
	switch fault.Reason {
	case snapshot.ReasonNested, snapshot.ReasonHeartbeat, snapshot.ReasonOutside, snapshot.ReasonSnapshotID, snapshot.ReasonSequence,
		snapshot.ReasonScope, snapshot.ReasonBuckets, snapshot.ReasonRepeated, snapshot.ReasonRemoval, snapshot.ReasonCount,
		snapshot.ReasonDigest, snapshot.ReasonEpoch, snapshot.ReasonRevision, snapshot.ReasonTooLarge, snapshot.ReasonMalformed:
		return fault.Reason
	default:
		return "a known reason"
	}
}
