package remotewrite

import (
	"encoding/binary"
	"math"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
)

// Tags of io.prometheus.write.v2, each with its wire type, which is 0 for a
// varint. The numbers are those
// of prompb/io/prometheus/write/v2/types.proto.
const (
	request2Symbols    = 4<<3 | 2
	request2Timeseries = 5<<3 | 2

	series2Refs       = 1<<3 | 2
	series2Samples    = 2<<3 | 2
	series2Histograms = 3<<3 | 2
	series2Exemplars  = 4<<3 | 2
	series2Metadata   = 5<<3 | 2

	metadata2Type = 1 << 3
	metadata2Help = 3 << 3
	metadata2Unit = 4 << 3
)

// Tags that 1.0 and 2.0 share.
const (
	sampleValue = 1<<3 | 1
	sampleTime  = 2 << 3
	sampleStart = 3 << 3 // 2.0 only

	exemplarLabels = 1<<3 | 2
	exemplarValue  = 2<<3 | 1
	exemplarTime   = 3 << 3
)

// encode2 writes the items as 2.0: symbols into s.table, series into s.series.
func (s *scratch) encode2(l *lists, items []deliver.Item, o options) tally {
	var t tally
	s.table = append(s.table, request2Symbols, 0) // the empty string is 0
	s.count = 1
	s.symbols[0] = symbolMark{s.epoch, 0}
	b := s.series
	for len(items) > 0 && len(s.table)+len(b) <= maxRaw {
		n, k := run(items)
		same := items[:n]
		items = items[n:]
		if k != value && !o.histograms {
			t.omitted += n
			continue
		}
		t.sent += n
		var at int
		b, at = open(b, request2Timeseries)
		refs, meta := l.at(same[0].Index)
		b = s.appendRefs(b, l, refs)
		if k != value {
			for i := range same {
				b = appendHistogram(b, series2Histograms, &same[i], same[i].Start)
			}
		} else {
			for i := range same {
				b = appendSample(b, &same[i], same[i].Start)
			}
		}
		if o.exemplars {
			b = s.appendExemplars2(b, same)
		}
		if meta != 0 {
			b = s.appendMetadata2(b, l, l.metas[meta])
		}
		b = shut(b, at)
	}
	s.series = b
	return t
}

// appendRefs writes the labels of a series.
func (s *scratch) appendRefs(b []byte, l *lists, refs []byte) []byte {
	b, at := open(b, series2Refs)
	for i := 0; i < len(refs); {
		var number uint32
		number, i = ref(refs, i)
		m := &s.pairs[number]
		if m.epoch != s.epoch {
			s.mark2(l, number)
		}
		// Eight bytes at once are faster than those that count one by one.
		b = binary.LittleEndian.AppendUint64(b, m.code)
		b = b[:len(b)-8+int(m.size)]
	}
	return shut(b, at)
}

// mark2 makes the code of a pair that this request has not had. An index is
// below 2^28, as a request is of 32 MiB, so two take no more than eight bytes.
func (s *scratch) mark2(l *lists, number uint32) {
	var code [2 * binary.MaxVarintLen64]byte
	p := l.pairs[number]
	n := binary.PutUvarint(code[:], uint64(s.index(l, p.name)))
	n += binary.PutUvarint(code[n:], uint64(s.index(l, p.value)))
	s.pairs[number] = pairMark{s.epoch, uint32(n), binary.LittleEndian.Uint64(code[:8])}
}

// index is that of a symbol in this request.
func (s *scratch) index(l *lists, symbol uint32) uint32 {
	m := &s.symbols[symbol]
	if m.epoch != s.epoch {
		*m = symbolMark{s.epoch, s.tell(l.symbols[symbol])}
	}
	return m.index
}

// tell puts a text into the symbols of this request.
func (s *scratch) tell(text string) uint32 {
	s.table = append(s.table, request2Symbols)
	s.table = binary.AppendUvarint(s.table, uint64(len(text)))
	s.table = append(s.table, text...)
	s.count++
	return s.count - 1
}

// text is the index of a symbol that no series has, perhaps.
func (s *scratch) text(text string) uint32 {
	if text == "" {
		return 0
	}
	n, ok := s.texts[text]
	if !ok {
		if s.texts == nil {
			s.texts = map[string]uint32{}
		}
		n = s.tell(valid(text))
		s.texts[text] = n
	}
	return n
}

// appendSample writes a value. A zero is left out, a negative zero is not.
func appendSample(b []byte, item *deliver.Item, start int64) []byte {
	b, at := open(b, series2Samples)
	b = appendDouble(b, sampleValue, item.Value)
	b = appendInt(b, sampleTime, item.Time)
	b = appendInt(b, sampleStart, start)
	return shut(b, at)
}

func appendDouble(b []byte, tag byte, v float64) []byte {
	bits := math.Float64bits(v)
	if bits == 0 {
		return b
	}
	b = append(b, tag)
	return binary.LittleEndian.AppendUint64(b, bits)
}

func appendInt(b []byte, tag byte, v int64) []byte {
	if v == 0 {
		return b
	}
	b = append(b, tag)
	return binary.AppendUvarint(b, uint64(v))
}

func (s *scratch) appendExemplars2(b []byte, items []deliver.Item) []byte {
	for i := range items {
		if items[i].Extra == nil {
			continue
		}
		for _, e := range items[i].Extra.Exemplars {
			var at, refs int
			b, at = open(b, series2Exemplars)
			if !e.Labels.IsEmpty() {
				b, refs = open(b, exemplarLabels)
				e.Labels.Range(func(l labels.Label) {
					b = binary.AppendUvarint(b, uint64(s.text(l.Name)))
					b = binary.AppendUvarint(b, uint64(s.text(l.Value)))
				})
				b = shut(b, refs)
			}
			b = appendDouble(b, exemplarValue, e.Value)
			if e.HasTs {
				b = appendInt(b, exemplarTime, e.Ts)
			} else {
				b = appendInt(b, exemplarTime, items[i].Time)
			}
			b = shut(b, at)
		}
	}
	return b
}

func (s *scratch) appendMetadata2(b []byte, l *lists, m meta) []byte {
	b, at := open(b, series2Metadata)
	b = appendInt(b, metadata2Type, int64(m.kind))
	b = appendInt(b, metadata2Help, int64(s.index(l, m.help)))
	b = appendInt(b, metadata2Unit, int64(s.index(l, m.unit)))
	return shut(b, at)
}
