package statefile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/guard"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/snapshot"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
)

// The reasons why an entry is not appended; the state is written anew instead.
var (
	errTooLarge = errors.New("too large to be appended")
	errSequel   = errors.New("the frames are no sequel to what is in the file")
)

// flushBytes is about how much of a new generation is in memory at a time.
const flushBytes = 1 << 20

// An encoder makes the records of one entry.
type encoder struct {
	buf     []byte
	salt    uint32
	records uint32

	// limit is the most bytes that buf may take, without the commit, when there
	// is no out.
	limit int64

	// out takes what is in buf now and then; written is how much it took.
	out     io.Writer
	written int64
}

// record adds one, with the payload that appendPayload appends.
func (e *encoder) record(kind byte, appendPayload func([]byte) []byte) error {
	at := len(e.buf)
	e.buf = appendPayload(openRecord(e.buf, kind))
	if len(e.buf)-at-recordHead > maxPayload {
		return fmt.Errorf("%w: a record of %d bytes", errTooLarge, len(e.buf)-at)
	}
	closeRecord(e.buf, at, e.salt)
	e.records++
	if e.out == nil && int64(len(e.buf)) > e.limit {
		return errTooLarge
	}
	if e.out != nil && len(e.buf) >= flushBytes {
		return e.flush()
	}
	return nil
}

func (e *encoder) flush() error {
	n, err := e.out.Write(e.buf)
	e.written += int64(n)
	if err == nil && n < len(e.buf) {
		err = io.ErrShortWrite
	}
	e.buf = e.buf[:0]
	return err
}

func (e *encoder) frame(frame assignment.Frame) error {
	encoded, err := wire.MarshalFrame(frame)
	if err != nil {
		return err
	}
	return e.encoded(encoded)
}

func (e *encoder) encoded(frame []byte) error {
	return e.record(kindFrame, func(b []byte) []byte { return append(b, frame...) })
}

func (e *encoder) position(p snapshot.Position) error {
	return e.record(kindPosition, func(b []byte) []byte {
		return append(binary.LittleEndian.AppendUint64(b, uint64(p.Revision)), p.Epoch...)
	})
}

func (e *encoder) released(id assignment.ProducerID) error {
	return e.record(kindReleased, func(b []byte) []byte { return append(b, id...) })
}

func (e *encoder) held(h *guard.Held) error {
	if h.Assignment == nil {
		return fmt.Errorf("%w: a held producer without an assignment", errContents)
	}
	chunk, err := wire.MarshalFrame(&assignment.Chunk{Assignments: []*assignment.Assignment{h.Assignment}})
	if err != nil {
		return err
	}
	return e.record(kindHeld, func(b []byte) []byte {
		b = binary.LittleEndian.AppendUint64(b, uint64(h.Since.Unix()))
		b = binary.LittleEndian.AppendUint32(b, uint32(h.Since.Nanosecond()))
		b = binary.LittleEndian.AppendUint64(b, uint64(h.Confirmed))
		b = binary.LittleEndian.AppendUint64(b, uint64(h.Revision))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(h.Epoch)))
		b = append(b, h.Epoch...)
		return append(b, chunk...)
	})
}

func (e *encoder) commit(sequence uint64) {
	e.buf = appendCommit(e.buf, e.salt, sequence, e.records)
}

// encodeEntry makes all records of an entry that continues the file. An error
// says why it cannot be appended.
func (f *File) encodeEntry(entry *Entry) ([]byte, error) {
	e := encoder{buf: f.buf[:0], salt: f.salt, limit: f.hardLimit() - f.size - recordHead - commitSize}
	if err := f.encodeMove(&e, entry); err != nil {
		return nil, err
	}
	for _, id := range entry.Released {
		if err := e.released(id); err != nil {
			return nil, err
		}
	}
	for i := range entry.Held {
		if err := e.held(&entry.Held[i]); err != nil {
			return nil, err
		}
	}
	e.commit(f.sequence)
	if cap(e.buf) <= flushBytes {
		f.buf = e.buf
	}
	return e.buf, nil
}

