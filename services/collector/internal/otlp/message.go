package otlp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/stats"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
)

// A message is an encoded request. It is kept until the receiver has decided.
type message struct {
	buffer      mem.Buffer
	samples     int
	points      int
	unsupported int
}

// A block is the memory of a message. gRPC gives it back when nothing reads it
// any more.
type block struct {
	whole, written []byte
	pool           *sync.Pool
}

// Get makes block a mem.BufferPool; it is not called.
func (b *block) Get(n int) *[]byte {
	made := make([]byte, n)
	return &made
}

// Put gives the block back.
func (b *block) Put(*[]byte) { b.pool.Put(b) }

// keepBlock is how large a block may be and be used again, in bytes.
const keepBlock = 8 << 20

// encode makes the message of a request.
func (c *Client) encode(r *deliver.Request) *message {
	s, ok := r.Series.(*Series)
	if !ok {
		return &message{samples: len(r.Items), unsupported: len(r.Items)}
	}
	p, ok := c.passes.Get().(*pass)
	if !ok {
		p = &pass{}
	}
	b, ok := c.blocks.Get().(*block)
	if !ok || len(b.whole) > keepBlock {
		b = &block{pool: &c.blocks}
	}
	p.begin(s.now(), r.Items, c.memory.now())
	p.gather(r.Ends)
	w := writer{b: b.whole, at: len(b.whole)}
	p.write(&w)
	m := &message{samples: len(r.Items), points: len(p.units), unsupported: p.unsupported}
	p.end()
	c.passes.Put(p)
	b.whole, b.written = w.b, w.b[w.at:]
	m.buffer = mem.NewBuffer(&b.written, b)
	return m
}

func (m *message) free() { m.buffer.Free() }

// local adds what was not sent to an outcome.
func (m *message) local(o deliver.Outcome) deliver.Outcome {
	if m.unsupported > 0 && o.Result == deliver.Delivered {
		o.Refused += m.unsupported
		if o.Reason == "" {
			o.Reason = deliver.ReasonUnsupported
		}
	}
	return o
}

// An answer is an ExportMetricsServiceResponse.
type answer struct {
	rejected int64 // points
	message  string
}

var errAnswer = errors.New("not an answer to metrics")

// parse reads an answer of a stranger.
func (a *answer) parse(b []byte) error {
	return fields(b, func(number protowire.Number, v []byte, _ uint64) error {
		if number != 1 || v == nil {
			return nil
		}
		return fields(v, func(number protowire.Number, v []byte, n uint64) error {
			switch {
			case number == 1 && v == nil:
				a.rejected = int64(n)
			case number == 2 && v != nil:
				a.message = string(v)
			}
			return nil
		})
	})
}

// fields visits the fields of a message: their bytes, or their number where v is
// nil.
func fields(b []byte, visit func(number protowire.Number, v []byte, n uint64) error) error {
	for len(b) > 0 {
		number, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errAnswer
		}
		b = b[n:]
		size := protowire.ConsumeFieldValue(number, typ, b)
		if size < 0 {
			return errAnswer
		}
		var err error
		switch typ {
		case protowire.BytesType:
			v, _ := protowire.ConsumeBytes(b)
			err = visit(number, slices.Clip(v), 0)
		case protowire.VarintType:
			v, _ := protowire.ConsumeVarint(b)
			err = visit(number, nil, v)
		default:
		}
		if err != nil {
			return err
		}
		b = b[size:]
	}
	return nil
}

// A codec lets gRPC send what is encoded already.
type codec struct{}

// Name is what goes into the content type.
func (codec) Name() string { return "proto" }

// Marshal hands a message out.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(*message)
	if !ok {
		return nil, fmt.Errorf("%T is not a request for metrics", v)
	}
	m.buffer.Ref()
	return mem.BufferSlice{m.buffer}, nil
}

// Unmarshal reads an answer.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	a, ok := v.(*answer)
	if !ok {
		return fmt.Errorf("%T is not an answer to metrics", v)
	}
	return a.parse(data.Materialize())
}

// A gzipper compresses for the connections of one client. Level 1 makes about a
// tenth of a message; level 6 would take a quarter longer for a sixth less.
type gzipper struct{ writers sync.Pool }

func newGzip() *gzipper { return &gzipper{} }

// Type is the name of the compression.
func (g *gzipper) Type() string { return "gzip" }

// Do compresses a message.
func (g *gzipper) Do(w io.Writer, p []byte) error {
	z, ok := g.writers.Get().(*gzip.Writer)
	if !ok {
		var err error
		if z, err = gzip.NewWriterLevel(w, gzip.BestSpeed); err != nil {
			return err
		}
	}
	defer g.writers.Put(z)
	z.Reset(w)
	if _, err := z.Write(p); err != nil {
		return err
	}
	return z.Close()
}

// A try is what is to be known of one.
type try struct{ bytes atomic.Int64 }

type tryKey struct{}

// sizes notes how many bytes a try has sent.
type sizes struct{}

// TagRPC leaves the context as it is.
func (sizes) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC notes the size of a request.
func (sizes) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if out, ok := s.(*stats.OutPayload); ok {
		if t, ok := ctx.Value(tryKey{}).(*try); ok {
			t.bytes.Store(int64(out.CompressedLength))
		}
	}
}

// TagConn leaves the context as it is.
func (sizes) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn does nothing.
func (sizes) HandleConn(context.Context, stats.ConnStats) {}
