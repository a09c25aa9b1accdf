package queue

import (
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// A Codec encodes and decodes the records of one segment.
type Codec struct {
	e *encoder
	d decoder
}

// NewCodec makes one whose decoder has its own table, or the encoder's.
func NewCodec(shared bool) *Codec {
	c := &Codec{e: newEncoder()}
	c.d.table = &sample.Table{}
	if shared {
		c.d.table, c.d.shared = c.e.table, true
	}
	return c
}

// Encode is a record without what stands before the payload.
func (c *Codec) Encode(b *sample.Batch, written int64) []byte {
	return c.e.append(nil, b, written)[frameSize:]
}

// Decode fills a record.
func (c *Codec) Decode(payload []byte, samples int, r *sample.Record) error {
	_, err := c.d.decode(payload, samples, r)
	return err
}
