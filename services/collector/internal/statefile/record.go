package statefile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// The format. A file is the magic, one header record, and entries. The first
// entry, the base, is the whole state; it was on stable storage before the file
// got its name. Each entry is any number of records and a commit record.
//
//	record   = length of the payload (uint32) | checksum (uint32) | kind (1 byte) | payload
//	checksum = CRC32C of length, kind and payload, begun with the checksum of
//	           the header record, so that a record of another file is none here;
//	           that of the header itself is begun with 0
//
//	header   = version (uint16) | generation (uint64) | assignment format (uint32) | collector id
//	frame    = a SubscribeResponse
//	released = producer id
//	held     = since (seconds: int64, nanoseconds: uint32) | confirmed (nanoseconds: int64) |
//	           revision (int64) | length of the epoch (uint32) | epoch | a SubscribeResponse with a chunk of one assignment
//	           (the epoch is that of the set which had it)
//	position = revision (int64) | epoch
//	commit   = number of the entry in the file, from 0 (uint64) | number of its records (uint32)
//
// Integers are little-endian. A later version may add kinds: one of 128 or
// above is skipped by those who do not know it, one below makes them refuse the
// file, as an unknown version does. So that a collector can be rolled back, a
// version is written only from the release after the one that can read it.
const (
	magic   = "ROLLCALL"
	version = 1

	kindHeader   byte = 1
	kindFrame    byte = 2
	kindReleased byte = 3
	kindHeld     byte = 4
	kindPosition byte = 5
	kindCommit   byte = 6

	// kindSkippable is the first of the kinds that need not be understood.
	kindSkippable byte = 128
)

const (
	recordHead   = 4 + 4 + 1
	headerFixed  = 2 + 8 + 4
	heldFixed    = 8 + 4 + 8 + 8 + 4
	commitSize   = 8 + 4
	positionHead = 8

	// maxPayload bounds a record. A chunk is 512 KiB unless it has one huge
	// assignment, and no message from the registry is near this.
	maxPayload = 16 << 20
)

// The ways in which a file can be other than expected.
var (
	// errTorn: the file ends inside a record.
	errTorn = errors.New("the file ends inside a record")

	// errChecksum: what is here was never written like this.
	errChecksum = errors.New("a record's checksum does not fit")

	// errContents: the checksum fits, the contents make no sense.
	errContents = errors.New("a record makes no sense")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli) //nolint:gochecknoglobals // a constant, but for the language

// A header is the first record of a file.
type header struct {
	version    uint16
	generation uint64

	// format is the assignment format of the build that wrote the file: what
	// it could understand of the frames that it recorded.
	format    int32
	collector assignment.CollectorID
}

func appendHeader(dst []byte, h *header) (buf []byte, salt uint32) {
	dst = append(dst, magic...)
	at := len(dst)
	dst = openRecord(dst, kindHeader)
	dst = binary.LittleEndian.AppendUint16(dst, h.version)
	dst = binary.LittleEndian.AppendUint64(dst, h.generation)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(h.format))
	dst = append(dst, h.collector...)
	closeRecord(dst, at, 0)
	return dst, binary.LittleEndian.Uint32(dst[at+4:])
}

// openRecord begins a record at the end of dst; closeRecord, when the payload
// has been appended, completes it.
func openRecord(dst []byte, kind byte) []byte {
	return append(dst, 0, 0, 0, 0, 0, 0, 0, 0, kind)
}

func closeRecord(dst []byte, at int, salt uint32) {
	record := dst[at:]
	binary.LittleEndian.PutUint32(record, uint32(len(record)-recordHead))
	binary.LittleEndian.PutUint32(record[4:], checksum(salt, record[:recordHead], record[recordHead:]))
}

func checksum(salt uint32, head, payload []byte) uint32 {
	sum := crc32.Update(salt, castagnoli, head[:4])
	sum = crc32.Update(sum, castagnoli, head[8:9])
	return crc32.Update(sum, castagnoli, payload)
}

