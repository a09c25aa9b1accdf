package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

const (
	segmentMagic  = "rollqueu"
	formatVersion = 1
	headerSize    = 40
	frameSize     = 16

	// minPayload is that of a record with one sample.
	minPayload = 16

	// maxPayload and maxSamples bound one record, and with it what a reader
	// must hold in memory.
	maxPayload = 64 << 20
	maxSamples = 4 << 20

	// maxDefined bounds the bytes of all series of a segment, their labels and
	// seriesCost for each, which a few bytes of a definition can stand for. A writer
	// begins a new segment at half of it.
	maxDefined = 2 << 30
	seriesCost = 96
)

// What may be behind the runs of a record.
const (
	flagTimes = 1 << iota
	flagStarts
	flagExtras
	flagsKnown = flagTimes | flagStarts | flagExtras
)

// errDamaged is wrapped when bytes of the disk are not those of the format.
var errDamaged = errors.New("damaged")

// errEmpty is damage that a crash of the machine may leave behind what it has
// synced.
var errEmpty = fmt.Errorf("%w: nothing but zeros", errDamaged)

func damaged(what string) error { return fmt.Errorf("%w: %s", errDamaged, what) }

func checksum(b []byte) uint32 {
	return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) // which makes it once
}

// A header begins a segment.
type header struct {
	number  uint64
	session int64
	begun   int64 // ms
}

func (h header) append(b []byte) []byte {
	from := len(b)
	b = append(b, segmentMagic...)
	b = binary.LittleEndian.AppendUint32(b, formatVersion)
	b = binary.LittleEndian.AppendUint64(b, h.number)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.session))
	b = binary.LittleEndian.AppendUint64(b, uint64(h.begun))
	return binary.LittleEndian.AppendUint32(b, checksum(b[from:]))
}

func parseHeader(b []byte) (header, error) {
	if len(b) < headerSize || string(b[:8]) != segmentMagic {
		return header{}, damaged("no header")
	}
	if checksum(b[:36]) != binary.LittleEndian.Uint32(b[36:]) {
		return header{}, damaged("checksum of the header")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != formatVersion {
		return header{}, damaged(fmt.Sprintf("version %d, not %d", v, formatVersion))
	}
	return header{
		number:  binary.LittleEndian.Uint64(b[12:]),
		session: int64(binary.LittleEndian.Uint64(b[20:])),
		begun:   int64(binary.LittleEndian.Uint64(b[28:])),
	}, nil
}

// A frame stands before each payload. It has its own checksum, so that the
// records behind a damaged one can be counted.
type frame struct {
	length, samples, sum uint32
}

// put writes the frame of a payload into its place.
func (f frame) put(b []byte) {
	binary.LittleEndian.PutUint32(b, f.length)
	binary.LittleEndian.PutUint32(b[4:], f.samples)
	binary.LittleEndian.PutUint32(b[8:], f.sum)
	binary.LittleEndian.PutUint32(b[12:], checksum(b[:12]))
}

func parseFrame(b []byte) (frame, error) {
	f := frame{
		length:  binary.LittleEndian.Uint32(b),
		samples: binary.LittleEndian.Uint32(b[4:]),
		sum:     binary.LittleEndian.Uint32(b[8:]),
	}
	switch {
	case f == frame{} && binary.LittleEndian.Uint32(b[12:]) == 0:
		return frame{}, errEmpty
	case checksum(b[:12]) != binary.LittleEndian.Uint32(b[12:frameSize]):
		return frame{}, damaged("checksum of a frame")
	case f.length < minPayload || f.length > maxPayload || f.samples == 0 || f.samples > maxSamples || f.samples > f.length:
		return frame{}, damaged("sizes of a frame")
	}
	return f, nil
}
