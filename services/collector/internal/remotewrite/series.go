package remotewrite

import (
	"encoding/binary"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
)

// Series are the series of one table, as numbers: each string is kept once, each
// pair of a label's name and value once, and a series is a list of pairs. One
// caller adds while requests are encoded.
type Series struct {
	mu  sync.Mutex
	all lists // guarded by mu; what is in the lists does not change

	// These are the adder's.
	symbols map[string]uint32
	pairs   map[pair]uint32
	metas   map[meta]uint32
	last    *metadata.Metadata // of the series before, which is mostly of the same family
	lastAt  uint32
}

var _ deliver.Series = (*Series)(nil)

// lists are what an encoder needs of Series.
type lists struct {
	symbols []string
	pairs   []pair
	pages   []page // full ones
	last    page   // series behind those
	metas   []meta
}

// A page is so many series, or less. There are millions, and a list of all would
// be moved again and again as it grows.
type page struct {
	series []entry
	refs   []byte // numbers of pairs as varints, series after series
}

const pageSeries = 1 << 10

// A pair is a label: the symbols of its name and value.
type pair struct{ name, value uint32 }

// An entry is one series: the end of its pairs in refs, which begin where those of
// the series before end.
type entry struct{ end, meta uint32 }

// meta is the metadata of a family. The first one of all is that of a series
// without.
type meta struct {
	kind       uint8 // as remote write numbers it, 1.0 and 2.0 alike
	help, unit uint32
}

// NewSeries makes the list of the series of one table, without any.
func NewSeries() *Series {
	return &Series{
		all:     lists{symbols: []string{""}, metas: []meta{{}}},
		symbols: map[string]uint32{"": 0},
		pairs:   map[pair]uint32{},
		metas:   map[meta]uint32{{}: 0},
	}
}

// Add compiles one series. Only one caller may.
func (s *Series) Add(ls labels.Labels, m *metadata.Metadata) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.all.last
	if p.series == nil {
		p.series = make([]entry, 0, pageSeries)
	}
	ls.Range(func(l labels.Label) {
		p.refs = binary.AppendUvarint(p.refs, uint64(s.pair(pair{s.symbol(l.Name), s.symbol(l.Value)})))
	})
	p.series = append(p.series, entry{uint32(len(p.refs)), s.meta(m)})
	if len(p.series) == pageSeries {
		s.all.pages = append(s.all.pages, *p)
		s.all.last = page{refs: make([]byte, 0, len(p.refs))} // the next one is mostly as large
	}
}

// at is a series: the numbers of its pairs, and that of its metadata.
func (l *lists) at(index uint32) (refs []byte, meta uint32) {
	p := &l.last
	if n := int(index / pageSeries); n < len(l.pages) {
		p = &l.pages[n]
	}
	i := index % pageSeries
	from := uint32(0)
	if i > 0 {
		from = p.series[i-1].end
	}
	e := p.series[i]
	return p.refs[from:e.end], e.meta
}

// ref is the number at i in refs, and where the next one is. Most are of two
// bytes: this is inlined, and is what makes them as good as an array.
func ref(refs []byte, i int) (number uint32, next int) {
	if refs[i] < 0x80 {
		return uint32(refs[i]), i + 1
	}
	if refs[i+1] < 0x80 {
		return uint32(refs[i]&0x7f) | uint32(refs[i+1])<<7, i + 2
	}
	return longRef(refs, i)
}

func longRef(refs []byte, i int) (number uint32, next int) {
	v, n := binary.Uvarint(refs[i:])
	return uint32(v), i + n
}

// lists are those of now.
func (s *Series) lists() lists {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all
}

func (s *Series) symbol(text string) uint32 {
	if n, ok := s.symbols[text]; ok {
		return n
	}
	kept := strings.Clone(text) // else it would keep all labels that it is cut from
	sent := kept
	if !utf8.ValidString(kept) {
		// Protobuf's strings are UTF-8: a receiver may refuse the whole request.
		sent = strings.ToValidUTF8(kept, "\uFFFD")
	}
	n := uint32(len(s.all.symbols))
	s.all.symbols = append(s.all.symbols, sent)
	s.symbols[kept] = n
	return n
}

func (s *Series) pair(p pair) uint32 {
	n, ok := s.pairs[p]
	if !ok {
		n = uint32(len(s.all.pairs))
		s.all.pairs = append(s.all.pairs, p)
		s.pairs[p] = n
	}
	return n
}

func (s *Series) meta(told *metadata.Metadata) uint32 {
	if told == nil {
		return 0
	}
	if told == s.last {
		return s.lastAt
	}
	m := meta{kindOf(told.Type), s.symbol(told.Help), s.symbol(told.Unit)}
	n, ok := s.metas[m]
	if !ok {
		n = uint32(len(s.all.metas))
		s.all.metas = append(s.all.metas, m)
		s.metas[m] = n
	}
	s.last, s.lastAt = told, n
	return n
}

// kindOf is the number of a type, 0 for one that is not known.
func kindOf(t model.MetricType) uint8 {
	switch t {
	case model.MetricTypeCounter:
		return 1
	case model.MetricTypeGauge:
		return 2
	case model.MetricTypeHistogram:
		return 3
	case model.MetricTypeGaugeHistogram:
		return 4
	case model.MetricTypeSummary:
		return 5
	case model.MetricTypeInfo:
		return 6
	case model.MetricTypeStateset:
		return 7
	default:
		return 0
	}
}
