package process_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/emptypb"
)

const grace = 20 * time.Second

// toy is a service whose one method, a stream, does what a test wants.
func toy(handle func(ctx context.Context) error) *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: "toy.Toy",
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{
			StreamName:    "Play",
			ServerStreams: true,
			Handler: func(_ any, stream grpc.ServerStream) error {
				if err := stream.RecvMsg(&emptypb.Empty{}); err != nil {
					return err
				}
				if err := handle(stream.Context()); err != nil {
					return err
				}
				return stream.SendMsg(&emptypb.Empty{})
			},
		}},
	}
}

// A played call is one that is under way; outcome gets its end.
type played struct{ outcome chan error }

// play dials and begins a call.
func play(t *testing.T, lis *bufconn.Listener, request any) *played {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///toy", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	p := &played{make(chan error, 1)}
	go func() {
		defer func() { _ = conn.Close() }()
		stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, "/toy.Toy/Play")
		if err == nil {
			if err = stream.SendMsg(request); err == nil {
				_ = stream.CloseSend()
				err = stream.RecvMsg(&emptypb.Empty{})
			}
		}
		p.outcome <- err
	}()
	return p
}

// stopping serves one call of the toy, stops after a second, and returns how
// long the stop took and what became of the call.
func stopping(t *testing.T, handle func(ctx context.Context) error) (took time.Duration, outcome error) {
	t.Helper()
	lis := bufconn.Listen(1 << 16)
	srv := grpc.NewServer()
	srv.RegisterService(toy(handle), nil)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- process.ServeGRPC(ctx, srv, lis, grace) }()
	call := play(t, lis, &emptypb.Empty{})
	time.Sleep(time.Second)
	begin := time.Now()
	cancel()
	if err := <-served; err != nil {
		t.Errorf("ServeGRPC: %v", err)
	}
	took = time.Since(begin)
	if _, err := lis.Dial(); err == nil {
		t.Error("it still listens")
	}
	return took, <-call.outcome
}

func TestServeGRPCStopsAtOnceWhenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took, err := stopping(t, func(context.Context) error { return nil })
		if took != 0 || err != nil {
			t.Errorf("stopped after %v, the call ended with %v", took, err)
		}
	})
}

func TestServeGRPCLetsCallsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took, err := stopping(t, func(context.Context) error { time.Sleep(8 * time.Second); return nil })
		if took != 7*time.Second || err != nil {
			t.Errorf("stopped after %v, the call ended with %v", took, err)
		}
	})
}

func TestServeGRPCCutsOffAnEndlessStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took, err := stopping(t, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		if took != grace || status.Code(err) != codes.Unavailable {
			t.Errorf("stopped after %v, the call ended with %v", took, err)
		}
	})
}

// TestServeGRPCLeavesADeafHandlerBehind: one that does not hear its context must
// not keep the process.
func TestServeGRPCLeavesADeafHandlerBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took, err := stopping(t, func(context.Context) error { time.Sleep(time.Hour); return nil })
		if took > grace+time.Second || status.Code(err) != codes.Unavailable {
			t.Errorf("stopped after %v, the call ended with %v", took, err)
		}
		time.Sleep(time.Hour)
	})
}

// TestServeGRPCLeavesADeafHandlerWithoutPeerBehind: its peer has gone long
// before the stop.
func TestServeGRPCLeavesADeafHandlerWithoutPeerBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lis := bufconn.Listen(1 << 16)
		srv := grpc.NewServer()
		srv.RegisterService(toy(func(context.Context) error { time.Sleep(time.Hour); return nil }), nil)
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- process.ServeGRPC(ctx, srv, lis, grace) }()
		conn, err := grpc.NewClient("passthrough:///toy", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
		if err != nil {
			t.Fatal(err)
		}
		stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, "/toy.Toy/Play")
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.SendMsg(&emptypb.Empty{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		cancel()
		if err := <-served; err != nil || time.Since(begin) > grace+time.Second {
			t.Errorf("stopped after %v with %v", time.Since(begin), err)
		}
		time.Sleep(time.Hour)
	})
}

// TestServeGRPCStoppedBeforeItBegan is a stop like any other.
func TestServeGRPCStoppedBeforeItBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for i := range 50 { // whichever of the two is first
			lis, srv := bufconn.Listen(1<<16), grpc.NewServer()
			if i%2 == 0 {
				srv.Stop()
			}
			if err := process.ServeGRPC(ctx, srv, lis, grace); err != nil {
				t.Fatal(err)
			}
			if _, err := lis.Dial(); err == nil {
				t.Fatal("it still listens")
			}
		}
	})
}

func TestServeGRPCTellsWhyItCannotServe(t *testing.T) {
	lis := bufconn.Listen(1 << 16)
	_ = lis.Close()
	if err := process.ServeGRPC(t.Context(), grpc.NewServer(), lis, grace); err == nil {
		t.Error("it served on a closed listener")
	}
	broken := &brokenListener{Listener: lis}
	if err := process.ServeGRPC(t.Context(), grpc.NewServer(), broken, grace); !errors.Is(err, errBroken) {
		t.Errorf("error %v", err)
	}
}

var errBroken = errors.New("broken by the test")

type brokenListener struct{ net.Listener }

func (*brokenListener) Accept() (net.Conn, error) { return nil, errBroken }
