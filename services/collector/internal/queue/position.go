package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

const (
	positionSuffix = ".position"
	positionMagic  = "rollposi"
	slotSize       = 36
	slotDistance   = 512 // so that a torn write of one leaves the other
)

// A holder is a sink's place in the log, whether it is being read or not. It is
// guarded by Queue.mu, but for file, which is the keeper's to change.
type holder struct {
	name   string
	reader *Reader // nil while nobody reads

	// next is behind what was read, committed behind what is dealt with. read and
	// done count the samples before them in their segments, -1 when that is not
	// known.
	next, committed sample.Position
	read, done      int64

	// given lies between committed and next, in the order in which it was given.
	given []given

	// corrupt counts what was told as lost of segments that are still there.
	corrupt map[uint64]int64

	// moved tells the reader that next was put elsewhere.
	moved bool

	dropped map[string]int64

	// kept is closed, and nil, when the keeper has tried to write the position.
	kept chan struct{}

	// sequence is that of the last slot; dirty: committed is not in a slot;
	// unsynced: a slot is not synced.
	sequence        uint64
	dirty, unsynced bool
	file            File
}

// readFrom is the count of samples before an offset, if that is clear.
func readFrom(offset int64) int64 {
	if offset <= headerSize {
		return 0
	}
	return -1
}

// drop counts samples that a holder will not get.
func (q *Queue) dropFor(h *holder, reason string, samples int64) {
	if samples <= 0 {
		return
	}
	h.dropped[reason] += samples
	q.cfg.Metrics.dropped.WithLabelValues(h.name, reason).Add(float64(samples))
}

// A slot is a position as it is in a file.
type slot struct {
	sequence uint64
	position sample.Position
}

func (s slot) append(b []byte) []byte {
	from := len(b)
	b = append(b, positionMagic...)
	b = binary.LittleEndian.AppendUint64(b, s.sequence)
	b = binary.LittleEndian.AppendUint64(b, s.position.Segment)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.position.Offset))
	return binary.LittleEndian.AppendUint32(b, checksum(b[from:]))
}

func parseSlot(b []byte) (slot, bool) {
	if len(b) < slotSize || string(b[:8]) != positionMagic || checksum(b[:32]) != binary.LittleEndian.Uint32(b[32:]) {
		return slot{}, false
	}
	s := slot{
		sequence: binary.LittleEndian.Uint64(b[8:]),
		position: sample.Position{
			Segment: binary.LittleEndian.Uint64(b[16:]),
			Offset:  int64(binary.LittleEndian.Uint64(b[24:])),
		},
	}
	return s, s.position.Offset >= 0 && s.position.Segment < 1<<62
}

// readPosition gives the zero slot with an error.
func (q *Queue) readPosition(name string) (slot, error) {
	file, err := q.cfg.FS.OpenFile(q.path(name+positionSuffix), os.O_RDONLY, 0)
	if err != nil {
		return slot{}, err
	}
	defer file.Close()
	b := make([]byte, slotDistance+slotSize)
	n, err := file.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return slot{}, err
	}
	b = b[:n]
	best, ok := parseSlot(b)
	if n > slotDistance {
		if other, valid := parseSlot(b[slotDistance:]); valid && (!ok || other.sequence > best.sequence) {
			best, ok = other, true
		}
	}
	if !ok {
		return slot{}, damaged("no valid slot")
	}
	return best, nil
}

// keep is the goroutine that writes positions.
func (q *Queue) keep() {
	for {
		retry := q.keepAll()
		var again <-chan time.Time
		if retry {
			again = time.After(retryInterval)
		}
		select {
		case <-q.toKeep:
		case <-again:
		case <-q.stop:
			q.keepAll()
			return
		}
	}
}

// keepAll writes the positions that have changed, and tells whether some could
// not be written.
func (q *Queue) keepAll() (retry bool) {
	q.mu.Lock()
	var dirty []*holder
	for _, h := range q.holders {
		if h.dirty {
			dirty = append(dirty, h)
		}
	}
	if q.lock == nil { // until claim
		q.mu.Unlock()
		return false
	}
	forgotten := q.forgotten
	q.forgotten = nil
	q.mu.Unlock()
	for _, h := range forgotten {
		closeFile(h.file)
		if err := q.cfg.FS.Remove(q.path(h.name + positionSuffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			q.mu.Lock()
			q.note("remove", err)
			q.mu.Unlock()
		}
	}
	for _, h := range dirty {
		err := q.keepOne(h)
		q.mu.Lock()
		if err != nil {
			retry, h.dirty = true, true
			q.note("position", fmt.Errorf("position of %s: %w", h.name, err))
		}
		if h.kept != nil {
			close(h.kept)
			h.kept = nil
		}
		q.mu.Unlock()
	}
	if len(dirty) > 0 && !retry {
		q.mu.Lock()
		delete(q.trouble.told, "position")
		q.mu.Unlock()
	}
	return retry
}

// keepOne writes a position into the slot that is not the newest.
func (q *Queue) keepOne(h *holder) error {
	q.mu.Lock()
	file, s := h.file, slot{h.sequence + 1, h.committed}
	h.dirty = false
	q.mu.Unlock()
	if file == nil {
		var err error
		file, err = q.cfg.FS.OpenFile(q.path(h.name+positionSuffix), os.O_RDWR|os.O_CREATE, fileMode)
		if err != nil {
			return err
		}
		q.mu.Lock()
		h.file, q.newNames = file, true
		q.mu.Unlock()
	}
	if _, err := file.WriteAt(s.append(nil), int64(s.sequence%2)*slotDistance); err != nil {
		return err
	}
	q.mu.Lock()
	h.sequence, h.unsynced = s.sequence, true
	q.mu.Unlock()
	wake(q.toSync)
	return nil
}
