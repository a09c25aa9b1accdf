package remotewrite

import (
	"errors"
	"io"
	"net/http"
	"sync"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
)

// maxKept is how large a buffer may be that is kept for the next request.
const maxKept = 8 << 20

var (
	errTooLarge = errors.New("the request is larger than receivers take")
	errEnded    = errors.New("remotewrite: the body is read after its end")
)

// A body is the compressed form of a request, kept over its tries.
type body struct {
	protocol Protocol
	options  options
	tally    tally
	bytes    []byte

	mu      sync.Mutex
	readers int // guarded by mu; how many the HTTP client has not closed yet
}

// body encodes a request, unless it is encoded already.
func (c *Client) body(r *deliver.Request, p Protocol) (*body, error) {
	o := c.options()
	if b, ok := r.Encoded.(*body); ok {
		if b.protocol == p && b.options == o {
			return b, nil
		}
		c.release(r)
	}
	b, _ := c.bodies.Get().(*body)
	s, _ := c.scratch.Get().(*scratch)
	var err error
	b.protocol, b.options = p, o
	b.bytes, b.tally, err = s.encode(b.bytes, p, r, o)
	if cap(s.table) <= maxKept && cap(s.series) <= maxKept {
		clear(s.texts)
		c.scratch.Put(s)
	}
	if err != nil {
		return nil, err
	}
	r.Encoded = b
	return b, nil
}

// release lets go of what a request was encoded to. The HTTP client may still be
// sending it although the answer is there: then it is left to the garbage
// collector.
func (c *Client) release(r *deliver.Request) {
	b, ok := r.Encoded.(*body)
	r.Encoded = nil
	if !ok || cap(b.bytes) > maxKept {
		return
	}
	b.mu.Lock()
	idle := b.readers == 0
	b.mu.Unlock()
	if idle {
		c.bodies.Put(b)
	}
}

// attach makes b the body of an HTTP request.
func (b *body) attach(r *http.Request) {
	r.Body = b.open()
	r.ContentLength = int64(len(b.bytes))
	// The HTTP client asks for another one when a kept connection turns out to be
	// closed before anything was sent.
	r.GetBody = func() (io.ReadCloser, error) { return b.open(), nil }
}

func (b *body) open() io.ReadCloser {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.readers++
	return &reader{body: b}
}

// A reader is one reading of a body.
type reader struct {
	mu   sync.Mutex
	body *body // guarded by mu; nil when closed
	at   int   // guarded by mu
}

// Read reads on.
func (r *reader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.body == nil {
		return 0, errEnded
	}
	n := copy(p, r.body.bytes[r.at:])
	r.at += n
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Close ends the reading.
func (r *reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.body == nil {
		return nil
	}
	r.body.mu.Lock()
	r.body.readers--
	r.body.mu.Unlock()
	r.body = nil
	return nil
}
