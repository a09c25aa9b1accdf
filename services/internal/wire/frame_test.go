package wire_test

import (
	"errors"
	"math"
	"testing"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"
)

func TestFramesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := frames().Draw(t, "frame")
		b, err := wire.MarshalFrame(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := wire.UnmarshalFrame(b)
		if err != nil {
			t.Fatal(err)
		}
		checkSame(t, got, want)
		got, err = wire.DecodeFrame(wire.EncodeFrame(want))
		if err != nil {
			t.Fatal(err)
		}
		checkSame(t, got, want)
	})
}

// A frame without its fields, and one that a newer registry may send.
func TestSparseFrames(t *testing.T) {
	field := func(n protowire.Number, body string) []byte {
		return protowire.AppendString(protowire.AppendTag(nil, n, protowire.BytesType), body)
	}
	for _, tc := range []struct {
		name string
		b    []byte
		want assignment.Frame
	}{
		{"nothing", nil, &assignment.Unknown{}},
		{"an unknown kind", field(99, "new"), &assignment.Unknown{}},
		{"an empty begin", field(1, ""), &assignment.Begin{}},
		{"an empty chunk", field(2, ""), &assignment.Chunk{}},
		{"an empty end", field(3, ""), &assignment.End{}},
		{"an empty heartbeat", field(4, ""), &assignment.Heartbeat{}},
		{"an empty go_away", field(5, ""), &assignment.GoAway{}},
		{"unknown fields", field(5, string(field(99, "new"))), &assignment.GoAway{}},
		{"two frames in one", append(field(1, ""), field(5, "")...), &assignment.GoAway{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := wire.UnmarshalFrame(tc.b)
			if err != nil {
				t.Fatal(err)
			}
			checkSame(t, got, tc.want)
		})
	}
	got, err := wire.DecodeFrame(nil)
	if err != nil {
		t.Fatal(err)
	}
	checkSame(t, got, assignment.Frame(&assignment.Unknown{}))
}

