package scrape

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/process"
)

// idleConnTimeout is for how long a connection is kept for the next collection.
// Of a producer that is collected less often it is not kept at all.
const idleConnTimeout = 2 * time.Minute

// maxHeaderBytes bounds the headers of an answer.
const maxHeaderBytes = 64 << 10

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// maxTransports bounds those that are kept. A transport is for one server name
// that an assignment tells, so they could be as many as the assignments.
const maxTransports = 256

// The bounds of HTTP/2: how much of an answer is taken that nobody has read yet,
// of one stream and of one connection, and after how long a silent connection is
// asked whether it is still there. Without, one that is not would be used for
// every collection.
const (
	streamWindow = 256 << 10
	connWindow   = 1 << 20
	pingAfter    = 30 * time.Second
	pingTimeout  = 15 * time.Second
)

// A transportKey names a transport: targets with the same one share it.
type transportKey struct {
	digest string // of the credential's TLS
	server string // the server name that the assignment tells
}

// transports are HTTP clients by what they show and whom they expect. They are
// safe for concurrent use.
type transports struct {
	make func(*access) *http.Transport

	mu   sync.Mutex
	tick uint64 // of the last use; guarded by mu, as what follows
	open map[transportKey]*usedTransport
}

// A usedTransport is a transport and when it was used last.
type usedTransport struct {
	*http.Transport
	tick uint64
}

func newTransports(cfg *Config) *transports {
	return &transports{
		make: func(a *access) *http.Transport { return newTransport(cfg, a) },
		open: map[transportKey]*usedTransport{},
	}
}

// to is the transport for a way of access. Over the bound, the one that was not
// used for the longest time gives way: who is at it finishes, and its
// connections are not kept.
func (p *transports) to(a *access) *http.Transport {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tick++
	used, ok := p.open[a.transport]
	if !ok {
		if len(p.open) >= maxTransports {
			p.evict()
		}
		used = &usedTransport{Transport: p.make(a)}
		p.open[a.transport] = used
	}
	used.tick = p.tick
	return used.Transport
}

// evict closes the transport that was used the longest time ago. mu is held.
func (p *transports) evict() {
	var oldest transportKey
	first := true
	for key, used := range p.open {
		if first || used.tick < p.open[oldest].tick {
			oldest, first = key, false
		}
	}
	p.open[oldest].CloseIdleConnections()
	delete(p.open, oldest)
}

// keep closes those whose digest is not wanted any more.
func (p *transports) keep(wanted func(digest string) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, used := range p.open {
		if !wanted(key.digest) {
			used.CloseIdleConnections()
			delete(p.open, key)
		}
	}
}

// close closes the connections that nobody uses.
func (p *transports) close() { p.keep(func(string) bool { return false }) }

// tlsFor is the TLS configuration of a way of access, for a connection that is made
// now; base is that of the collector, nil for the system's roots.
func tlsFor(base process.ClientTLS, a *access) *tls.Config {
	c := a.tls
	if c == nil && base != nil {
		c = base()
	}
	c = c.Clone()
	if a.transport.server == "" {
		return c
	}
	if c == nil {
		c = new(tls.Config)
	}
	c.ServerName = a.transport.server
	return c
}

// newTransport is HTTP/1.1 with kept connections and, over TLS, HTTP/2, without
// proxies, and without decompression: that is limited elsewhere.
func newTransport(cfg *Config, a *access) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	idle := cfg.MaxIdleConns
	if idle <= 0 {
		idle = DefaultMaxIdleConns
	}
	dial := checkedDial(cfg.DialContext, cfg.CheckAddr)
	t := &http.Transport{
		DialContext:            dial,
		TLSClientConfig:        tlsFor(nil, a),
		TLSHandshakeTimeout:    handshakeTimeout,
		DisableCompression:     true,
		MaxIdleConns:           idle,
		MaxIdleConnsPerHost:    8, // producers behind one address are few
		IdleConnTimeout:        idleConnTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		WriteBufferSize:        1 << 10, // a request is small
		Protocols:              protocols,
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerStream:     streamWindow,
			MaxReceiveBufferPerConnection: connWindow,
			SendPingTimeout:               pingAfter,
			PingTimeout:                   pingTimeout,
		},
	}
	if cfg.TLS != nil && a.tls == nil {
		t.DialTLSContext = dialTLS(dial, func() *tls.Config { return tlsFor(cfg.TLS, a) })
	}
	return t
}

// handshakeTimeout bounds the beginning of TLS.
const handshakeTimeout = 30 * time.Second

// dialTLS opens connections with the configuration of their time: that of a
// transport stays as it is.
func dialTLS(dial dialFunc, config func() *tls.Config) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c := config()
		if c.ServerName == "" {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			c.ServerName = host
		}
		c.NextProtos = []string{"h2", "http/1.1"}
		raw, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
		defer cancel()
		conn := tls.Client(raw, c)
		if err := conn.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, err
		}
		return conn, nil
	}
}

// checkedDial opens connections to addresses that check allows.
func checkedDial(dial dialFunc, check func(netip.Addr) error) dialFunc {
	if dial == nil {
		d := &net.Dialer{Timeout: 30 * time.Second}
		if check != nil {
			d.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
				return checkAddress(address, check)
			}
		}
		return d.DialContext
	}
	if check == nil {
		return dial
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if err := checkAddress(conn.RemoteAddr().String(), check); err != nil {
			conn.Close()
			return nil, err
		}
		return conn, nil
	}
}

// checkAddress asks check about the address of a socket. One that cannot be
// told is refused.
func checkAddress(address string, check func(netip.Addr) error) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("address %q cannot be checked: %w", address, err)
	}
	// ::ffff:127.0.0.1 is 127.0.0.1 to the kernel.
	return check(ap.Addr().Unmap())
}
