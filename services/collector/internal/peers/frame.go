package peers

import (
	"fmt"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/grpc/codes"
)

const (
	// fullFrame is when a frame is sent, in bytes.
	fullFrame = 256 << 10

	// maxFrame bounds a frame that is received.
	maxFrame = 4 << 20

	// maxWarnings bounds what a store has to say about its answer.
	maxWarnings = 10
)

// What things take in memory beyond their bytes, about.
const (
	frameOverhead    = 256
	seriesOverhead   = 128
	chunkOverhead    = 128
	stringOverhead   = 32
	exemplarOverhead = 64
)

// A framer cuts an answer into frames and sends them. The frame in the making is
// of one kind, as the answer is.
type framer struct {
	send func(*collectorv1.SelectResponse) error
	full int   // when a frame is sent, in bytes
	left int64 // how many bytes may be sent yet
	end  collectorv1.SelectEnd

	size      int
	last      labels.Labels // those of the series begun last
	refs      map[string]uint32
	series    *collectorv1.SelectedSeriesFrame
	strings   *collectorv1.SelectedStringsFrame
	exemplars *collectorv1.SelectedExemplarsFrame
}

// beginSeries begins a series.
func (f *framer) beginSeries(lset labels.Labels) error {
	if err := f.room(); err != nil {
		return err
	}
	f.end.SeriesCount++
	f.addSeries(lset)
	return nil
}

// addSeries adds a series, or what comes next of one, to the frame.
func (f *framer) addSeries(lset labels.Labels) {
	s := &collectorv1.SelectedSeries{LabelRefs: make([]uint32, 0, 2*lset.Len())}
	lset.Range(func(l labels.Label) {
		s.LabelRefs = append(s.LabelRefs, f.ref(l.Name), f.ref(l.Value))
	})
	f.size += seriesOverhead
	f.begun().Series = append(f.begun().Series, s)
	f.last = lset
}

// begun is the series frame in the making.
func (f *framer) begun() *collectorv1.SelectedSeriesFrame {
	if f.series == nil {
		f.series, f.refs = &collectorv1.SelectedSeriesFrame{}, map[string]uint32{}
	}
	return f.series
}

// ref is the index of a symbol.
func (f *framer) ref(s string) uint32 {
	frame := f.begun()
	i, ok := f.refs[s]
	if !ok {
		i = uint32(len(frame.Symbols))
		frame.Symbols = append(frame.Symbols, s)
		f.refs[s] = i
		f.size += stringOverhead + len(s)
	}
	return i
}

// chunk adds a chunk to the series begun last.
func (f *framer) chunk(c chunkenc.Chunk) error {
	if err := f.room(); err != nil {
		return err
	}
	encoding, ok := encodingOf(c.Encoding())
	if !ok {
		return fmt.Errorf("chunks of the encoding %s cannot be told to others", c.Encoding())
	}
	frame := f.begun()
	if len(frame.Series) == 0 {
		f.addSeries(f.last)
	}
	s := frame.Series[len(frame.Series)-1]
	// Copied: the store may use its memory again.
	s.Chunks = append(s.Chunks, &collectorv1.SelectedChunk{Encoding: encoding, Data: append([]byte(nil), c.Bytes()...)})
	f.end.ChunkCount++
	f.size += chunkOverhead + len(c.Bytes())
	return nil
}

func encodingOf(e chunkenc.Encoding) (collectorv1.ChunkEncoding, bool) {
	switch e {
	case chunkenc.EncXOR:
		return collectorv1.ChunkEncoding_CHUNK_ENCODING_XOR, true
	case chunkenc.EncHistogram:
		return collectorv1.ChunkEncoding_CHUNK_ENCODING_HISTOGRAM, true
	case chunkenc.EncFloatHistogram:
		return collectorv1.ChunkEncoding_CHUNK_ENCODING_FLOAT_HISTOGRAM, true
	default:
		return 0, false
	}
}

// value adds a string.
func (f *framer) value(s string) error {
	if err := f.room(); err != nil {
		return err
	}
	if f.strings == nil {
		f.strings = &collectorv1.SelectedStringsFrame{}
	}
	f.strings.Values = append(f.strings.Values, s)
	f.end.ValueCount++
	f.size += stringOverhead + len(s)
	return nil
}

// exemplarsOf adds the exemplars of a series.
func (f *framer) exemplarsOf(r *exemplar.QueryResult) error {
	series, size := encodeLabels(r.SeriesLabels)
	var last *collectorv1.SelectedExemplars
	for i := range r.Exemplars {
		if err := f.room(); err != nil {
			return err
		}
		if f.exemplars == nil {
			f.exemplars, last = &collectorv1.SelectedExemplarsFrame{}, nil
		}
		if last == nil {
			last = &collectorv1.SelectedExemplars{SeriesLabels: series}
			f.exemplars.Series = append(f.exemplars.Series, last)
			f.end.SeriesCount++
			f.size += size
		}
		e := &r.Exemplars[i]
		own, size := encodeLabels(e.Labels)
		last.Exemplars = append(last.Exemplars, &collectorv1.SelectedExemplar{Labels: own, Value: e.Value, TimeMs: e.Ts})
		f.end.ExemplarCount++
		f.size += exemplarOverhead + size
	}
	return nil
}

func encodeLabels(lset labels.Labels) (pairs []*registryv1.Label, size int) {
	size = seriesOverhead
	lset.Range(func(l labels.Label) {
		pairs = append(pairs, &registryv1.Label{Name: l.Name, Value: l.Value})
		size += 2*stringOverhead + len(l.Name) + len(l.Value)
	})
	return pairs, size
}

// room sends the frame if it is full.
func (f *framer) room() error {
	if f.size < f.full {
		return nil
	}
	return f.flush()
}

// flush sends the frame.
func (f *framer) flush() error {
	if f.left -= int64(f.size); f.left < 0 {
		return failure(codes.ResourceExhausted, "the answer is too large", "TOO_LARGE")
	}
	m := &collectorv1.SelectResponse{}
	switch {
	case f.series != nil:
		m.Frame = &collectorv1.SelectResponse_Series{Series: f.series}
	case f.strings != nil:
		m.Frame = &collectorv1.SelectResponse_Strings{Strings: f.strings}
	case f.exemplars != nil:
		m.Frame = &collectorv1.SelectResponse_Exemplars{Exemplars: f.exemplars}
	default:
		return nil
	}
	f.size, f.series, f.strings, f.exemplars = 0, nil, nil, nil
	return f.send(m)
}

// seal sends the rest and the end.
func (f *framer) seal() error {
	if err := f.flush(); err != nil {
		return err
	}
	return f.send(&collectorv1.SelectResponse{Frame: &collectorv1.SelectResponse_End{End: &f.end}})
}
