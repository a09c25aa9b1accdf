package queue

import (
	"fmt"
	"os"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// A cursor goes through one segment.
type cursor struct {
	segment *segment
	window  window
	decoder decoder

	// offset is that of the next record, read the samples before it. ready: the
	// decoder knows what is defined before it. broken: what is next cannot be
	// read.
	offset, read  int64
	ready, broken bool
}

// newCursor is a cursor that will begin at an offset. table is that of the
// encoder, or nil; read is -1 when it is not known. The caller holds Queue.mu.
func newCursor(s *segment, offset, read int64) *cursor {
	c := &cursor{segment: s, offset: begin(offset), read: read}
	c.decoder.table, c.decoder.shared = s.table, s.table != nil
	if s.table == nil {
		c.decoder.table = &sample.Table{}
	}
	return c
}

// open prepares for the first record. It reads what is before, when something
// of it must be known.
func (c *cursor) open(q *Queue) error {
	if c.window.data == nil && c.window.file == nil {
		file, err := q.cfg.FS.OpenFile(q.path(segmentName(c.segment.number)), os.O_RDONLY, 0)
		if err != nil {
			return err
		}
		c.window.file = file
	}
	if c.ready {
		return nil
	}
	b, err := c.window.bytes(0, headerSize)
	if err != nil {
		return err
	}
	h, err := parseHeader(b)
	if err != nil {
		return err
	}
	if h.number != c.segment.number {
		return damaged(fmt.Sprintf("the number is %d", h.number))
	}
	target := c.offset
	c.ready = true
	if target > headerSize && (!c.decoder.shared || c.read < 0) {
		c.offset, c.read = headerSize, 0
		return c.pass(target)
	}
	c.read = max(c.read, 0)
	return nil
}

// pass goes through the records before an offset.
func (c *cursor) pass(target int64) error {
	for c.offset < min(target, c.window.limit) {
		f, payload, err := c.record()
		if err != nil {
			return err
		}
		end := c.offset + frameSize + int64(f.length)
		if end > target {
			return nil // not a place that was committed; this one again
		}
		in := &input{b: payload}
		if c.decoder.define(in); in.bad {
			return damaged("definitions of a record")
		}
		c.offset, c.read = end, c.read+int64(f.samples)
	}
	return nil
}

// record is the next one, which is not passed thereby.
func (c *cursor) record() (frame, []byte, error) {
	b, err := c.window.bytes(c.offset, frameSize)
	if err != nil {
		return frame{}, nil, err
	}
	f, err := parseFrame(b)
	if err != nil {
		return frame{}, nil, err
	}
	b, err = c.window.bytes(c.offset, frameSize+int(f.length))
	if err != nil {
		return f, nil, err
	}
	payload := b[frameSize:]
	if checksum(payload) != f.sum {
		return f, nil, damaged("checksum of a record")
	}
	return f, payload, nil
}

// source tells the cursor what there is now. The caller holds Queue.mu.
func (c *cursor) source() {
	s := c.segment
	switch {
	case s.inMemory():
		c.window.data = s.data
	case !s.gone:
		c.window.data = nil
	}
	c.window.limit = s.end
}

func (c *cursor) close() {
	if c != nil {
		closeFile(c.window.file)
	}
}
