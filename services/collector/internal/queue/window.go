package queue

import (
	"errors"
	"io"
	"slices"
	"time"
)

const (
	windowSize = 256 << 10

	// A read that fails is tried again, after a pause, before what it should
	// have read is given up.
	readTries = 3
	readPause = 100 * time.Millisecond
)

// A window is what was read last of a segment.
type window struct {
	data  []byte // all of it, when the segment is in memory
	file  File
	limit int64

	buf []byte
	at  int64 // of buf
}

// bytes are so many at an offset, until the next call. It is
// [io.ErrUnexpectedEOF] when there are not so many.
func (w *window) bytes(offset int64, n int) ([]byte, error) {
	if offset+int64(n) > w.limit {
		return nil, io.ErrUnexpectedEOF
	}
	if w.data != nil {
		return w.data[offset : offset+int64(n)], nil
	}
	from := offset - w.at
	if from < 0 || from+int64(n) > int64(len(w.buf)) {
		if err := w.fill(offset, n); err != nil {
			return nil, err
		}
		from = 0
	}
	return w.buf[from : from+int64(n)], nil
}

// fill reads on from an offset.
func (w *window) fill(offset int64, n int) error {
	size := int(min(int64(max(n, windowSize)), w.limit-offset))
	if cap(w.buf) > 4*windowSize && size <= windowSize {
		w.buf = nil
	}
	w.buf = slices.Grow(w.buf[:0], size)[:size]
	w.at = offset
	var err error
	for try := range readTries {
		if try > 0 {
			time.Sleep(readPause)
		}
		var read int
		read, err = w.file.ReadAt(w.buf, offset)
		if read >= n {
			w.buf = w.buf[:read]
			return nil
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
			break
		}
	}
	w.buf = w.buf[:0]
	return err
}
