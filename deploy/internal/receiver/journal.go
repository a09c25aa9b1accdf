package receiver

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"sync"
)

// headerBytes is what stands before each body in a journal: length, checksum of
// what follows, and how the body is to be read.
const headerBytes = 9

// A Journal is a file with all requests that a receiver has acknowledged, and
// perhaps the last ones that it has not. It outlives the process that writes it,
// not the machine.
type Journal struct {
	mu   sync.Mutex // one append at a time
	file *os.File
}

// OpenJournal opens a journal for a receiver, and makes it if it is missing. What
// a process that was killed has written by half is cut off.
func OpenJournal(path string) (*Journal, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	end, err := replay(file, func(message) error { return nil })
	if err == nil {
		err = file.Truncate(end)
	}
	if err == nil {
		_, err = file.Seek(end, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &Journal{file: file}, nil
}

// Close closes the file.
func (j *Journal) Close() error { return j.file.Close() }

func (j *Journal) append(m message) error {
	frame := make([]byte, headerBytes, headerBytes+len(m.wire))
	if m.two {
		frame[8] |= 1
	}
	if m.zstd {
		frame[8] |= 2
	}
	frame = append(frame, m.wire...)
	binary.LittleEndian.PutUint32(frame, uint32(len(m.wire)))
	binary.LittleEndian.PutUint32(frame[4:], crc32.ChecksumIEEE(frame[8:]))
	j.mu.Lock()
	defer j.mu.Unlock()
	_, err := j.file.Write(frame)
	return err
}

// ReadJournal notes in a ledger what is in a journal from an offset on, and
// returns where to go on. The journal may be written meanwhile.
func ReadJournal(path string, from int64, to *Ledger) (int64, error) {
	file, err := os.Open(path)
	if err != nil {
		return from, err
	}
	defer file.Close()
	if _, err := file.Seek(from, io.SeekStart); err != nil {
		return from, err
	}
	n, err := replay(file, func(m message) error {
		raw, err := m.raw()
		if err != nil {
			return err
		}
		return to.add(raw, m.two)
	})
	return from + n, err
}

// replay calls do for each whole request, and returns where the last one ends.
func replay(r io.Reader, do func(message) error) (end int64, err error) {
	var header [headerBytes]byte
	for {
		if _, err := io.ReadFull(r, header[:]); err != nil {
			return end, torn(err)
		}
		n := binary.LittleEndian.Uint32(header[:])
		if n > maxBody {
			return end, nil
		}
		wire := make([]byte, n)
		if _, err := io.ReadFull(r, wire); err != nil {
			return end, torn(err)
		}
		sum := crc32.Update(crc32.ChecksumIEEE(header[8:]), crc32.IEEETable, wire)
		if sum != binary.LittleEndian.Uint32(header[4:]) {
			return end, nil
		}
		if err := do(message{two: header[8]&1 != 0, zstd: header[8]&2 != 0, wire: wire}); err != nil {
			return end, err
		}
		end += int64(headerBytes) + int64(n)
	}
}

// torn is nil for the end of what was written.
func torn(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}
