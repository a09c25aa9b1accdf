package scrape

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
)

// An encoding is how a body is compressed.
type encoding string

const (
	identity encoding = "identity"
	gzipped  encoding = "gzip"
	zstded   encoding = "zstd"
)

// encodingOf is the Content-Encoding of an answer; false when it was not asked
// for.
func encodingOf(resp *http.Response) (encoding, bool) {
	told := resp.Header.Get("Content-Encoding")
	for _, e := range []encoding{identity, gzipped, zstded} {
		if strings.EqualFold(told, string(e)) {
			return e, true
		}
	}
	return identity, told == ""
}

// readBody reads an answer's body to its end, decompressed.
func (s *Scraper) readBody(src *source, e encoding, t *target, sizeHint int) (*body, *failure) {
	switch e {
	case zstded:
		return s.readZstd(src, t, sizeHint)
	case gzipped:
		z := s.gunzip()
		defer s.gzips.Put(z)
		if err := z.reset(src); err != nil {
			return nil, fail(schedule.ReasonMalformed, "gzip: %v", err)
		}
		defer z.drop()
		return s.readAll(&z.gz, t.limits.BodyBytes, sizeHint)
	default:
		return s.readAll(src, t.limits.BodyBytes, sizeHint)
	}
}

// readAll reads r to its end, at most limit bytes.
func (s *Scraper) readAll(r io.Reader, limit int64, sizeHint int) (*body, *failure) {
	b, ok := s.newBody(sizeHint)
	if !ok {
		return nil, s.budget.over()
	}
	if f := b.fill(r, limit); f != nil {
		b.release()
		return nil, f
	}
	return b, nil
}

// fill reads r to its end, at most limit bytes.
func (d *body) fill(r io.Reader, limit int64) *failure {
	for {
		room, ok := d.room()
		if !ok {
			return d.from.budget.over()
		}
		n, err := r.Read(room)
		d.b = d.b[:len(d.b)+n]
		if int64(len(d.b)) > limit {
			return fail(schedule.ReasonTooLarge, "a body of more than %d bytes", limit)
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, errCompressed):
			return fail(schedule.ReasonTooLarge, "a compressed body of more than %d bytes", limit)
		default:
			return fail(schedule.ReasonMalformed, "gzip: %v", err)
		}
	}
}

// errCompressed says that a source is longer than any body may be.
var errCompressed = errors.New("too many compressed bytes")

// A source is a body as it is sent. It keeps the error of the connection apart
// from those of the decompressor, and ends bodies of endless empty parts.
type source struct {
	r    io.Reader
	left int64
	err  error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	if s.left -= int64(n); s.left < 0 {
		return 0, errCompressed
	}
	return n, err
}

// A gunzip is a decompressor with its buffer.
type gunzip struct {
	gz  gzip.Reader
	buf *bufio.Reader
}

func (s *Scraper) gunzip() *gunzip {
	if z, ok := s.gzips.Get().(*gunzip); ok {
		return z
	}
	return &gunzip{buf: bufio.NewReaderSize(nil, 4<<10)}
}

func (z *gunzip) reset(src io.Reader) error {
	z.buf.Reset(src)
	if err := z.gz.Reset(z.buf); err != nil {
		z.drop()
		return fmt.Errorf("header: %w", err)
	}
	return nil
}

// drop lets go of the source.
func (z *gunzip) drop() { z.buf.Reset(nil) }

// readZstd reads a body that is compressed by zstd: first all of it as it is
// sent, and then at one go. So it needs none of the windows, of up to megabytes
// for each collection, that a stream of it does, and no goroutine.
func (s *Scraper) readZstd(src *source, t *target, sizeHint int) (*body, *failure) {
	sent, f := s.readAll(src, t.limits.BodyBytes+drainBytes, minBuffer)
	if f != nil {
		return nil, f
	}
	defer sent.release()
	if len(sent.b) < 4 {
		// Not even a magic number; the decoder takes it for nothing.
		return nil, fail(schedule.ReasonMalformed, "zstd: %v", io.ErrUnexpectedEOF)
	}
	b, ok := s.newBody(max(sizeHint, len(sent.b)))
	if !ok {
		return nil, s.budget.over()
	}
	if f := b.unzstd(s.unzstd(), sent.b, t.limits.BodyBytes); f != nil {
		b.release()
		return nil, f
	}
	return b, nil
}

// maxZstdBlock is the most that one block of a frame decompresses to.
const maxZstdBlock = 128 << 10

// unzstd is the decoder that all collections share. It has the memory of as many
// at work as there are processors, and more wait.
func (s *Scraper) unzstd() *zstd.Decoder {
	s.zstdOnce.Do(func() {
		z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderLowmem(true), zstd.WithDecodeAllCapLimit(true))
		if err != nil {
			panic(err) // No option of these can be refused.
		}
		s.zstd = z
	})
	return s.zstd
}

// unzstd decompresses into d, at most limit bytes. It starts again with twice the
// buffer until that is large enough: a frame need not tell its size, nor the
// truth.
func (d *body) unzstd(z *zstd.Decoder, sent []byte, limit int64) *failure {
	for {
		room := d.b[: 0 : cap(d.b)-1]
		all, err := decodeAll(z, sent, room)
		// The decoder has many words for a buffer that is too small, but not with
		// room for one more block.
		full := cap(room)-len(all) < maxZstdBlock || errors.Is(err, zstd.ErrDecoderSizeExceeded)
		switch {
		case err == nil && int64(len(all)) <= limit:
			d.b = append(d.b[:0], all...) // In place, but for a decoder that had to move.
			return nil
		case int64(len(all)) > limit, full && int64(cap(room)) > limit+maxZstdBlock:
			return fail(schedule.ReasonTooLarge, "a body of more than %d bytes", limit)
		case !full:
			return fail(schedule.ReasonMalformed, "zstd: %v", err)
		}
		d.b = d.b[:0]
		if !d.grow() {
			return d.from.budget.over()
		}
	}
}

// decodeAll is the decoder's DecodeAll. Its input is made by anybody: a panic is
// one more kind of malformed.
func decodeAll(z *zstd.Decoder, sent, room []byte) (all []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the decoder failed: %v", p)
		}
	}()
	return z.DecodeAll(sent, room)
}
