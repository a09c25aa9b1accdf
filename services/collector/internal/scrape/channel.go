package scrape

import (
	"container/list"
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
)

// windowBytes bounds what is received ahead of being read: one chunk.
const windowBytes = maxChunk

// A channel is a gRPC connection to one address. Collections of producers behind
// one address share it.
type channel struct {
	address address
	conn    *grpc.ClientConn

	// Guarded by the mu of its channels.
	users   int
	dropped bool          // closed when its last user has gone
	since   time.Time     // idle
	element *list.Element // of idle, nil while it is used
}

// An address is what is dialled, and how; transport only where it is secure.
type address struct {
	hostPort  string
	secure    bool
	transport transportKey
}

// channels keep connections between collections. There is no reconnecting behind
// a collection's back: a connection that failed is dropped, and the next
// collection dials anew. Of a producer that is collected less often than idle
// connections are closed, none is kept at all.
type channels struct {
	dial    dialFunc
	tls     process.ClientTLS
	agent   string
	maxIdle int

	mu    sync.Mutex
	open  map[address]*channel // guarded by mu; not the dropped ones
	idle  list.List            // of *channel; guarded by mu; longest idle first
	timer *time.Timer          // guarded by mu; nil while none is idle
}

func newChannels(cfg *Config) *channels {
	c := &channels{
		dial: checkedDial(cfg.DialContext, cfg.CheckAddr), tls: cfg.TLS, agent: cfg.UserAgent,
		maxIdle: cfg.MaxIdleConns, open: map[address]*channel{},
	}
	if c.maxIdle <= 0 {
		c.maxIdle = DefaultMaxIdleConns
	}
	return c
}

// acquire returns the connection to a target's address, to be released.
func (c *channels) acquire(t *target) (*channel, error) {
	at := address{hostPort: endpoint.HostPort(t.url), secure: t.url.Scheme == "grpcs"}
	if at.secure {
		at.transport = t.access.transport
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := c.open[at]
	if ch == nil {
		conn, err := c.connect(at, &t.access)
		if err != nil {
			return nil, err
		}
		ch = &channel{address: at, conn: conn}
		c.open[at] = ch
	}
	if ch.element != nil {
		c.idle.Remove(ch.element)
		ch.element = nil
	}
	ch.users++
	return ch, nil
}

// connect makes a connection. It is dialled by its first use.
func (c *channels) connect(at address, a *access) (*grpc.ClientConn, error) {
	creds := insecure.NewCredentials()
	if at.secure {
		creds = process.ClientTLS(func() *tls.Config { return tlsFor(c.tls, a) }).Credentials()
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, hostPort string) (net.Conn, error) { return c.dial(ctx, "tcp", hostPort) }),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithDisableHealthCheck(),
		grpc.WithIdleTimeout(0),
		grpc.WithMaxHeaderListSize(maxHeaderBytes),
		grpc.WithStaticStreamWindowSize(windowBytes),
		grpc.WithStaticConnWindowSize(windowBytes),
		grpc.WithReadBufferSize(4 << 10),
		grpc.WithWriteBufferSize(1 << 10), // a request is small
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(chunkCodec{}), grpc.MaxCallRecvMsgSize(maxChunk)),
	}
	if c.agent != "" {
		options = append(options, grpc.WithUserAgent(c.agent))
	}
	return grpc.NewClient("passthrough:///"+at.hostPort, options...)
}

// release gives a connection back. One that is not kept is never used again.
func (c *channels) release(ch *channel, keep bool) {
	c.mu.Lock()
	ch.users--
	if !keep {
		c.drop(ch)
	}
	var closing []*channel
	switch {
	case ch.users > 0:
	case ch.dropped:
		closing = append(closing, ch)
	default:
		ch.since = time.Now()
		ch.element = c.idle.PushBack(ch)
		closing = c.expire(ch.since.Add(-idleConnTimeout))
	}
	c.mu.Unlock()
	closeAll(closing)
}

// drop takes a connection from those that are given out. mu is held.
func (c *channels) drop(ch *channel) {
	if c.open[ch.address] == ch {
		delete(c.open, ch.address)
	}
	ch.dropped = true
}

// expire takes out what is idle since before then, and what is over the bound,
// and sees to it that there will be a next time. mu is held.
func (c *channels) expire(before time.Time) (closing []*channel) {
	for c.idle.Len() > 0 {
		ch, ok := c.idle.Front().Value.(*channel)
		if ok && c.idle.Len() <= c.maxIdle && ch.since.After(before) {
			break
		}
		c.idle.Remove(c.idle.Front())
		if ok {
			ch.element = nil
			c.drop(ch)
			closing = append(closing, ch)
		}
	}
	switch {
	case c.idle.Len() == 0 && c.timer != nil:
		c.timer.Stop()
		c.timer = nil
	case c.idle.Len() > 0 && c.timer == nil:
		c.timer = time.AfterFunc(idleConnTimeout, c.tick)
	}
	return closing
}

// tick closes what has been idle for long enough.
func (c *channels) tick() {
	c.mu.Lock()
	c.timer = nil
	closing := c.expire(time.Now().Add(-idleConnTimeout))
	c.mu.Unlock()
	closeAll(closing)
}

// keep drops those whose digest is not wanted any more.
func (c *channels) keep(wanted func(digest string) bool) {
	c.mu.Lock()
	var closing []*channel
	for _, ch := range c.open {
		if wanted(ch.address.transport.digest) {
			continue
		}
		c.drop(ch)
		if ch.element != nil {
			c.idle.Remove(ch.element)
			ch.element = nil
			closing = append(closing, ch)
		}
	}
	c.mu.Unlock()
	closeAll(closing)
}

// closeIdle closes all connections that nobody uses.
func (c *channels) closeIdle() {
	c.mu.Lock()
	closing := c.expire(time.Now())
	c.mu.Unlock()
	closeAll(closing)
}

func closeAll(channels []*channel) {
	for _, ch := range channels {
		ch.conn.Close()
	}
}
