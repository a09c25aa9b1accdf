// Package process is what every Rollcall process is made of: listeners, a gRPC
// server with the field's usual services, an HTTP server for metrics and
// probes, logging, and stops that are bounded.
//
// Its invariant: whatever is served here stops within its grace, also while a
// peer keeps a stream open.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"time"

	"google.golang.org/grpc"
)

// Version and Commit tell what was built, and out of what. The build sets them.
var (
	Version = "unknown" //nolint:gochecknoglobals // the linker can set nothing else
	Commit  = "unknown" //nolint:gochecknoglobals // as above
)

// built is what --version tells.
func built() string {
	return fmt.Sprintf("%s (commit %s, %s, %s/%s)", Version, Commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// ErrExposed says that an address other hosts can reach was asked for without TLS,
// and without saying that it may be.
var ErrExposed = errors.New("other hosts could reach it, in plain text")

// Listen listens on a TCP address. Off the loopback it does so only if exposable is
// set.
func Listen(ctx context.Context, address string, exposable bool) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("listen address %q: want host:port", address)
	}
	if !exposable && !loopback(host) {
		return nil, fmt.Errorf("listen on %s: %w", address, ErrExposed)
	}
	lis, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return lis, nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// deafWait is how long a handler is waited for that was cut off.
const deafWait = time.Second

// ServeGRPC serves on lis until ctx ends, then drains for at most grace.
//
// A handler still streaming when grace runs out is cut off: GracefulStop alone
// would wait for it forever. One that does not hear that either is left behind
// a second later.
func ServeGRPC(ctx context.Context, srv *grpc.Server, lis net.Listener, grace time.Duration) error {
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		stopGRPC(srv, grace)
	})
	err := srv.Serve(lis)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, grpc.ErrServerStopped) && ctx.Err() != nil {
		return nil //nolint:nilerr // the stop was there before the server
	}
	return err
}

func stopGRPC(srv *grpc.Server, grace time.Duration) {
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		srv.GracefulStop()
	}()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-drained:
		return
	case <-timer.C:
	}
	srv.Stop()
	timer.Reset(deafWait)
	select {
	case <-drained:
	case <-timer.C:
	}
}

const (
	// maxAnswer is how long an answer over HTTP may take; a query may take two minutes.
	maxAnswer = 3 * time.Minute

	// maxRest is how long a connection is kept between two requests.
	maxRest = 2 * time.Minute
)

// ServeHTTP serves on lis until ctx ends, then drains for at most grace.
func ServeHTTP(ctx context.Context, handler http.Handler, lis net.Listener, grace time.Duration, logger *slog.Logger) error {
	srv := &http.Server{
		Handler:           letGo(handler),
		ConnContext:       withGuarded,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		WriteTimeout:      maxAnswer,
		IdleTimeout:       maxRest,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		if srv.Shutdown(bounded) != nil {
			_ = srv.Close() // the grace has run out; there is nobody to tell
		}
	})
	err := srv.Serve(lis)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

type guardedKey struct{}

// withGuarded keeps a connection for letGo.
func withGuarded(ctx context.Context, conn net.Conn) context.Context {
	if below := guardedBelow(conn); below != nil {
		return context.WithValue(ctx, guardedKey{}, below)
	}
	return ctx
}

// lastRequests is how long before its end a connection is let go of with each
// request. Who asks before that, waits for the answer and asks again on the same
// connection still has time for an answer: none is cut off by the end of a
// certificate that has been renewed.
const lastRequests = maxAnswer + maxRest + maxAnswer

// letGo has clients whose certificate ends soon come back on a new connection.
func letGo(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if conn, ok := r.Context().Value(guardedKey{}).(*guardedConn); ok && conn.ending(lastRequests) {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// NewLogger makes a logger that writes lines of JSON or, for people, of text.
func NewLogger(w io.Writer, level slog.Level, json bool) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if json {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
