package queue

import (
	"encoding/binary"
	"math"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// An encoder makes the records of one segment. It is not safe for concurrent
// use, but for its table.
type encoder struct {
	table   *sample.Table
	symbols map[string]uint32
	metas   map[metadata.Metadata]uint32

	// labels are those of the series that was defined last, by their places: the
	// next one has mostly the same.
	labels []numbered

	// defined is the size of the series that were defined, as maxDefined counts.
	defined int64

	// definitions and runs are used anew for each record.
	definitions, runs []byte
}

// A numbered label is one with the numbers of its symbols.
type numbered struct {
	labels.Label
	name, value uint32
}

func newEncoder() *encoder {
	return &encoder{
		table:   &sample.Table{},
		symbols: make(map[string]uint32),
		metas:   make(map[metadata.Metadata]uint32),
	}
}

// minPacked is where an integer takes more bytes as a varint than it is worth.
const minPacked, maxPacked = -1 << 48, 1 << 48

// append appends the record of a batch that has samples. written is in
// milliseconds.
func (e *encoder) append(b []byte, batch *sample.Batch, written int64) []byte {
	from := len(b)
	samples := batch.Samples
	base := samples[0].Time
	b = append(b, make([]byte, frameSize)...)
	b = binary.LittleEndian.AppendUint64(b, xxhash.Sum64String(batch.Source))
	b = binary.AppendVarint(b, written)
	b = binary.AppendVarint(b, base-written)

	runs, flags := e.number(samples, base)
	b = binary.AppendUvarint(b, uint64(len(e.definitions)))
	b = append(b, e.definitions...)
	b = binary.AppendUvarint(b, uint64(runs))
	b = append(b, e.runs...)
	b = append(b, flags)
	if flags&flagTimes != 0 {
		b = appendTimes(b, samples, base)
	}
	if flags&flagStarts != 0 {
		b = appendStarts(b, samples, base)
	}
	b = appendValues(b, samples)
	if flags&flagExtras != 0 {
		b = appendExtras(b, samples)
	}
	payload := b[from+frameSize:]
	frame{uint32(len(payload)), uint32(len(samples)), checksum(payload)}.put(b[from:])
	return b
}

// number finds or gives the numbers of all series, as runs, and tells what the
// record has beyond values.
func (e *encoder) number(samples []sample.Sample, base int64) (runs int, flags byte) {
	e.definitions, e.runs = e.definitions[:0], e.runs[:0]
	all := e.table.All()
	var begin, next, end uint32 // of the run at work, and the end of the one before
	for i := range samples {
		s := &samples[i]
		// Mostly it is the one behind that of the sample before, and the series
		// itself, which is in no cache, need not be looked at.
		n := next
		if int64(n) >= int64(len(all)) || all[n] != s.Series {
			n = s.Series.Number.Load()
			if int64(n) >= int64(len(all)) || all[n] != s.Series {
				n = e.define(s.Series)
				all = e.table.All()
			}
		}
		if i == 0 {
			begin = n
		} else if n != next {
			e.appendRun(begin, next, end)
			runs++
			begin, end = n, next
		}
		next = n + 1
		if s.Time != base {
			flags |= flagTimes
		}
		if s.Start != 0 {
			flags |= flagStarts
		}
		if s.Extra != nil {
			flags |= flagExtras
		}
	}
	e.appendRun(begin, next, end)
	return runs + 1, flags
}

func (e *encoder) appendRun(begin, next, end uint32) {
	e.runs = binary.AppendVarint(e.runs, int64(begin)-int64(end))
	e.runs = binary.AppendUvarint(e.runs, uint64(next-begin))
}

// define gives a series its number, and says what it is.
func (e *encoder) define(s *sample.Series) uint32 {
	n := e.table.Add(s)
	s.Number.Store(n)
	e.definitions = binary.AppendUvarint(e.definitions, uint64(s.Len()))
	e.defined += seriesCost
	i := 0
	s.Range(func(l labels.Label) {
		if i == len(e.labels) {
			e.labels = append(e.labels, numbered{})
		}
		last := &e.labels[i]
		last.name = e.appendSymbol(l.Name, last.Name, last.name)
		last.value = e.appendSymbol(l.Value, last.Value, last.value)
		last.Label = l
		e.defined += int64(len(l.Name) + len(l.Value))
		i++
	})
	e.appendMeta(s.Meta)
	return n
}

// appendSymbol appends a symbol and tells its number; known is a symbol that has
// one, when that is not 0, and likely the same.
func (e *encoder) appendSymbol(s, known string, number uint32) uint32 {
	if number == 0 || s != known {
		number = e.symbols[s]
	}
	if number != 0 {
		e.definitions = binary.AppendUvarint(e.definitions, uint64(number))
		return number
	}
	// The key lives as long as the labels that it is a part of, which a series in
	// the table has.
	number = uint32(len(e.symbols) + 1)
	e.symbols[s] = number
	e.definitions = append(e.definitions, 0)
	e.definitions = appendString(e.definitions, s)
	return number
}

func (e *encoder) appendMeta(m *metadata.Metadata) {
	if m == nil {
		e.definitions = append(e.definitions, 0)
		return
	}
	if n, ok := e.metas[*m]; ok {
		e.definitions = binary.AppendUvarint(e.definitions, uint64(n)+2)
		return
	}
	e.metas[*m] = uint32(len(e.metas))
	e.definitions = append(e.definitions, 1)
	for _, s := range [3]string{string(m.Type), m.Unit, m.Help} {
		e.appendSymbol(s, "", 0)
	}
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendTimes(b []byte, samples []sample.Sample, base int64) []byte {
	count := 0
	for i := range samples {
		if samples[i].Time != base {
			count++
		}
	}
	b = binary.AppendUvarint(b, uint64(count))
	last := 0
	for i := range samples {
		if t := samples[i].Time; t != base {
			b = binary.AppendUvarint(b, uint64(i-last))
			b = binary.AppendVarint(b, t-base)
			last = i + 1
		}
	}
	return b
}

func appendStarts(b []byte, samples []sample.Sample, base int64) []byte {
	for i := 0; i < len(samples); {
		start, run := samples[i].Start, 1
		for i+run < len(samples) && samples[i+run].Start == start {
			run++
		}
		i += run
		if start == 0 {
			b = binary.AppendUvarint(b, uint64(run)<<1)
			continue
		}
		b = binary.AppendUvarint(b, uint64(run)<<1|1)
		b = binary.AppendVarint(b, start-base)
	}
	return b
}

func appendValues(b []byte, samples []sample.Sample) []byte {
	bitmap := len(b)
	b = append(b, make([]byte, (len(samples)+7)/8)...)
	for i := range samples {
		v := samples[i].Value
		bits := math.Float64bits(v)
		n := int64(v)
		// A varint has no minus zero.
		if float64(n) != v || n <= minPacked || n >= maxPacked || bits == 1<<63 {
			b = binary.LittleEndian.AppendUint64(b, bits)
			continue
		}
		b[bitmap+i>>3] |= 1 << (i & 7)
		b = binary.AppendVarint(b, n)
	}
	return b
}
