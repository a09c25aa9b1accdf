package wire_test

import (
	"errors"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

func seed(f *testing.F, m proto.Message) {
	f.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	if len(b) > 1 {
		f.Add(b[:len(b)-1])
	}
}

func FuzzUnmarshalFrame(f *testing.F) {
	for _, frame := range []assignment.Frame{
		&assignment.Begin{
			SnapshotID: 1, SubscriptionID: "s", Epoch: "e", Revision: 7, BaseRevision: 6, Scope: assignment.ScopeBuckets,
			BucketBits: 2, ReplacedBuckets: []uint32{0, 3}, Reason: 1, ExpectedUpserts: 1, HeartbeatInterval: 1e9, AssignmentFormat: 1,
		},
		&assignment.Chunk{SnapshotID: 1, Assignments: []*assignment.Assignment{wholeAssignment()}},
		&assignment.Chunk{SnapshotID: 1, Sequence: 1, Removals: []assignment.Removal{{ProducerID: "p", Cause: 2, Revision: 5}}},
		&assignment.End{SnapshotID: 1, Epoch: "e", Revision: 7, Chunks: 1, Upserts: 1, SetCount: 1, SetDigest: 1},
		&assignment.Heartbeat{Epoch: "e", Revision: 7, SetCount: 1, SetDigest: 1},
		&assignment.GoAway{Message: "m", RetryAfterMin: 1, RetryAfterMax: 2},
		&assignment.Unknown{},
	} {
		seed(f, wire.EncodeFrame(frame))
	}
	f.Add([]byte{0x12, 0x02, 0x1a, 0x00})
	f.Add([]byte{0x0a, 0x06, 0x38, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := wire.UnmarshalFrame(b)
		if err != nil {
			if frame != nil || !errors.Is(err, wire.ErrMalformed) {
				t.Fatalf("%T, %v", frame, err)
			}
			return
		}
		again, err := wire.MarshalFrame(frame)
		if err != nil {
			t.Fatalf("what was decoded cannot be encoded: %v", err)
		}
		second, err := wire.UnmarshalFrame(again)
		if err != nil {
			t.Fatal(err)
		}
		checkSame(t, second, frame)
		checkFrame(t, frame, len(b))
	})
}

// checkFrame checks what a decoded frame promises.
func checkFrame(t *testing.T, frame assignment.Frame, size int) {
	t.Helper()
	switch f := frame.(type) {
	case *assignment.Begin:
		if f.BucketBits > assignment.MaxBucketBits {
			t.Fatalf("%+v", f)
		}
	case *assignment.Chunk:
		if len(f.Assignments)+len(f.Removals) > size {
			t.Fatalf("%d items of %d bytes", len(f.Assignments)+len(f.Removals), size)
		}
		for _, a := range f.Assignments {
			if _, err := assignment.ParseProducerID(string(a.ProducerID)); err != nil || a.Role > 127 {
				t.Fatalf("%+v", a)
			}
			if _, err := wire.DecodeStored(wire.EncodeStored(a)); err != nil {
				t.Fatal(err)
			}
		}
		for _, r := range f.Removals {
			if _, err := assignment.ParseProducerID(string(r.ProducerID)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func FuzzDecodeSubscribe(f *testing.F) {
	seed(f, &registryv1.SubscribeRequest{
		CollectorId: "c", InstanceId: "i", Generation: 1, MinRevision: 2,
		Accepted: &registryv1.AcceptedSet{Epoch: "e", Revision: 1, SetCount: 1, SetDigest: 10, BucketBits: 2, BucketDigests: []uint64{1, 2, 3, 4}},
	})
	seed(f, &registryv1.SubscribeRequest{CollectorId: "c", Observe: true})
	seed(f, &registryv1.SubscribeRequest{Accepted: &registryv1.AcceptedSet{BucketBits: math.MaxUint32, SetCount: math.MaxInt64}})
	f.Fuzz(func(t *testing.T, b []byte) {
		var m registryv1.SubscribeRequest
		if proto.Unmarshal(b, &m) != nil {
			return
		}
		s, err := wire.DecodeSubscribe(&m)
		if err != nil {
			checkRefusal(t, err)
			return
		}
		if a := s.Accepted; a != nil {
			var sum assignment.Digest
			for _, d := range a.BucketDigests {
				sum += d
			}
			if len(a.BucketDigests) != 1<<a.BucketBits || sum != a.SetDigest || a.SetCount < 0 || a.Epoch == "" {
				t.Fatalf("%+v", a)
			}
		}
		again, err := wire.DecodeSubscribe(overTheWire(t, wire.EncodeSubscribe(s), &registryv1.SubscribeRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		checkSame(t, again, s)
	})
}

func FuzzDecodeAcknowledge(f *testing.F) {
	seed(f, wire.EncodeAcknowledge(&wire.Acknowledgement{
		Collector: "c", Instance: "i", Generation: 1, SubscriptionID: "s", SnapshotID: 1, Epoch: "e", Revision: 1, Count: 1, Digest: 1,
		Refusal: &assignment.Refusal{Reason: "DIGEST_MISMATCH", Message: "m", ProducerID: "p", Revision: 2}, HeldCount: 1,
		Held: []assignment.ProducerID{"p"}, Collected: []assignment.ProducerID{"q"}, UnrunnableCount: 1, Unrunnable: []wire.Unrunnable{{ProducerID: "p", Reason: "r"}},
	}))
	seed(f, &registryv1.AcknowledgeRequest{
		CollectorId: "c", InstanceId: "i", Outcome: 2, Epoch: strings.Repeat("ä", 100),
		Refusal: &registryv1.Refusal{Message: "x" + strings.Repeat("€", 100)},
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		var m registryv1.AcknowledgeRequest
		if proto.Unmarshal(b, &m) != nil {
			return
		}
		a, err := wire.DecodeAcknowledge(&m)
		if err != nil {
			checkRefusal(t, err)
			return
		}
		again, err := wire.DecodeAcknowledge(overTheWire(t, wire.EncodeAcknowledge(a), &registryv1.AcknowledgeRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		if len(a.Held) > wire.MaxListed || len(a.Collected) > wire.MaxListed || len(a.Unrunnable) > wire.MaxListed {
			t.Fatalf("%d held, %d unrunnable", len(a.Held), len(a.Unrunnable))
		}
		checkSame(t, trimmed(again), trimmed(a))
	})
}

// trimmed is an acknowledgement without what marks a text that was cut: such a
// text is cut again by the next one who reads it.
func trimmed(a *wire.Acknowledgement) wire.Acknowledgement {
	trim := func(s string) string { return strings.TrimRight(s[:min(len(s), 120)], ".\uFFFD") }
	b := *a
	b.SubscriptionID, b.Epoch = trim(b.SubscriptionID), assignment.Epoch(trim(string(b.Epoch)))
	if a.Refusal != nil {
		r := *a.Refusal
		r.Reason, r.Message = trim(r.Reason), trim(r.Message)
		b.Refusal = &r
	}
	b.Unrunnable = slices.Clone(b.Unrunnable)
	for i := range b.Unrunnable {
		b.Unrunnable[i].Reason = trim(b.Unrunnable[i].Reason)
	}
	return b
}

// FuzzDecodeExplained: what explains nothing is left out, and nothing else is;
// the order stays.
func FuzzDecodeExplained(f *testing.F) {
	seed(f, &registryv1.AcknowledgeResponse{Explained: []*registryv1.Removal{
		{ProducerId: "p", Cause: 1, Revision: 7}, {ProducerId: ""}, {ProducerId: "q", Cause: 99, Revision: -1}, nil,
	}})
	f.Fuzz(func(t *testing.T, b []byte) {
		var m registryv1.AcknowledgeResponse
		if proto.Unmarshal(b, &m) != nil {
			return
		}
		explained := wire.DecodeExplained(&m)
		for _, told := range m.GetExplained() {
			if _, err := assignment.ParseProducerID(told.GetProducerId()); err != nil {
				continue
			}
			want := assignment.Removal{
				ProducerID: assignment.ProducerID(told.GetProducerId()),
				Cause:      assignment.Cause(told.GetCause()), Revision: assignment.Revision(told.GetRevision()),
			}
			if len(explained) == 0 || explained[0] != want {
				t.Fatalf("%+v is not told: %+v", want, explained)
			}
			explained = explained[1:]
		}
		if len(explained) > 0 {
			t.Fatalf("%+v were not told", explained)
		}
	})
}

// FuzzDecodeStored: what stands in a producer's record is refused or is one
// assignment, which has one encoding from then on.
func FuzzDecodeStored(f *testing.F) {
	for _, b := range [][]byte{nil, wire.EncodeStored(wholeAssignment()), wire.EncodeStored(&assignment.Assignment{ProducerID: "p"})} {
		f.Add(b)
		f.Add(append(slices.Clone(b), 0xfa, 0x3e, 3, 'n', 'e', 'w')) // a field of a newer version
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := wire.DecodeStored(b)
		if err != nil {
			if a != nil || !errors.Is(err, wire.ErrMalformed) {
				t.Fatalf("%+v, %v", a, err)
			}
			return
		}
		if _, err := assignment.ParseProducerID(string(a.ProducerID)); err != nil || a.Version != assignment.VersionOf(b) {
			t.Fatalf("%+v", a)
		}
		stored := wire.EncodeStored(a)
		again, err := wire.DecodeStored(stored)
		if err != nil {
			t.Fatal(err)
		}
		if !again.SameWork(a) || !slices.Equal(wire.EncodeStored(again), stored) {
			t.Fatalf("%+v became %+v", a, again)
		}
		// The record goes into a chunk as it is, with version and role behind it.
		w := &wire.ChunkWriter{}
		w.Add(b, a.Version, assignment.RoleOwner)
		frame, err := wire.UnmarshalFrame(w.Finish(1, 0))
		if err != nil {
			t.Fatal(err)
		}
		sent := frame.(*assignment.Chunk).Assignments[0] //nolint:errcheck,forcetypeassert // a panic fails the test
		if sent.Version != a.Version || sent.Role != assignment.RoleOwner || !sent.SameWork(a) {
			t.Fatalf("%+v is sent as %+v", a, sent)
		}
	})
}

// FuzzDecodeCollector: what a collector says of itself is refused, or is the same
// after it was sent again.
func FuzzDecodeCollector(f *testing.F) {
	seed(f, wholeCollector())
	seed(f, &registryv1.Collector{CollectorId: "c", InstanceId: "i", CapacitySamplesPerSecond: math.NaN(), Zone: strings.Repeat("z", 129)})
	f.Fuzz(func(t *testing.T, b []byte) {
		var m registryv1.Collector
		if proto.Unmarshal(b, &m) != nil {
			return
		}
		c, err := wire.DecodeCollector(&m)
		if err != nil {
			checkRefusal(t, err)
			return
		}
		if !(c.Capacity >= 0 && c.Capacity <= wire.MaxCapacity) || len(c.Zone) > 128 {
			t.Fatalf("%+v", c)
		}
		again, err := wire.DecodeCollector(overTheWire(t, wire.EncodeCollector(c), &registryv1.Collector{}))
		if err != nil {
			t.Fatal(err)
		}
		checkSame(t, again, c)
	})
}

func FuzzDecodeProducer(f *testing.F) {
	for _, tc := range producers {
		if b, err := proto.Marshal(producer(tc.change)); err == nil && len(b) < 1000 {
			f.Add(b)
		}
	}
	for _, life := range []func(*registryv1.Producer){
		byHand, permanent, all(byHand, leased), all(lease(60e9), expiry(120e9)),
		func(m *registryv1.Producer) { m.Zone, m.ExpectedSamplesPerSecond = "eu-1", math.NaN() },
	} {
		seed(f, producer(life))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m registryv1.Producer
		if proto.Unmarshal(b, &m) != nil {
			return
		}
		r, err := wire.DecodeProducer(&m, "producer")
		if err != nil {
			checkRefusal(t, err)
			return
		}
		checkRegistration(t, r)
		if n := len(wire.EncodeStored(r.Assignment)); n > 16<<10 {
			t.Fatalf("%d stored bytes", n)
		}
		answer := overTheWire(t, wire.EncodeProducer(r.Assignment), &registryv1.Producer{})
		again, err := wire.DecodeProducer(answer, "producer")
		if err != nil {
			t.Fatal(err)
		}
		checkSame(t, again.Assignment, r.Assignment)
	})
}

// checkRefusal checks that a refusal is bounded and can be told.
func checkRefusal(t *testing.T, err error) {
	t.Helper()
	violations, ok := err.(wire.Violations) //nolint:errorlint // the documentation promises this very type
	if !ok || len(violations) == 0 || len(violations) > 20 {
		t.Fatalf("%T with %d violations: %v", err, len(violations), err)
	}
	checkText(t, err)
}

// No message costs much more than its bytes, whatever it claims.
func TestHostileMessagesAreCheap(t *testing.T) {
	repeat := func(n protowire.Number, body string, count int) []byte {
		return []byte(strings.Repeat(string(protowire.AppendString(protowire.AppendTag(nil, n, protowire.BytesType), body)), count))
	}
	const most = 4 << 20 // of one message, by default
	for name, run := range map[string]func(t *testing.T){
		"bucket bits": func(t *testing.T) {
			for bits := range uint32(70) {
				m := &registryv1.SubscribeRequest{CollectorId: "c", Observe: true, Accepted: &registryv1.AcceptedSet{Epoch: "e", BucketBits: bits}}
				if _, err := wire.DecodeSubscribe(m); err == nil {
					t.Errorf("%d bits without a digest are taken", bits)
				}
			}
		},
		"held ids": func(t *testing.T) {
			m := &registryv1.AcknowledgeRequest{HeldProducerIds: slices.Repeat([]string{"p"}, most/3)}
			if _, err := wire.DecodeAcknowledge(m); err == nil {
				t.Error("taken")
			}
		},
		"bad labels": func(t *testing.T) {
			m := &registryv1.Producer{Labels: slices.Repeat([]*registryv1.Label{{Name: "\xff"}}, most/2), Interval: &durationpb.Duration{Seconds: math.MaxInt64}}
			if _, err := wire.DecodeProducer(m, "p"); err == nil {
				t.Error("taken")
			}
		},
		"empty assignments": func(t *testing.T) {
			b := protowire.AppendTag(nil, 2, protowire.BytesType)
			b = protowire.AppendBytes(b, repeat(3, "", assignment.MaxChunkBytes/2))
			if _, err := wire.UnmarshalFrame(b); err == nil {
				t.Error("taken")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			run(t)
			runtime.ReadMemStats(&after)
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 128<<20 {
				t.Errorf("it took %d MiB", grown>>20)
			}
		})
	}
}
