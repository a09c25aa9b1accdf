package receiver

import (
	"fmt"

	"github.com/golang/snappy"
	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/encoding/protowire"
)

// contentTypeTwo is that of remote write 2.0; everything else is taken for 1.0.
const contentTypeTwo = "application/x-protobuf;proto=io.prometheus.write.v2.Request"

// message is a request as it came.
type message struct {
	two  bool // remote write 2.0
	zstd bool // compressed so, and not as snappy
	wire []byte
}

func (m message) protocol() string {
	version, compression := "1.0", "snappy"
	if m.two {
		version = "2.0"
	}
	if m.zstd {
		compression = "zstd"
	}
	return version + " " + compression
}

// raw is the body decompressed.
func (m message) raw() ([]byte, error) {
	if m.zstd {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxBody))
		if err != nil {
			return nil, err
		}
		defer d.Close()
		return d.DecodeAll(m.wire, nil)
	}
	n, err := snappy.DecodedLen(m.wire)
	switch {
	case err != nil:
		return nil, err
	case n > maxBody:
		return nil, fmt.Errorf("body of %d bytes", n)
	}
	return snappy.Decode(nil, m.wire)
}

// tally counts what is in a body.
type tally struct{ samples, histograms, exemplars int }

// count tells what is in a body. It reads no more than that needs: in the
// processes that measure, the receiver must not be what is slow.
func count(raw []byte, two bool) (t tally, err error) {
	// The numbers are those of WriteRequest and TimeSeries, and of the same in 2.0.
	series, histogram, exemplar := protowire.Number(1), protowire.Number(4), protowire.Number(3)
	if two {
		series, histogram, exemplar = 5, 3, 4
	}
	err = fields(raw, func(number protowire.Number, value []byte) error {
		if number != series {
			return nil
		}
		return fields(value, func(number protowire.Number, _ []byte) error {
			switch number {
			case 2:
				t.samples++
			case histogram:
				t.histograms++
			case exemplar:
				t.exemplars++
			default:
			}
			return nil
		})
	})
	return t, err
}

// fields calls do for every field of a message that has a length.
func fields(b []byte, do func(number protowire.Number, value []byte) error) error {
	for len(b) > 0 {
		number, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, typ, b); n < 0 {
				return protowire.ParseError(n)
			}
			b = b[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := do(number, value); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
