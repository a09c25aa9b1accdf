package process_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/emptypb"
)

// A frozenConn swallows what is written once it is frozen, as a host does that
// was cut off: the other side hears nothing, and no end either.
type frozenConn struct {
	net.Conn
	frozen *atomic.Bool
}

func (c *frozenConn) Write(p []byte) (int, error) {
	if c.frozen.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// playUntil begins a call of the toy, and falls silent once it has begun. The
// returned function ends the client.
func playUntil(t *testing.T, lis *bufconn.Listener, begun <-chan time.Time) (hangUp func()) {
	t.Helper()
	var frozen atomic.Bool
	conn, err := grpc.NewClient("passthrough:///toy", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			c, err := lis.DialContext(ctx)
			return &frozenConn{c, &frozen}, err
		}))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, "/toy.Toy/Play")
	if err == nil {
		err = errors.Join(stream.SendMsg(&emptypb.Empty{}), stream.CloseSend())
	}
	if err != nil {
		t.Fatal(err)
	}
	<-begun
	frozen.Store(true)
	return func() { _ = conn.Close() }
}
