package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// An ExternalConfig says which etcd keeps the roster. Only Endpoints is needed.
type ExternalConfig struct {
	// Endpoints are the URLs of its members, all http or all https. Calls are
	// spread over those that can be reached.
	Endpoints []string

	// TLS is how https endpoints are spoken to, each connection as of its time. Nil:
	// as the system would.
	TLS process.ClientTLS

	// Username and Password authenticate by etcd's own user database: both or
	// none. The user needs to read and write the keys that begin with
	// /rollcall/v1/.
	Username string
	Password string

	// DialTimeout bounds each attempt at a connection. Zero: DefaultDialTimeout.
	DialTimeout time.Duration

	// Logger is told of the choice. Nil: nobody is.
	Logger *slog.Logger
}

// DefaultDialTimeout bounds an attempt at a connection.
const DefaultDialTimeout = 5 * time.Second

// A member that is gone without a word is found out within the sum of both: of
// the watch, which must not be silent for longer than a session lives.
const (
	pingInterval = 10 * time.Second // grpc allows no less
	pingTimeout  = 4 * time.Second
)

// maxRedialDelay bounds the pause between attempts to reach a member that is
// down. grpc's own is 2 minutes: a member that is back must be of use before the
// next one fails.
const maxRedialDelay = 3 * time.Second

// external is an etcd of other processes, and our client of it.
type external struct {
	etcd
	client *clientv3.Client
}

// OpenExternal opens the roster in an etcd of its own processes. It connects to
// nobody yet: while no member can be reached, or none takes the password, every
// operation waits or fails, and goes on when that has changed.
func OpenExternal(ctx context.Context, config ExternalConfig) (*Store, error) {
	if err := config.Check(); err != nil {
		return nil, fmt.Errorf("open the store in an external etcd: %w", err)
	}
	if config.DialTimeout == 0 {
		config.DialTimeout = DefaultDialTimeout
	}
	var opened atomic.Bool
	var secured []grpc.DialOption
	if config.TLS != nil { // in the place of what the client makes of https
		secured = append(secured, grpc.WithTransportCredentials(config.TLS.Credentials()))
	}
	client, err := clientv3.New(clientv3.Config{
		Context:              context.WithoutCancel(ctx), // until Close
		Endpoints:            config.Endpoints,
		Username:             config.Username,
		Password:             config.Password,
		DialTimeout:          config.DialTimeout,
		DialKeepAliveTime:    pingInterval,
		DialKeepAliveTimeout: pingTimeout,
		PermitWithoutStream:  true,
		// The limits on messages are clientv3's: 2 MiB out, which is more than etcd
		// takes, and any size in, as pages and batches are bounded here.
		Logger: zap.NewNop(), // callers tell what fails; this would tell each attempt
		DialOptions: append(secured,
			grpc.WithChainUnaryInterceptor(deferAuth(&opened), committedOnce),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxRedialDelay},
				MinConnectTimeout: config.DialTimeout,
			}),
		),
	})
	if err != nil {
		return nil, fmt.Errorf("open the store in an external etcd: %w", err)
	}
	opened.Store(true)
	if config.Logger != nil {
		config.Logger.InfoContext(ctx, "the roster is in an external etcd", "endpoints", config.Endpoints, "username", config.Username)
	}
	e := &external{etcdOf(client), client}
	return newStore(e, e, func() error {
		if err := client.Close(); err != nil && !errors.Is(err, context.Canceled) {
			return fmt.Errorf("close the client of etcd: %w", err)
		}
		return nil
	}), nil
}

// Check refuses what could not work with any etcd.
func (c ExternalConfig) Check() error {
	if len(c.Endpoints) == 0 {
		return errors.New("no endpoints are given")
	}
	var scheme string
	for _, endpoint := range c.Endpoints {
		u, err := url.Parse(endpoint)
		switch {
		case err != nil || u.Host == "" || u.Port() == "" || u.Scheme != "http" && u.Scheme != "https":
			return fmt.Errorf("endpoint %q: want http://host:port or https://host:port", endpoint)
		case u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "":
			return fmt.Errorf("endpoint %q: want nothing but a host and a port", u.Redacted())
		case scheme != "" && scheme != u.Scheme:
			// The client would take the scheme of the first for all.
			return errors.New("endpoints with http and with https: want one of the two")
		}
		scheme = u.Scheme
	}
	switch {
	case c.TLS != nil && scheme != "https":
		return errors.New("TLS is asked for, and the endpoints are http")
	case (c.Username == "") != (c.Password == ""):
		return errors.New("want a user name and a password, or neither")
	case c.DialTimeout < 0:
		return fmt.Errorf("a dial timeout of %v", c.DialTimeout)
	}
	return nil
}

// deferAuth has the client be made without the word of any server: it would want
// a token first, and fail for good without one. Later it gets one whenever a
// server asks for it, and for each stream.
func deferAuth(opened *atomic.Bool) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if method == etcdserverpb.Auth_Authenticate_FullMethodName && !opened.Load() {
			return rpctypes.ErrGRPCAuthNotEnabled
		}
		return invoke(ctx, method, req, reply, conn, opts...)
	}
}

// committedOnce has no transaction tried again of which nothing is known: the
// client would, where it takes the server's deadline for its own. The second
// would find what the first has written and call it somebody else's.
func committedOnce(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, conn, opts...)
	if method != etcdserverpb.KV_Txn_FullMethodName || ctx.Err() != nil {
		return err
	}
	if code := status.Code(err); code == codes.DeadlineExceeded || code == codes.Canceled {
		return status.Errorf(codes.Unknown, "etcd gave up: %v", err)
	}
	return err
}
