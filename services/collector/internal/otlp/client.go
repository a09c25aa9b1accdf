package otlp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
)

const (
	exportMethod = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"

	// maxAnswer bounds an answer, and maxHeaders what comes with it, in bytes. An
	// answer may tell of each point that was refused. It is no round number, so that
	// a refusal by this bound is not taken for the receiver's, which is worded alike.
	maxAnswer  = 4<<20 + 1
	maxHeaders = 64 << 10

	// maxDialPause is the longest time between two attempts to connect, but for
	// some jitter.
	maxDialPause = 5 * time.Second
)

// A Compression is how requests are compressed.
type Compression string

// The compressions.
const (
	CompressionGzip Compression = "gzip"
	CompressionNone Compression = "none"
)

// A Config says where the receiver is and how it is spoken to.
type Config struct {
	// Name is the sink's, for the log.
	Name string

	// Target is host:port.
	Target string

	// TLS is nil for a connection in plain text, which Insecure has to ask for.
	TLS      *tls.Config
	Insecure bool

	// Headers go with every request. Their values are secrets.
	Headers map[string]string

	// Compression is gzip when it is empty, as everywhere with OTLP.
	Compression Compression

	// UserAgent is put in front of gRPC's own.
	UserAgent string

	// Version is of this program, for the instrumentation scope.
	Version string

	// Dial makes connections; nil dials Target.
	Dial func(ctx context.Context, address string) (net.Conn, error)

	// Logger is for what an Outcome cannot say.
	Logger *slog.Logger
}

var errTooLarge = errors.New("the request is larger than receivers take")

// ErrConfig says that a Config cannot be used.
var ErrConfig = errors.New("OTLP sink")

// A Client speaks to one receiver. It is a deliver.Transport.
type Client struct {
	conn    *grpc.ClientConn
	headers metadata.MD
	secrets []string
	logger  *slog.Logger
	memory  *memory
	scope   []byte // of all that does not tell another one

	passes sync.Pool // of *pass
	blocks sync.Pool // of *block
}

// New checks a configuration. The connection is made when there is something to
// send.
func New(cfg Config) (*Client, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrConfig, cfg.Name, err)
	}
	c := &Client{headers: metadata.MD{}, logger: cfg.Logger, memory: newMemory(), scope: ownScope(cfg.Version)}
	if c.logger == nil {
		c.logger = slog.New(slog.DiscardHandler)
	}
	c.logger = c.logger.With(slog.String("sink", cfg.Name))
	for k, v := range cfg.Headers {
		c.headers.Set(k, v)
		c.secrets = append(c.secrets, secretsOf(v)...)
	}
	conn, err := grpc.NewClient(cfg.address(), cfg.options()...)
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrConfig, cfg.Name, err)
	}
	c.conn = conn
	return c, nil
}

func (cfg *Config) check() error {
	host, port, err := net.SplitHostPort(cfg.Target)
	switch {
	case err != nil:
		return fmt.Errorf("endpoint: %w", err)
	case host == "" || port == "":
		return fmt.Errorf("endpoint %q is not host:port", cfg.Target)
	case cfg.TLS == nil && !cfg.Insecure:
		return errors.New("neither TLS nor insecure")
	case cfg.TLS != nil && cfg.Insecure:
		return errors.New("both TLS and insecure")
	}
	switch cfg.Compression {
	case "", CompressionGzip, CompressionNone:
	default:
		return fmt.Errorf("compression %q is neither gzip nor none", string(cfg.Compression))
	}
	for k, v := range cfg.Headers {
		if err := checkHeader(strings.ToLower(k), v); err != nil {
			return err
		}
	}
	return nil
}

// checkHeader refuses what gRPC would refuse at every request, or sets itself.
func checkHeader(name, value string) error {
	reserved := name == "content-type" || name == "user-agent" || name == "te" || strings.HasPrefix(name, "grpc-")
	if name == "" || reserved {
		return fmt.Errorf("header %q cannot be set", name)
	}
	for _, r := range name {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-_.", r) {
			return fmt.Errorf("header %q: not a name of a header", name)
		}
	}
	for _, r := range value {
		if !strings.HasSuffix(name, "-bin") && (r < ' ' || r > '~') {
			return fmt.Errorf("header %q: its value is not printable ASCII", name)
		}
	}
	return nil
}

