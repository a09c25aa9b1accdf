package wire

import (
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// Encoded is a SubscribeResponse in its encoding. With Codec a server can send
// it as a message, and a client receive one, to decode it by itself.
type Encoded []byte

// responseChunkField is the number of snapshot_chunk in SubscribeResponse.
const responseChunkField = 2

// ChunkBytes is about how large a ChunkWriter's chunks are. It is much less than
// the protocol allows: for a subscriber that does not read, the server keeps one
// chunk that is queued, one that is being sent and one that is being built.
const ChunkBytes = 64 << 10

// A ChunkWriter builds one encoded SubscribeResponse with a snapshot_chunk. The
// zero value is ready; Finish makes it ready again.
type ChunkWriter struct {
	body     []byte
	removals int
	items    int
}

// Fits reports whether an assignment with so many stored bytes can be added. An
// empty chunk takes anything.
func (w *ChunkWriter) Fits(stored int) bool {
	return w.items+w.removals == 0 || len(w.body)+ItemSize(stored)+chunkHeader <= ChunkBytes
}

// FitsRemoval reports whether a removal of that id can be added.
func (w *ChunkWriter) FitsRemoval(id assignment.ProducerID) bool {
	return w.Fits(len(id) + removalOverhead)
}

const (
	chunkHeader     = 2 + 10 + 2 + 10 + 16
	removalOverhead = 32
)

// Len is the number of assignments and removals added.
func (w *ChunkWriter) Len() int { return w.items + w.removals }

// Add appends an assignment.
func (w *ChunkWriter) Add(stored []byte, version assignment.Version, role assignment.Role) {
	w.body = AppendItem(w.body, stored, version, role)
	w.items++
}

// Remove appends a removal.
func (w *ChunkWriter) Remove(r assignment.Removal) {
	var inner []byte
	inner = protowire.AppendTag(inner, 1, protowire.BytesType)
	inner = protowire.AppendString(inner, string(r.ProducerID))
	inner = protowire.AppendTag(inner, 2, protowire.VarintType)
	inner = protowire.AppendVarint(inner, uint64(r.Cause))
	inner = protowire.AppendTag(inner, 3, protowire.VarintType)
	inner = protowire.AppendVarint(inner, uint64(r.Revision))
	w.body = protowire.AppendTag(w.body, 4, protowire.BytesType)
	w.body = protowire.AppendBytes(w.body, inner)
	w.removals++
}

// Finish returns the encoded frame.
func (w *ChunkWriter) Finish(snapshotID, sequence uint64) Encoded {
	var head []byte
	head = protowire.AppendTag(head, chunkSnapshotIDField, protowire.VarintType)
	head = protowire.AppendVarint(head, snapshotID)
	head = protowire.AppendTag(head, chunkSequenceField, protowire.VarintType)
	head = protowire.AppendVarint(head, sequence)

	frame := make(Encoded, 0, len(head)+len(w.body)+8)
	frame = protowire.AppendTag(frame, responseChunkField, protowire.BytesType)
	frame = protowire.AppendVarint(frame, uint64(len(head)+len(w.body)))
	frame = append(append(frame, head...), w.body...)
	*w = ChunkWriter{body: w.body[:0]}
	return frame
}

// Codec is the codec of protocol buffers that also takes Encoded messages, for
// grpc.ForceServerCodecV2 and grpc.ForceCodecV2.
func Codec() encoding.CodecV2 {
	return codec{encoding.GetCodecV2(proto.Name)}
}

type codec struct{ encoding.CodecV2 }

// Marshal passes Encoded messages through.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if e, ok := v.(Encoded); ok {
		return mem.BufferSlice{mem.SliceBuffer(e)}, nil
	}
	return c.CodecV2.Marshal(v)
}

// Unmarshal hands Encoded messages over as they are.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if e, ok := v.(*Encoded); ok {
		*e = data.Materialize()
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}