// encodeMove encodes what takes the accepted set from one position to another:
// frames, or an equal heartbeat.
func (f *File) encodeMove(e *encoder, entry *Entry) error {
	if len(entry.Frames) == 0 {
		if f.advances(entry.Position) {
			return e.position(*entry.Position)
		}
		return nil
	}
	begin, ok := entry.Frames[0].(*assignment.Begin)
	if !ok || !f.continuedBy(begin) {
		return errSequel
	}
	if _, ok := entry.Frames[len(entry.Frames)-1].(*assignment.End); !ok {
		return errSequel
	}
	// The changes build on a revision that an equal heartbeat may have brought
	// the set to, which was not worth an entry then. The assembler will ask.
	base := snapshot.Position{Epoch: begin.Epoch, Revision: begin.BaseRevision}
	if f.advances(&base) {
		if err := e.position(base); err != nil {
			return err
		}
	}
	for _, frame := range entry.Frames {
		if err := e.frame(frame); err != nil {
			return err
		}
	}
	return nil
}

// continuedBy reports whether the assembler could take a snapshot next. It is
// no proof that it will, but spares the next start an owner's mistake.
func (f *File) continuedBy(b *assignment.Begin) bool {
	switch {
	case b.Scope == assignment.ScopeAll:
	case f.position.Epoch == "", b.Scope == assignment.ScopeChanges && b.Epoch != f.position.Epoch:
		return false
	}
	return b.Epoch != f.position.Epoch || b.Revision >= f.position.Revision
}

// encodeState makes the base of a new generation: one snapshot of scope ALL,
// and what is held.
func (e *encoder) encodeState(state *State) error {
	if a := state.Accepted; a != nil && a.Epoch != "" {
		if err := e.snapshot(a); err != nil {
			return err
		}
	}
	for i := range state.Held {
		if err := e.held(&state.Held[i]); err != nil {
			return err
		}
	}
	e.commit(0)
	return e.flush()
}

func (e *encoder) snapshot(a *snapshot.Accepted) error {
	const id = 1
	count := int64(a.Set.Len())
	err := e.frame(&assignment.Begin{
		SnapshotID:       id,
		Epoch:            a.Epoch,
		Revision:         a.Revision,
		Scope:            assignment.ScopeAll,
		ExpectedUpserts:  count,
		AssignmentFormat: a.Format,
	})
	if err != nil {
		return err
	}
	var chunk wire.ChunkWriter
	chunks := uint64(0)
	finish := func() error {
		chunks++
		return e.encoded(chunk.Finish(id, chunks-1))
	}
	for _, m := range a.Set.All() {
		stored := wire.EncodeStored(m)
		if !chunk.Fits(len(stored)) {
			if err := finish(); err != nil {
				return err
			}
		}
		chunk.Add(stored, m.Version, m.Role)
	}
	if chunk.Len() > 0 {
		if err := finish(); err != nil {
			return err
		}
	}
	return e.frame(&assignment.End{
		SnapshotID: id,
		Epoch:      a.Epoch,
		Revision:   a.Revision,
		Chunks:     chunks,
		Upserts:    count,
		SetCount:   count,
		SetDigest:  a.Set.Digest(),
	})
}

// decodeHeld is the reverse of encoder.held.
func decodeHeld(p []byte) (guard.Held, error) {
	if len(p) < heldFixed {
		return guard.Held{}, fmt.Errorf("%w: a held producer of %d bytes", errContents, len(p))
	}
	seconds := int64(binary.LittleEndian.Uint64(p))
	nanos := int64(binary.LittleEndian.Uint32(p[8:]))
	h := guard.Held{
		Since:     time.Unix(seconds, nanos).UTC(),
		Confirmed: time.Duration(binary.LittleEndian.Uint64(p[12:])),
		Revision:  assignment.Revision(binary.LittleEndian.Uint64(p[20:])),
	}
	epoch, rest := int64(binary.LittleEndian.Uint32(p[28:])), p[heldFixed:]
	if epoch > int64(len(rest)) {
		return guard.Held{}, fmt.Errorf("%w: an epoch of %d bytes", errContents, epoch)
	}
	h.Epoch = assignment.Epoch(rest[:epoch])
	frame, err := wire.UnmarshalFrame(rest[epoch:])
	if err != nil {
		return guard.Held{}, fmt.Errorf("%w: %w", errContents, err)
	}
	chunk, ok := frame.(*assignment.Chunk)
	if !ok || len(chunk.Assignments) != 1 {
		return guard.Held{}, fmt.Errorf("%w: a held producer without an assignment", errContents)
	}
	h.Assignment = chunk.Assignments[0]
	return h, nil
}

// sortHeld orders by producer.
func sortHeld(held []guard.Held) {
	slices.SortFunc(held, func(a, b guard.Held) int {
		return strings.Compare(string(a.Assignment.ProducerID), string(b.Assignment.ProducerID))
	})
}