// A heartbeat of a registry that does not tell its time is not one of 1970.
func TestAbsentServerTimeIsZero(t *testing.T) {
	frame, err := wire.DecodeFrame(&registryv1.SubscribeResponse{
		Frame: &registryv1.SubscribeResponse_Heartbeat{Heartbeat: &registryv1.Heartbeat{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if h := frame.(*assignment.Heartbeat); !h.ServerTime.IsZero() { //nolint:errcheck // it panics when wrong, as it should
		t.Errorf("the server's time is %v", h.ServerTime)
	}
	m := wire.EncodeFrame(&assignment.Heartbeat{})
	if m.GetHeartbeat().ServerTime != nil {
		t.Errorf("a zero time is told as %v", m.GetHeartbeat().GetServerTime())
	}
}

func TestMalformedFrames(t *testing.T) {
	chunk := func(c *registryv1.SnapshotChunk) *registryv1.SubscribeResponse {
		return &registryv1.SubscribeResponse{Frame: &registryv1.SubscribeResponse_SnapshotChunk{SnapshotChunk: c}}
	}
	item := func(a *registryv1.Assignment) *registryv1.SubscribeResponse {
		good := &registryv1.Assignment{ProducerId: "good"}
		return chunk(&registryv1.SnapshotChunk{Assignments: []*registryv1.Assignment{good, a, good}})
	}
	begin := func(b *registryv1.SnapshotBegin) *registryv1.SubscribeResponse {
		return &registryv1.SubscribeResponse{Frame: &registryv1.SubscribeResponse_SnapshotBegin{SnapshotBegin: b}}
	}
	for name, m := range map[string]*registryv1.SubscribeResponse{
		"an assignment without id":       item(&registryv1.Assignment{}),
		"an assignment that is nil":      item(nil),
		"an assignment with a bad id":    item(&registryv1.Assignment{ProducerId: "a b"}),
		"a negative role":                item(&registryv1.Assignment{ProducerId: "a", Role: -1}),
		"a role over 127":                item(&registryv1.Assignment{ProducerId: "a", Role: 128}),
		"a role that is 1 in eight bits": item(&registryv1.Assignment{ProducerId: "a", Role: 257}),
		"a removal without id":           chunk(&registryv1.SnapshotChunk{Removals: []*registryv1.Removal{{}}}),
		"a removal that is nil":          chunk(&registryv1.SnapshotChunk{Removals: []*registryv1.Removal{nil}}),
		"a removal with a bad id":        chunk(&registryv1.SnapshotChunk{Removals: []*registryv1.Removal{{ProducerId: "-"}}}),
		"17 bucket bits":                 begin(&registryv1.SnapshotBegin{BucketBits: 17}),
		"0 bucket bits in eight bits":    begin(&registryv1.SnapshotBegin{BucketBits: 256}),
		"most bucket bits":               begin(&registryv1.SnapshotBegin{BucketBits: math.MaxUint32}),
	} {
		t.Run(name, func(t *testing.T) {
			frame, err := wire.DecodeFrame(m)
			if !errors.Is(err, wire.ErrMalformed) || frame != nil {
				t.Errorf("%T, %v", frame, err)
			}
		})
	}
}

// Times that make no sense come through as the nearest that a Duration can say:
// a frame is not refused for them, and who waits must bound them.
func TestOddWaitsAreTaken(t *testing.T) {
	least := &durationpb.Duration{Seconds: math.MinInt64, Nanos: math.MinInt32}
	most := &durationpb.Duration{Seconds: math.MaxInt64, Nanos: math.MaxInt32}
	for _, tc := range []struct {
		m    *registryv1.SubscribeResponse
		want assignment.Frame
	}{
		{&registryv1.SubscribeResponse{Frame: &registryv1.SubscribeResponse_GoAway{
			GoAway: &registryv1.GoAway{RetryAfterMin: most, RetryAfterMax: least},
		}}, &assignment.GoAway{RetryAfterMin: math.MaxInt64, RetryAfterMax: math.MinInt64}},
		{&registryv1.SubscribeResponse{Frame: &registryv1.SubscribeResponse_SnapshotBegin{
			SnapshotBegin: &registryv1.SnapshotBegin{HeartbeatInterval: least},
		}}, &assignment.Begin{HeartbeatInterval: math.MinInt64}},
	} {
		frame, err := wire.DecodeFrame(tc.m)
		if err != nil {
			t.Fatal(err)
		}
		checkSame(t, frame, tc.want)
	}
}

func TestEncodeAssignmentIsTheChunksOwn(t *testing.T) {
	a := wholeAssignment()
	chunk := wire.EncodeFrame(&assignment.Chunk{Assignments: []*assignment.Assignment{a}}).GetSnapshotChunk()
	if !proto.Equal(wire.EncodeAssignment(a), chunk.GetAssignments()[0]) {
		t.Errorf("%v, want %v", wire.EncodeAssignment(a), chunk.GetAssignments()[0])
	}
}

func TestBytesThatAreNoFrame(t *testing.T) {
	for name, b := range map[string][]byte{
		"cut off":        {0x0a, 0x05, 1},
		"a huge length":  {0x12, 0xff, 0xff, 0xff, 0xff, 0x7f},
		"end of a group": {0x0c},
		"invalid UTF-8":  {0x0a, 0x03, 0x12, 0x01, 0xff},
	} {
		if frame, err := wire.UnmarshalFrame(b); !errors.Is(err, wire.ErrMalformed) || frame != nil {
			t.Errorf("%s: %T, %v", name, frame, err)
		}
	}
	if b, err := wire.MarshalFrame(&assignment.GoAway{Message: "\xff"}); !errors.Is(err, wire.ErrMalformed) || b != nil {
		t.Errorf("a frame that cannot be encoded: %x, %v", b, err)
	}
}

func TestExplained(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(removals(), 0, 4).Draw(t, "removals")
		m := &registryv1.AcknowledgeResponse{Explained: wire.EncodeRemovals(want)}
		m = overTheWire(t, m, &registryv1.AcknowledgeResponse{})
		checkSame(t, wire.DecodeExplained(m), want)

		// A malformed entry explains nothing, and hides nothing.
		m.Explained = append([]*registryv1.Removal{{ProducerId: "a b"}, nil, {}}, m.GetExplained()...)
		checkSame(t, wire.DecodeExplained(m), want)
	})
	if got := wire.DecodeExplained(nil); len(got) != 0 {
		t.Errorf("no answer explains %v", got)
	}
}

// Assignments that this build cannot run are taken as they are.
func TestOddAssignmentsAreTaken(t *testing.T) {
	m := &registryv1.Assignment{
		ProducerId:     "a",
		Role:           127,
		Endpoint:       "newscheme://\x00",
		Interval:       &durationpb.Duration{Seconds: math.MaxInt64, Nanos: math.MinInt32},
		Timeout:        &durationpb.Duration{Seconds: math.MinInt64, Nanos: math.MaxInt32},
		Labels:         []*registryv1.Label{nil, {Name: "\x00"}},
		FallbackFormat: math.MaxInt32,
		Limits:         &registryv1.CollectionLimits{MaxBodyBytes: math.MinInt64},
	}
	b, err := proto.Marshal(&registryv1.SubscribeResponse{Frame: &registryv1.SubscribeResponse_SnapshotChunk{
		SnapshotChunk: &registryv1.SnapshotChunk{Assignments: []*registryv1.Assignment{m, {ProducerId: "b"}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	frame, err := wire.UnmarshalFrame(b)
	if err != nil {
		t.Fatal(err)
	}
	checkSame(t, frame, assignment.Frame(&assignment.Chunk{Assignments: []*assignment.Assignment{
		{
			ProducerID: "a", Role: 127, Endpoint: "newscheme://\x00",
			Interval: math.MaxInt64, Timeout: math.MinInt64,
			Labels: []assignment.Label{{}, {Name: "\x00"}}, FallbackFormat: math.MaxInt32,
			Limits: assignment.Limits{MaxBodyBytes: math.MinInt64},
		},
		{ProducerID: "b"},
	}}))
}
