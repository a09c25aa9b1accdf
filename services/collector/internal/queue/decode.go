package queue

import (
	"encoding/binary"
	"math"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// A decoder reads the records of one segment, in their order. After an error
// it is not to be used again.
type decoder struct {
	table *sample.Table

	// shared tells that the table is that of the encoder, which has put in all
	// series: definitions are skipped.
	shared bool

	symbols []string
	metas   []*metadata.Metadata
	defined int64
	builder labels.ScratchBuilder

	// slab has room for the next series: they live and die together.
	slab []sample.Series
}

const slabSize = 128

// A preface is what a payload begins with.
type preface struct {
	source        uint64
	written, base int64
}

func (p preface) time() time.Time { return time.UnixMilli(p.written) }

// define takes the definitions of a record, and leaves the input behind them.
func (d *decoder) define(in *input) preface {
	var p preface
	p.source = in.uint64()
	p.written = in.varint()
	p.base = in.varint() + p.written
	definitions := input{b: in.bytes(in.uvarint())}
	if d.shared {
		return p
	}
	for len(definitions.b) > 0 && !definitions.bad {
		d.series(&definitions)
	}
	in.bad = in.bad || definitions.bad
	return p
}

// series takes one definition.
func (d *decoder) series(in *input) {
	d.builder.Reset()
	if d.defined += seriesCost; d.defined > maxDefined {
		in.bad = true
		return
	}
	for range in.count(2) {
		name := d.symbol(in)
		value := d.symbol(in)
		d.builder.Add(name, value)
		d.defined += int64(len(name) + len(value))
		if d.defined > maxDefined {
			in.bad = true
		}
		if in.bad {
			return
		}
	}
	meta := d.meta(in)
	if in.bad {
		return
	}
	ls := d.builder.Labels()
	if len(d.slab) == 0 {
		d.slab = make([]sample.Series, slabSize)
	}
	s := &d.slab[0]
	d.slab = d.slab[1:]
	s.Own, s.Meta = ls, meta
	d.table.Add(s)
}

func (d *decoder) symbol(in *input) string {
	switch n := in.uvarint(); {
	case n == 0:
		s := in.string()
		d.symbols = append(d.symbols, s)
		return s
	case n > uint64(len(d.symbols)):
		in.bad = true
		return ""
	default:
		return d.symbols[n-1]
	}
}

func (d *decoder) meta(in *input) *metadata.Metadata {
	switch n := in.uvarint(); {
	case n == 0:
		return nil
	case n == 1:
		m := &metadata.Metadata{Type: model.MetricType(d.symbol(in))}
		m.Unit = d.symbol(in)
		m.Help = d.symbol(in)
		d.metas = append(d.metas, m)
		return m
	case n-2 >= uint64(len(d.metas)):
		in.bad = true
		return nil
	default:
		return d.metas[n-2]
	}
}

// decode fills a record, but for its place, with a payload of so many samples.
func (d *decoder) decode(payload []byte, samples int, r *sample.Record) (preface, error) {
	in := &input{b: payload}
	p := d.define(in)
	if in.bad || samples > len(in.b) {
		return p, damaged("definitions of a record")
	}
	r.Source, r.Table = p.source, d.table
	if r.Numbers = in.numbers(r.Numbers[:0], samples, uint64(len(d.table.All()))); in.bad {
		return p, damaged("series of a record")
	}
	r.Points = slices.Grow(r.Points[:0], samples)[:samples]
	flags := in.byte()
	for i := range r.Points {
		r.Points[i] = sample.Point{Time: p.base}
	}
	if flags&flagTimes != 0 {
		in.times(r.Points)
	}
	if flags&flagStarts != 0 {
		in.starts(r.Points, p.base)
	}
	in.values(r.Points)
	if flags&flagExtras != 0 && !in.bad {
		d.extras(in, r.Points)
	}
	if in.bad || len(in.b) > 0 || flags&^flagsKnown != 0 {
		return p, damaged("samples of a record")
	}
	return p, nil
}

// numbers takes the runs, of so many samples, of series with numbers below limit.
func (in *input) numbers(numbers []uint32, samples int, limit uint64) []uint32 {
	numbers = slices.Grow(numbers, samples)
	var end uint64
	for range in.uvarint() {
		begin := end + uint64(in.varint())
		count := in.uvarint()
		if in.bad || begin >= limit || count == 0 || count > limit-begin || count > uint64(samples-len(numbers)) {
			in.bad = true
			return numbers
		}
		end = begin + count
		for n := begin; n < end; n++ {
			numbers = append(numbers, uint32(n))
		}
	}
	if len(numbers) != samples {
		in.bad = true
	}
	return numbers
}

func (in *input) times(points []sample.Point) {
	at := 0
	for range in.count(2) {
		at += in.upTo(len(points) - 1 - at)
		if in.bad {
			return
		}
		points[at].Time += in.varint()
		at++
	}
}

func (in *input) starts(points []sample.Point, base int64) {
	for at := 0; at < len(points); {
		tag := in.uvarint()
		run := tag >> 1
		if in.bad || run == 0 || run > uint64(len(points)-at) {
			in.bad = true
			return
		}
		if tag&1 != 0 {
			start := in.varint() + base
			for i := range points[at : at+int(run)] {
				points[at+i].Start = start
			}
		}
		at += int(run)
	}
}

func (in *input) values(points []sample.Point) {
	bitmap := in.bytes(uint64(len(points)+7) / 8)
	if in.bad {
		return
	}
	b := in.b
	for i := range points {
		if bitmap[i>>3]>>(i&7)&1 == 0 {
			if len(b) < 8 {
				in.bad = true
				return
			}
			points[i].Value = math.Float64frombits(binary.LittleEndian.Uint64(b))
			b = b[8:]
			continue
		}
		n, size := binary.Varint(b)
		if size <= 0 {
			in.bad = true
			return
		}
		points[i].Value = float64(n)
		b = b[size:]
	}
	in.b = b
}
