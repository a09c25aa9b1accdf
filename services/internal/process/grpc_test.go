package process_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// A book is what was logged.
type book struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *book) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *book) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// serveToy serves the toy with all that a process has.
func serveToy(t *testing.T, handle func(ctx context.Context) error, before ...grpc.StreamServerInterceptor) (*bufconn.Listener, *book) {
	t.Helper()
	lis, log := bufconn.Listen(1<<16), &book{}
	srv, _ := process.NewGRPCServer(process.GRPCConfig{
		Logger: process.NewLogger(log, slog.LevelDebug, true), Registerer: prometheus.NewRegistry(),
		Stream: before, Options: []grpc.ServerOption{grpc.WaitForHandlers(true)},
	})
	srv.RegisterService(toy(handle), nil)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(lis) }()
	t.Cleanup(func() {
		srv.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return lis, log
}

// TestAPanicCostsOneCall: the peer learns nothing of it, the log everything, and
// the process lives.
func TestAPanicCostsOneCall(t *testing.T) {
	for _, where := range []string{"in the handler", "before it"} {
		t.Run(where, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				strike := func(here string) {
					if here == where {
						if calls++; calls == 1 {
							panic("struck by the test")
						}
					}
				}
				lis, log := serveToy(t, func(context.Context) error {
					strike("in the handler")
					return nil
				}, func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
					strike("before it")
					return handler(srv, stream)
				})
				err := <-play(t, lis, &emptypb.Empty{}).outcome
				if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "struck") {
					t.Errorf("the peer is told %v", err)
				}
				synctest.Wait()
				if l := log.String(); !strings.Contains(l, "struck by the test") || !strings.Contains(l, "grpc_test.go") {
					t.Errorf("logged is %s", l)
				}
				if err := <-play(t, lis, &emptypb.Empty{}).outcome; err != nil {
					t.Errorf("the next call: %v", err)
				}
			})
		})
	}
}

func TestARequestIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lis, _ := serveToy(t, func(context.Context) error { return nil })
		for size, want := range map[int]codes.Code{3 << 20: codes.OK, 5 << 20: codes.ResourceExhausted} {
			err := <-play(t, lis, wrapperspb.Bytes(make([]byte, size))).outcome
			if status.Code(err) != want {
				t.Errorf("%d bytes: %v", size, err)
			}
		}
	})
}

// TestASilentPeerIsLetGo: a stream whose peer does not even answer pings ends.
func TestASilentPeerIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun, ended := make(chan time.Time, 1), make(chan time.Duration, 1)
		lis, _ := serveToy(t, func(ctx context.Context) error {
			begin := time.Now()
			begun <- begin
			<-ctx.Done()
			ended <- time.Since(begin)
			return ctx.Err()
		})
		hangUp := playUntil(t, lis, begun)
		defer hangUp()
		if took := <-ended; took > 45*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}