func appendCommit(dst []byte, salt uint32, sequence uint64, records uint32) []byte {
	at := len(dst)
	dst = openRecord(dst, kindCommit)
	dst = binary.LittleEndian.AppendUint64(dst, sequence)
	dst = binary.LittleEndian.AppendUint32(dst, records)
	closeRecord(dst, at, salt)
	return dst
}

// A recordReader reads one record after the other.
type recordReader struct {
	r    io.Reader
	salt uint32

	// offset is that of the first byte not read.
	offset int64
	head   [recordHead]byte
	buf    bytes.Buffer
}

// next returns a record; the payload is valid until the next call. The error
// is [io.EOF] between two records, else errTorn, errChecksum or one of reading.
func (r *recordReader) next() (kind byte, payload []byte, err error) {
	n, err := io.ReadFull(r.r, r.head[:])
	r.offset += int64(n)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, nil, errTorn
	}
	if err != nil {
		return 0, nil, err
	}
	length := binary.LittleEndian.Uint32(r.head[:])
	if length > maxPayload {
		return 0, nil, errChecksum
	}
	// The buffer grows with what is there, not with what a length promises.
	r.buf.Reset()
	copied, err := io.CopyN(&r.buf, r.r, int64(length))
	r.offset += copied
	if errors.Is(err, io.EOF) {
		return 0, nil, errTorn
	}
	if err != nil {
		return 0, nil, err
	}
	payload = r.buf.Bytes()
	if checksum(r.salt, r.head[:], payload) != binary.LittleEndian.Uint32(r.head[4:]) {
		return 0, nil, errChecksum
	}
	return r.head[8], payload, nil
}

// readHeader reads magic and header, and sets the salt.
func (r *recordReader) readHeader() (*header, error) {
	var m [len(magic)]byte
	n, err := io.ReadFull(r.r, m[:])
	r.offset += int64(n)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, errTorn
	}
	if err != nil {
		return nil, err
	}
	if string(m[:]) != magic {
		return nil, fmt.Errorf("%w: it does not begin with %s", errContents, magic)
	}
	kind, p, err := r.next()
	if errors.Is(err, io.EOF) {
		return nil, errTorn
	}
	if err != nil {
		return nil, err
	}
	if kind != kindHeader || len(p) < 2 {
		return nil, fmt.Errorf("%w: it begins with a record of kind %d", errContents, kind)
	}
	h := &header{version: binary.LittleEndian.Uint16(p)}
	if h.version != version {
		return nil, fmt.Errorf("%w: format %d, this one knows %d", ErrNewerFormat, h.version, version)
	}
	if len(p) < headerFixed {
		return nil, fmt.Errorf("%w: a header of %d bytes", errContents, len(p))
	}
	h.generation = binary.LittleEndian.Uint64(p[2:])
	h.format = int32(binary.LittleEndian.Uint32(p[10:]))
	h.collector = assignment.CollectorID(p[headerFixed:])
	r.salt = binary.LittleEndian.Uint32(r.head[4:])
	return h, nil
}

// scanCommits counts the bytes of r, up to a whole commit record of this entry
// or a later one. With the end of an entry in the file, the entry was not just
// being written when it broke off: it has been lost from where it was. (Or the
// machine went down and the disk wrote the end before the middle. That cannot
// be told from here, so it is taken for the worse.)
func scanCommits(r io.ByteReader, salt uint32, sequence uint64) (n int64, found bool) {
	const size = recordHead + commitSize
	var window [16 * size]byte // what was read last stands before end
	end := 0
	for ; ; n++ {
		b, err := r.ReadByte()
		if err != nil {
			return n, false
		}
		if end == len(window) {
			end = copy(window[:], window[end-size+1:])
		}
		window[end] = b
		end++
		if end < size {
			continue
		}
		record := window[end-size : end]
		if record[8] == kindCommit && binary.LittleEndian.Uint32(record) == commitSize &&
			checksum(salt, record, record[recordHead:]) == binary.LittleEndian.Uint32(record[4:]) &&
			binary.LittleEndian.Uint64(record[recordHead:]) >= sequence {
			return n, true
		}
	}
}
