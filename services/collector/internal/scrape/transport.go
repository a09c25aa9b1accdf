package scrape

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"
)

// idleConnTimeout is for how long a connection is kept for the next collection.
// Of a producer that is collected less often it is not kept at all.
const idleConnTimeout = 2 * time.Minute

// maxHeaderBytes bounds the headers of an answer.
const maxHeaderBytes = 64 << 10

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// newTransport is HTTP/1.1 with kept connections, without proxies, and without
// decompression: that is limited elsewhere.
func newTransport(cfg *Config) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	idle := cfg.MaxIdleConns
	if idle <= 0 {
		idle = DefaultMaxIdleConns
	}
	return &http.Transport{
		DialContext:            checkedDial(cfg.DialContext, cfg.CheckAddr),
		TLSClientConfig:        cfg.TLS.Clone(),
		TLSHandshakeTimeout:    30 * time.Second,
		DisableCompression:     true,
		MaxIdleConns:           idle,
		MaxIdleConnsPerHost:    8, // producers behind one address are few
		IdleConnTimeout:        idleConnTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		WriteBufferSize:        1 << 10, // a request is small
		Protocols:              protocols,
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
