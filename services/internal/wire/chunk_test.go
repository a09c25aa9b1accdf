package wire_test

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

// What a ChunkWriter writes is the message that EncodeFrame makes.
func TestChunkWriterWritesTheMessage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w wire.ChunkWriter
		for range rapid.IntRange(1, 3).Draw(t, "chunks") { // Finish makes it ready again
			chunk := chunks().Draw(t, "chunk").(*assignment.Chunk) //nolint:errcheck // chunks gives no others
			for _, a := range chunk.Assignments {
				w.Add(wire.EncodeStored(a), a.Version, a.Role)
			}
			for _, r := range chunk.Removals {
				w.Remove(r)
			}
			if w.Len() != len(chunk.Assignments)+len(chunk.Removals) {
				t.Fatalf("length %d", w.Len())
			}
			encoded := w.Finish(chunk.SnapshotID, chunk.Sequence)
			var got registryv1.SubscribeResponse
			if err := proto.Unmarshal(encoded, &got); err != nil {
				t.Fatal(err)
			}
			if want := wire.EncodeFrame(chunk); !proto.Equal(&got, want) {
				t.Fatalf("wrote %v, want %v", &got, want)
			}
			frame, err := wire.UnmarshalFrame(encoded)
			if err != nil {
				t.Fatal(err)
			}
			checkSame(t, frame, assignment.Frame(chunk))
			if w.Len() != 0 {
				t.Fatalf("length %d after Finish", w.Len())
			}
		}
	})
}

// Frames are sent later and to many; the writer goes on meanwhile.
func TestChunkWriterLeavesItsFramesAlone(t *testing.T) {
	var w wire.ChunkWriter
	var frames []wire.Encoded
	var before []string
	for i, size := range []int{10_000, 10, 20_000, 1, 5_000, 30_000} {
		w.Add(bytes.Repeat([]byte{byte(i)}, size), assignment.Version(i), 1)
		frames = append(frames, w.Finish(uint64(i), uint64(i)))
		before = append(before, string(frames[i]))
	}
	for i := range frames {
		if string(frames[i]) != before[i] {
			t.Errorf("finished frame %d was changed", i)
		}
	}
}

func TestItemSize(t *testing.T) {
	for _, edge := range []int{0, 1, 1 << 7, 1 << 14, 1 << 21} {
		for stored := max(0, edge-14); stored < edge+3; stored++ {
			item := wire.AppendItem(nil, make([]byte, stored), math.MaxUint64, 127)
			if wire.ItemSize(stored) != len(item) {
				t.Fatalf("ItemSize(%d) = %d, the item has %d bytes", stored, wire.ItemSize(stored), len(item))
			}
		}
	}
}

// BoundedMessages: who asks Fits never makes a chunk over the limit, and no
// chunk is needlessly small.
func TestBoundedMessages(t *testing.T) {
	longest := assignment.ProducerID(strings.Repeat("x", 128))
	worst := assignment.Removal{ProducerID: longest, Cause: -1, Revision: -1}
	rapid.Check(t, func(t *rapid.T) {
		var w wire.ChunkWriter
		sizes := rapid.SampledFrom([]int{100, 300, 11 << 10, 40 << 10, wire.ChunkBytes / 2}).Draw(t, "size")
		spread := rapid.IntRange(0, 300).Draw(t, "spread")
		withRemovals := rapid.Bool().Draw(t, "removals")
		var size int // of what did not fit
		for n := 0; ; n++ {
			size = sizes + (n*7)%(spread+1)
			if withRemovals && n%2 == 0 {
				if !w.FitsRemoval(longest) {
					size = len(longest)
					break
				}
				w.Remove(worst)
				continue
			}
			if !w.Fits(size) {
				break
			}
			w.Add(make([]byte, size), math.MaxUint64, 127)
		}
		frame := w.Finish(math.MaxUint64, math.MaxUint64)
		if len(frame) > wire.ChunkBytes {
			t.Fatalf("a chunk of %d bytes", len(frame))
		}
		if len(frame)+wire.ItemSize(size)+100 < wire.ChunkBytes {
			t.Fatalf("a chunk of %d bytes, though %d more would have fitted", len(frame), size)
		}
		if w.Len() != 0 || !w.Fits(2*wire.ChunkBytes) {
			t.Fatal("an empty chunk does not take anything")
		}
	})
}

// The limit holds at the very byte.
func TestBoundedMessagesAtTheEdge(t *testing.T) {
	for stored := wire.ChunkBytes - 100; stored < wire.ChunkBytes; stored++ {
		var w wire.ChunkWriter
		w.Add(nil, 1, 1)
		if !w.Fits(stored) {
			return
		}
		w.Add(make([]byte, stored), 1, 1)
		if n := len(w.Finish(math.MaxUint64, math.MaxUint64)); n > wire.ChunkBytes {
			t.Fatalf("%d stored bytes fit, and make a chunk of %d", stored, n)
		}
	}
	t.Fatal("anything fits")
}

// The largest registration that is accepted fits in a chunk many times: no
// producer can make a chunk that is over the limit by itself.
func TestBoundedMessagesOfTheLargestProducer(t *testing.T) {
	m := &registryv1.Producer{
		ProducerId: strings.Repeat("p", 128), Endpoint: "http://h/" + strings.Repeat("e", 2048-9),
		HonorLabels: true, IgnoreTimestamps: true, FallbackFormat: registryv1.ExpositionFormat_EXPOSITION_FORMAT_OPENMETRICS_TEXT,
		Limits: &registryv1.CollectionLimits{
			MaxBodyBytes: math.MaxInt64, MaxSampleCount: math.MaxInt32, MaxLabelCount: math.MaxInt32, MaxLabelValueBytes: math.MaxInt32,
		},
	}
	for i := range wire.MaxLabels {
		m.Labels = append(m.Labels, &registryv1.Label{
			Name:  "l" + string(rune('a'+i%26)) + string(rune('a'+i/26)),
			Value: strings.Repeat("v", wire.MaxLabelBytes/wire.MaxLabels-3),
		})
	}
	r, err := wire.DecodeProducer(m, "producer")
	if err != nil {
		t.Fatal(err)
	}
	if n := wire.ItemSize(len(wire.EncodeStored(r.Assignment))); n > wire.ChunkBytes/4 {
		t.Errorf("the largest item has %d bytes", n)
	}
}

func wholeAssignment() *assignment.Assignment {
	return &assignment.Assignment{
		ProducerID: "job/host-1.example:9100", Version: 7, Role: assignment.RoleOwner,
		Endpoint: "https://host-1.example:9100/metrics?a=b", Interval: 15 * time.Second, Timeout: 9500 * time.Millisecond,
		Labels:      []assignment.Label{{Name: "job", Value: "api"}, {Name: "zone", Value: "zürich"}},
		HonorLabels: true, IgnoreTimestamps: true,
		Limits:         assignment.Limits{MaxBodyBytes: 1 << 24, MaxSamples: 50_000, MaxLabels: 64, MaxLabelValueBytes: 4096},
		FallbackFormat: assignment.FormatOpenMetrics, Permanent: true,
	}
}
