package process

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	channelz "google.golang.org/grpc/channelz/service"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
)

// GRPCConfig is what a gRPC server needs.
type GRPCConfig struct {
	Logger     *slog.Logger
	Registerer prometheus.Registerer

	// Unary and Stream see each call after metrics and logging, and before the
	// recovery from panics, whose error passes through them.
	Unary  []grpc.UnaryServerInterceptor
	Stream []grpc.StreamServerInterceptor

	// Tap, if set, sees each call before any message of it is read.
	Tap tap.ServerInHandle

	// TLS is nil for plain text.
	TLS *tls.Config

	// Introspection adds reflection and channelz, which show what is served and
	// who is connected.
	Introspection bool

	// Options are added to the server's.
	Options []grpc.ServerOption
}

const (
	// maxRequest bounds a request, in bytes.
	maxRequest = 4 << 20

	// pingTimeout is how long a peer may be silent that is asked.
	pingTimeout = 10 * time.Second

	// maxIdle is how long a connection is kept that nobody calls on. It is longer
	// than what lies between two calls of those who keep one.
	maxIdle = 5 * time.Minute
)

// NewGRPCServer makes a server with health, recovery from panics, a log line and
// metrics for each call, and bounds on what a peer may take.
func NewGRPCServer(c GRPCConfig) (*grpc.Server, *health.Server) {
	metrics := grpcprom.NewServerMetrics()
	c.Registerer.MustRegister(metrics)
	log := logging.LoggerFunc(func(ctx context.Context, level logging.Level, msg string, fields ...any) {
		c.Logger.Log(ctx, slog.Level(level), msg, fields...) //nolint:sloglint // the middleware's own messages
	})
	logOptions := []logging.Option{
		logging.WithLogOnEvents(logging.FinishCall),
		logging.WithLevels(callLevel),
	}
	panicked := func(ctx context.Context, p any) error {
		c.Logger.ErrorContext(ctx, "a handler panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		return status.Error(codes.Internal, "internal error")
	}
	recoverOption := recovery.WithRecoveryHandlerContext(panicked)
	options := []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(metrics.UnaryServerInterceptor(), logging.UnaryServerInterceptor(log, logOptions...)),
		grpc.ChainStreamInterceptor(metrics.StreamServerInterceptor(), logging.StreamServerInterceptor(log, logOptions...)),
		// Once around what asks who calls, and once within, whose error that maps.
		grpc.ChainUnaryInterceptor(recovery.UnaryServerInterceptor(recoverOption)),
		grpc.ChainStreamInterceptor(recovery.StreamServerInterceptor(recoverOption)),
		grpc.ChainUnaryInterceptor(c.Unary...),
		grpc.ChainStreamInterceptor(c.Stream...),
		grpc.ChainUnaryInterceptor(recovery.UnaryServerInterceptor(recoverOption)),
		grpc.ChainStreamInterceptor(recovery.StreamServerInterceptor(recoverOption)),
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.MaxHeaderListSize(16 << 10),
		grpc.MaxConcurrentStreams(1000),
		grpc.ConnectionTimeout(10 * time.Second),
		// Most connections are idle most of the time: 32 KiB to read into would be
		// most of what each of them costs. Long messages are read past it.
		grpc.ReadBufferSize(8 << 10),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: maxIdle, Time: 30 * time.Second, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}
	options = append(options, transportOptions(c.TLS)...)
	if c.Tap != nil {
		options = append(options, grpc.InTapHandle(func(ctx context.Context, info *tap.Info) (_ context.Context, err error) {
			defer func() {
				if p := recover(); p != nil {
					err = panicked(ctx, p)
				}
			}()
			return c.Tap(ctx, info)
		}))
	}
	srv := grpc.NewServer(append(options, c.Options...)...)
	checks := health.NewServer()
	healthv1.RegisterHealthServer(srv, checks)
	if c.Introspection {
		reflection.Register(srv)
		channelz.RegisterChannelzServiceToServer(srv)
	}
	return srv, checks
}

// callLevel makes calls that went as they should cheap to log.
func callLevel(code codes.Code) logging.Level {
	switch code {
	case codes.OK, codes.Canceled, codes.Unauthenticated, codes.PermissionDenied: // who refuses tells of it, within a bound
		return logging.LevelDebug
	case codes.Internal, codes.Unknown, codes.DataLoss, codes.Unimplemented:
		return logging.LevelError
	default:
		return logging.LevelInfo
	}
}
