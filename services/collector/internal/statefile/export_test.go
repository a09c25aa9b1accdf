package statefile

import (
	"encoding/binary"
	"slices"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// The constants.
const (
	RewriteInterval  = rewriteInterval
	PositionInterval = positionInterval
	MaxPayload       = maxPayload
	KindCommit       = kindCommit
)

// WithGrowth lets files be written anew when they are smaller than usual.
func WithGrowth(cfg Config, bytes int64) Config {
	cfg.minGrowth = bytes
	return cfg
}

// A Record is one record of a file.
type Record struct {
	Kind    byte
	Payload []byte
}

// Records takes a file apart, up to the first record that is not whole. The
// first is the header. Checksums are not looked at.
func Records(file []byte) []Record {
	var records []Record
	for rest := file[min(len(magic), len(file)):]; len(rest) >= recordHead; {
		n := int(binary.LittleEndian.Uint32(rest))
		if n > len(rest)-recordHead {
			break
		}
		records = append(records, Record{rest[8], slices.Clone(rest[recordHead : recordHead+n])})
		rest = rest[recordHead+n:]
	}
	return records
}

// Join puts a file together from its records, with checksums that fit, and
// with numbers of records in the commits that do.
func Join(records []Record) []byte {
	file := []byte(magic)
	salt, n := uint32(0), uint32(0)
	for i, r := range records {
		if r.Kind == kindCommit && len(r.Payload) == commitSize {
			binary.LittleEndian.PutUint32(r.Payload[8:], n)
		}
		n++
		if i == 0 || r.Kind == kindCommit {
			n = 0
		}
		at := len(file)
		file = append(openRecord(file, r.Kind), r.Payload...)
		closeRecord(file, at, salt)
		if i == 0 {
			salt = binary.LittleEndian.Uint32(file[at+4:])
		}
	}
	return file
}

// HeaderOf makes the payload of a header.
func HeaderOf(version uint16, generation uint64, format int32, collector assignment.CollectorID) []byte {
	file, _ := appendHeader(nil, &header{version, generation, format, collector})
	return file[len(magic)+recordHead:]
}
