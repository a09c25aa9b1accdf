package statefile

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/guard"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/snapshot"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
)

// An image is what one file holds: the state after its last whole entry.
type image struct {
	*header
	salt     uint32
	accepted *snapshot.Accepted
	held     map[assignment.ProducerID]guard.Held

	// entries is the number of whole entries. Without one, not even the base,
	// the file is of no use.
	entries uint64

	// base and good are where the first and the last whole entry end.
	base, good int64

	// flaw is why reading did not end at good; nil when nothing follows.
	flaw error

	// torn is how many bytes follow good when they look like an entry that was
	// being written at a crash; 0 when entries have been lost.
	torn int64
}

// readerBytes is the size of the buffer for reading.
const readerBytes = 32 << 10

// load reads a file. The error is about its header, or ErrNewerFormat; what is
// wrong with the rest is in the image.
func load(file io.ReaderAt) (*image, error) {
	l := loader{
		records: recordReader{r: bufio.NewReaderSize(section(file, 0), readerBytes)},
		image: image{
			accepted: &snapshot.Accepted{},
			held:     map[assignment.ProducerID]guard.Held{},
		},
	}
	var err error
	if l.header, err = l.records.readHeader(); err != nil {
		return nil, err
	}
	l.salt = l.records.salt
	for err == nil {
		err = l.entry()
	}
	switch {
	case errors.Is(err, ErrNewerFormat):
		return nil, err
	case !errors.Is(err, io.EOF):
		l.flaw = err
	case l.entries == 0:
		l.flaw = errTorn
	}
	if errors.Is(l.flaw, errTorn) || errors.Is(l.flaw, errChecksum) {
		n, lost := scanCommits(bufio.NewReaderSize(section(file, l.good), readerBytes), l.salt, l.entries)
		if !lost {
			l.torn = n
		}
	}
	// An older build did not see the fields of a newer format go by, so it has
	// not recorded them.
	if l.format < assignment.AssignmentFormat {
		l.accepted.Format = min(l.accepted.Format, l.format)
	}
	return &l.image, nil
}

func section(file io.ReaderAt, from int64) io.Reader {
	return io.NewSectionReader(file, from, math.MaxInt64-from)
}

// A loader reads entry by entry.
type loader struct {
	records recordReader
	image
}

// A staged entry is one that has not been committed.
type staged struct {
	assembler *snapshot.Assembler
	end       *assignment.End // kept back: it is what changes the accepted set
	released  []assignment.ProducerID
	held      []guard.Held
	records   uint32
	unknown   byte // a kind that would have to be understood
}

// entry applies the next entry, or leaves everything as it was. The error is
// [io.EOF] when there is none.
func (l *loader) entry() error {
	before := l.accepted.Position
	err := l.readEntry()
	if err != nil {
		l.accepted.Position = before
		return err
	}
	l.entries++
	l.good = l.records.offset
	if l.entries == 1 {
		l.base = l.good
	}
	return nil
}

func (l *loader) readEntry() error {
	var s staged
	for {
		kind, payload, err := l.records.next()
		switch {
		case errors.Is(err, io.EOF) && s.records > 0:
			return errTorn
		case err != nil:
			return err
		case kind == kindCommit:
			return l.commit(&s, payload)
		}
		s.records++
		if err := l.stage(&s, kind, payload); err != nil {
			return err
		}
	}
}

func (l *loader) stage(s *staged, kind byte, payload []byte) error {
	switch kind {
	case kindFrame:
		frame, err := wire.UnmarshalFrame(payload)
		if err != nil {
			return fmt.Errorf("%w: %w", errContents, err)
		}
		return l.stageFrame(s, frame)
	case kindPosition:
		return l.stagePosition(s, payload)
	case kindReleased:
		s.released = append(s.released, assignment.ProducerID(payload))
	case kindHeld:
		held, err := decodeHeld(payload)
		if err != nil {
			return err
		}
		s.held = append(s.held, held)
	default:
		if kind < kindSkippable {
			s.unknown = kind
		}
	}
	return nil
}

func (l *loader) stageFrame(s *staged, frame assignment.Frame) error {
	switch f := frame.(type) {
	case *assignment.Begin:
		if s.assembler != nil {
			return fmt.Errorf("%w: two snapshots in one entry", errContents)
		}
		// What was taken once is taken again, whatever is allowed now: Open
		// checks the outcome. The size of the file bounds the memory.
		s.assembler = snapshot.NewAssembler(l.accepted, math.MaxInt)
	case *assignment.Chunk:
	case *assignment.End:
		if s.assembler == nil || s.end != nil {
			return fmt.Errorf("%w: an end without a begin", errContents)
		}
		s.end = f
		return nil
	default:
		return fmt.Errorf("%w: a frame that is no part of a snapshot", errContents)
	}
	if s.assembler == nil || s.end != nil {
		return fmt.Errorf("%w: a chunk outside a snapshot", errContents)
	}
	if _, err := s.assembler.Add(frame); err != nil {
		return fmt.Errorf("%w: %w", errContents, err)
	}
	return nil
}

// stagePosition advances the accepted set at once, as the assembler looks at it
// for the frames that follow; entry takes it back.
func (l *loader) stagePosition(s *staged, payload []byte) error {
	if len(payload) < positionHead || s.assembler != nil {
		return fmt.Errorf("%w: a misplaced position", errContents)
	}
	p := snapshot.Position{
		Epoch:    assignment.Epoch(payload[positionHead:]),
		Revision: assignment.Revision(binary.LittleEndian.Uint64(payload)),
	}
	if p.Epoch != l.accepted.Epoch || p.Epoch == "" || p.Revision < l.accepted.Revision {
		return fmt.Errorf("%w: position %d of %q, the set is at %d of %q", errContents,
			p.Revision, p.Epoch, l.accepted.Revision, l.accepted.Epoch)
	}
	l.accepted.Position = p
	return nil
}

func (l *loader) commit(s *staged, payload []byte) error {
	if len(payload) != commitSize ||
		binary.LittleEndian.Uint64(payload) != l.entries ||
		binary.LittleEndian.Uint32(payload[8:]) != s.records {
		return fmt.Errorf("%w: the commit of entry %d, of %d records, does not fit", errContents, l.entries, s.records)
	}
	if s.unknown != 0 {
		return fmt.Errorf("%w: a record of kind %d", ErrNewerFormat, s.unknown)
	}
	if s.assembler != nil {
		if s.end == nil {
			return fmt.Errorf("%w: a begin without an end", errContents)
		}
		if _, err := s.assembler.Add(s.end); err != nil {
			return fmt.Errorf("%w: %w", errContents, err)
		}
	}
	for _, id := range s.released {
		delete(l.held, id)
	}
	for _, h := range s.held {
		l.held[h.Assignment.ProducerID] = h
	}
	return nil
}

// state is the image as a State.
func (i *image) state() *State {
	s := &State{Accepted: i.accepted}
	for _, h := range i.held {
		s.Held = append(s.Held, h)
	}
	sortHeld(s.Held)
	return s
}
