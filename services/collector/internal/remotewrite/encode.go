package remotewrite

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/model/histogram"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
)

// maxRaw is how large a request may be before it is compressed, in bytes.
// Prometheus and VictoriaMetrics take no more. What is larger is not written to its
// end.
const maxRaw = 32 << 20

// options are what is sent.
type options struct{ exemplars, histograms bool }

// scratch is what an encoder needs while it is at work, kept from one request to
// the next.
type scratch struct {
	// epoch marks what belongs to this request: an entry with another one is
	// empty. It is never 0.
	epoch   uint32
	symbols []symbolMark
	pairs   []pairMark

	texts map[string]uint32 // symbols of exemplars, by text
	count uint32            // symbols so far

	table  []byte // 2.0: the symbols; 1.0: not used
	series []byte // the series
}

// A symbolMark is the index of a symbol in this request.
type symbolMark struct{ epoch, index uint32 }

// A pairMark is a label in this request: in 2.0 the bytes of its two indices, in
// 1.0 where it was written first.
type pairMark struct {
	epoch, size uint32
	code        uint64
}

// tally is what a request has.
type tally struct {
	// sent samples, native histograms among them.
	sent int

	// omitted ones, which the protocol cannot say or the operator does not want.
	omitted int
}

// begin makes s ready for a request with these lists.
func (s *scratch) begin(l *lists) {
	s.table, s.series, s.count = s.table[:0], s.series[:0], 0
	clear(s.texts)
	s.symbols = grown(s.symbols, len(l.symbols))
	s.pairs = grown(s.pairs, len(l.pairs))
	s.forget()
}

// forget makes all marks empty.
func (s *scratch) forget() {
	s.epoch++
	if s.epoch == 0 {
		clear(s.symbols[:cap(s.symbols)])
		clear(s.pairs[:cap(s.pairs)])
		s.epoch = 1
	}
}

// grown is a slice with n items or more, whatever they are.
func grown[T any](s []T, n int) []T {
	if n <= len(s) {
		return s
	}
	if n <= cap(s) {
		return s[:cap(s)]
	}
	return make([]T, n+n/4)
}

// encode makes the compressed body of a request, into dst.
func (s *scratch) encode(dst []byte, p Protocol, r *deliver.Request, o options) ([]byte, tally, error) {
	series, ok := r.Series.(*Series)
	if !ok {
		return nil, tally{}, fmt.Errorf("remotewrite: series of a %T", r.Series)
	}
	l := series.lists()
	s.begin(&l)
	var t tally
	var raw []byte
	if p == V2 {
		t = s.encode2(&l, r.Items, o)
		s.table = append(s.table, s.series...) // symbols first: some receivers read as they go
		raw = s.table
	} else {
		t = s.encode1(&l, r.Items, o)
		raw = s.series
	}
	if len(raw) > maxRaw {
		return nil, t, errTooLarge
	}
	return s2.EncodeSnappy(dst[:cap(dst)], raw), t, nil
}

// A kind is what a sample is, for the protocol.
type kind int

const (
	value kind = iota
	exponential
	custom
)

// run is how many of the items belong in one message of a series, and what they
// are: they follow one another, are of one series, and are all values or all
// histograms, as the protocol asks.
func run(items []deliver.Item) (int, kind) {
	n, k := 1, kindOfSample(&items[0])
	for n < len(items) && items[n].Index == items[0].Index && kindOfSample(&items[n]) == k {
		n++
	}
	return n, k
}

// hasHistograms reports whether a request has native histograms.
func hasHistograms(r *deliver.Request) bool {
	return slices.ContainsFunc(r.Items, func(item deliver.Item) bool { return kindOfSample(&item) != value })
}

func kindOfSample(item *deliver.Item) kind {
	if item.Extra == nil {
		return value
	}
	var schema int32
	switch {
	case item.Extra.Histogram != nil:
		schema = item.Extra.Histogram.Schema
	case item.Extra.FloatHistogram != nil:
		schema = item.Extra.FloatHistogram.Schema
	default:
		return value
	}
	if histogram.IsCustomBucketsSchema(schema) {
		return custom
	}
	return exponential
}

// open begins a message or another field with a length, whose tag is one byte;
// shut ends it, given the place that open returned.
func open(b []byte, tag byte) ([]byte, int) {
	b = append(b, tag, 0)
	return b, len(b)
}

func shut(b []byte, at int) []byte {
	n := len(b) - at
	if n < 0x80 {
		b[at-1] = byte(n)
		return b
	}
	return widen(b, at, n)
}

// widen makes room for a length of more than the one byte that open left.
func widen(b []byte, at, n int) []byte {
	var length [binary.MaxVarintLen64]byte
	w := binary.PutUvarint(length[:], uint64(n))
	b = append(b, length[1:w]...) // for the room
	copy(b[at+w-1:], b[at:at+n])
	copy(b[at-1:], length[:w])
	return b
}
