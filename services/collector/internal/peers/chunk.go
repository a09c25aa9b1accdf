package peers

import (
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
)

// maxBuckets bounds the buckets of a chunk's histograms. A chunk says how many it
// has before it has them. The store puts those of all gauge histograms of one
// chunk, ten and more, into one layout.
const maxBuckets = 1 << 20

// parseChunk checks a chunk by reading it to its end: what passes can be read by
// anybody without an error, and its samples are in order.
func parseChunk(m *collectorv1.SelectedChunk) (meta chunks.Meta, err error) {
	defer func() {
		if p := recover(); p != nil { // Prometheus's decoders trust their store.
			meta, err = chunks.Meta{}, fmt.Errorf("unreadable chunk: %.200s", fmt.Sprint(p))
		}
	}()
	var encoding chunkenc.Encoding
	header := 3
	switch m.GetEncoding() {
	case collectorv1.ChunkEncoding_CHUNK_ENCODING_XOR:
		encoding, header = chunkenc.EncXOR, 2
	case collectorv1.ChunkEncoding_CHUNK_ENCODING_HISTOGRAM:
		encoding = chunkenc.EncHistogram
	case collectorv1.ChunkEncoding_CHUNK_ENCODING_FLOAT_HISTOGRAM:
		encoding = chunkenc.EncFloatHistogram
	default:
		return chunks.Meta{}, fmt.Errorf("chunk encoding %d is not known", m.GetEncoding())
	}
	if len(m.GetData()) < header {
		return chunks.Meta{}, errors.New("a chunk without its header")
	}
	if encoding != chunkenc.EncXOR {
		if err := checkLayout(m.GetData()[header:]); err != nil {
			return chunks.Meta{}, err
		}
	}
	chunk, err := chunkenc.FromData(encoding, m.GetData())
	if err != nil {
		return chunks.Meta{}, err
	}
	return readThrough(chunk)
}

// readThrough reads all samples of a chunk.
func readThrough(chunk chunkenc.Chunk) (chunks.Meta, error) {
	meta := chunks.Meta{Chunk: chunk}
	it := chunk.Iterator(nil)
	n := 0
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		t := it.AtT()
		if n > 0 && t <= meta.MaxTime {
			return chunks.Meta{}, errors.New("a chunk's samples are not in order")
		}
		if n == 0 {
			meta.MinTime = t
		}
		meta.MaxTime = t
		n++
		if err := checkHistogram(it, kind); err != nil {
			return chunks.Meta{}, fmt.Errorf("a chunk's histogram: %w", err)
		}
	}
	if err := it.Err(); err != nil {
		return chunks.Meta{}, fmt.Errorf("unreadable chunk: %w", err)
	}
	if n == 0 {
		return chunks.Meta{}, errors.New("a chunk without samples")
	}
	return meta, nil
}

func checkHistogram(it chunkenc.Iterator, kind chunkenc.ValueType) error {
	switch kind {
	case chunkenc.ValHistogram:
		_, h := it.AtHistogram(nil)
		return h.Validate()
	case chunkenc.ValFloatHistogram:
		_, h := it.AtFloatHistogram(nil)
		return h.Validate()
	default:
		return nil
	}
}

// checkLayout checks the buckets that a chunk of histograms says it has: the
// decoder takes memory for them before it reads any. data begins behind the
// header. The format is that of Prometheus's tsdb/docs/format/chunks.md.
func checkLayout(data []byte) error {
	r := bitReader{data: data}
	if r.bits(8) == 255 { // The zero threshold follows in full.
		r.bits(64)
	}
	schema := int32(r.signedVarbit())
	buckets, most := uint64(0), min(maxBuckets, 8*uint64(len(data))) // a bucket takes a bit at least
	for range 2 {                                                    // Positive and negative.
		spans := r.varbit()
		if spans > most {
			return fmt.Errorf("a chunk's histograms have %d spans", spans)
		}
		for range spans {
			if buckets += r.varbit(); buckets > most || r.short {
				return errors.New("a chunk's histograms have too many buckets")
			}
			r.varbit() // The offset.
		}
	}
	if r.short {
		return errors.New("a chunk without its layout")
	}
	if !histogram.IsExponentialSchema(schema) && !histogram.IsCustomBucketsSchema(schema) {
		return fmt.Errorf("a chunk's histograms have the schema %d", schema)
	}
	return nil
}

// A bitReader reads bits, most significant first.
type bitReader struct {
	data  []byte
	at    int  // in bits
	short bool // there were fewer than were read
}

func (r *bitReader) bits(n int) uint64 {
	var v uint64
	for range n {
		if r.at >= 8*len(r.data) {
			r.short = true
			return 0
		}
		v = v<<1 | uint64(r.data[r.at/8]>>(7-r.at%8)&1)
		r.at++
	}
	return v
}

// varbitSizes are how many bits follow so many ones.
var varbitSizes = [...]int{0, 3, 6, 9, 12, 18, 25, 56, 64} //nolint:gochecknoglobals // a constant table

// varbit reads a number as it stands: one that is signed is cut to its size.
func (r *bitReader) varbit() uint64 {
	v, _ := r.sizedVarbit()
	return v
}

func (r *bitReader) sizedVarbit() (v uint64, size int) {
	ones := 0
	for ones < len(varbitSizes)-1 && r.bits(1) == 1 {
		ones++
	}
	size = varbitSizes[ones]
	return r.bits(size), size
}

// signedVarbit reads a number of which those above half of its size's range are
// negative.
func (r *bitReader) signedVarbit() int64 {
	v, size := r.sizedVarbit()
	if size > 0 && size < 64 && v > 1<<(size-1) {
		return int64(v) - 1<<size
	}
	return int64(v)
}
