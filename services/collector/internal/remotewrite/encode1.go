package remotewrite

import (
	"encoding/binary"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
)

// Tags of prometheus.WriteRequest, each with its wire type. The numbers are those
// of prompb/remote.proto and prompb/types.proto.
const (
	request1Timeseries = 1<<3 | 2

	series1Labels     = 1<<3 | 2
	series1Exemplars  = 3<<3 | 2
	series1Histograms = 4<<3 | 2

	labelName  = 1<<3 | 2
	labelValue = 2<<3 | 2
)

// encode1 writes the items as 1.0, into s.series. Start times and metadata
// cannot be said there with the samples, and are left out.
func (s *scratch) encode1(l *lists, items []deliver.Item, o options) tally {
	var t tally
	b := s.series
	for len(items) > 0 && len(b) <= maxRaw { // or one label could be written for each sample, and take all memory
		n, k := run(items)
		same := items[:n]
		items = items[n:]
		if k == custom || k == exponential && !o.histograms {
			// Receivers of 1.0 alone do not know custom buckets; Prometheus does
			// not send them in 1.0 either.
			t.omitted += n
			continue
		}
		t.sent += n
		// Two bytes for the length, which is mostly right, so that what the marks
		// point to stays where it is.
		b = append(b, request1Timeseries, 0, 0)
		at := len(b)
		refs, _ := l.at(same[0].Index)
		for i := 0; i < len(refs); {
			var number uint32
			number, i = ref(refs, i)
			b = s.appendLabel(b, l, number)
		}
		if k != value {
			for i := range same {
				b = appendHistogram(b, series1Histograms, &same[i], 0)
			}
		} else {
			for i := range same {
				b = appendSample(b, &same[i], 0)
			}
		}
		if o.exemplars {
			b = appendExemplars1(b, same)
		}
		b = s.shut1(b, at)
	}
	s.series = b
	return t
}

// shut1 writes the length of a series into the two bytes before at. Where they
// are not what it takes, the series moves, and the marks are void.
func (s *scratch) shut1(b []byte, at int) []byte {
	n := len(b) - at
	if n >= 0x80 && n < 0x4000 {
		b[at-2], b[at-1] = byte(n)|0x80, byte(n>>7)
		return b
	}
	s.forget()
	if n < 0x80 {
		b[at-2] = byte(n)
		return append(b[:at-1], b[at:]...)
	}
	// As if the length had one byte, and was too long for it.
	copy(b[at-1:], b[at:])
	return widen(b[:len(b)-1], at-1, n)
}

// appendLabel writes a label, from where it was written before if it was.
func (s *scratch) appendLabel(b []byte, l *lists, number uint32) []byte {
	m := &s.pairs[number]
	if m.epoch == s.epoch {
		return append(b, b[m.code:m.code+uint64(m.size)]...)
	}
	at := len(b)
	p := l.pairs[number]
	b = appendText(b, series1Labels, l.symbols[p.name], l.symbols[p.value])
	*m = pairMark{s.epoch, uint32(len(b) - at), uint64(at)}
	return b
}

// appendText writes a Label under a tag.
func appendText(b []byte, tag byte, name, value string) []byte {
	b, at := open(b, tag)
	b = append(b, labelName)
	b = binary.AppendUvarint(b, uint64(len(name)))
	b = append(b, name...)
	b = append(b, labelValue)
	b = binary.AppendUvarint(b, uint64(len(value)))
	b = append(b, value...)
	return shut(b, at)
}

func appendExemplars1(b []byte, items []deliver.Item) []byte {
	for i := range items {
		if items[i].Extra == nil {
			continue
		}
		for _, e := range items[i].Extra.Exemplars {
			var at int
			b, at = open(b, series1Exemplars)
			e.Labels.Range(func(l labels.Label) {
				b = appendText(b, exemplarLabels, valid(l.Name), valid(l.Value))
			})
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

// valid is a text as protobuf allows it.
func valid(text string) string {
	if utf8.ValidString(text) {
		return text
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}