// secretsOf are the parts of a header's value that no error may hold: all of it,
// and what is behind the scheme of an authorization.
func secretsOf(value string) []string {
	secrets := []string{value}
	if _, token, ok := strings.Cut(value, " "); ok {
		secrets = append(secrets, token)
	}
	return secrets
}

func (cfg *Config) address() string {
	if cfg.Dial != nil {
		return "passthrough:///" + cfg.Target
	}
	return "dns:///" + cfg.Target
}

func (cfg *Config) options() []grpc.DialOption {
	creds := insecure.NewCredentials()
	if cfg.TLS != nil {
		creds = credentials.NewTLS(cfg.TLS)
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(), // the engine retries
		grpc.WithMaxHeaderListSize(maxHeaders),
		grpc.WithUserAgent(cfg.UserAgent),
		grpc.WithStatsHandler(sizes{}),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec{}), grpc.MaxCallRecvMsgSize(maxAnswer)),

		// The engine waits between its tries; a connection that waits for two
		// minutes on its own, as gRPC's do, would have these fail meanwhile.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxDialPause},
			MinConnectTimeout: 20 * time.Second,
		}),

		// Receivers end connections with more pings than one in 5 minutes. But
		// with a Timeout, the system ends those on which data is not acknowledged
		// for that long.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 5*time.Minute + 10*time.Second, Timeout: 20 * time.Second}),
	}
	if cfg.Compression != CompressionNone {
		//nolint:staticcheck // gRPC's newer way is one compressor for the whole process, and its own takes several times as long
		options = append(options, grpc.WithCompressor(newGzip()))
	}
	if cfg.Dial != nil {
		options = append(options, grpc.WithContextDialer(cfg.Dial), grpc.WithNoProxy())
	}
	return options
}

func ownScope(version string) []byte {
	var w writer
	w.text(tagScopeVersion, valid(version))
	w.text(tagScopeName, "github.com/rollcall-metrics/rollcall")
	w.close(tagScope, 0)
	return w.b[w.at:]
}

// Protocol names how the receiver is spoken to.
func (c *Client) Protocol() string { return "otlp/grpc" }

// Close ends the connections.
func (c *Client) Close() {
	if err := c.conn.Close(); err != nil {
		c.logger.Warn("closing the connection to a receiver failed", slog.Any("error", err))
	}
}

// NewSeries makes what the series of one table are compiled into.
func (c *Client) NewSeries() deliver.Series { return c.newSeries() }

// Send tries once.
func (c *Client) Send(ctx context.Context, r *deliver.Request) deliver.Outcome {
	m, ok := r.Encoded.(*message)
	if !ok {
		m = c.encode(r)
		r.Encoded = m
	}
	if m.points == 0 {
		m.free()
		r.Encoded = nil
		return m.local(deliver.Outcome{Result: deliver.Delivered, Code: "OK"})
	}
	if m.buffer.Len() > maxMessage {
		m.free()
		r.Encoded = nil
		return deliver.Outcome{Result: deliver.TooLarge, Reason: deliver.ReasonTooLarge, Code: "unsent", Err: errTooLarge}
	}
	try := &try{}
	ctx = metadata.NewOutgoingContext(context.WithValue(ctx, tryKey{}, try), c.headers)
	var to peer.Peer
	var got answer
	err := c.conn.Invoke(ctx, exportMethod, m, &got, grpc.Peer(&to))
	var out deliver.Outcome
	if err != nil {
		out = c.judge(ctx, err, to.Addr != nil)
	} else {
		out = c.accepted(m, &got)
	}
	out.Bytes = int(try.bytes.Load())
	if out.Result != deliver.Retry {
		m.free()
		r.Encoded = nil
	}
	return out
}
