package process

import (
	"context"
	"net"
	"net/netip"
	"syscall"

	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
)

// EndpointFlags say which addresses producers may have.
type EndpointFlags struct {
	AllowEndpointRange []netip.Prefix `group:"produce" placeholder:"CIDR" help:"Producers have addresses in these ranges only (repeatable). Default: all but loopback, link-local, multicast, unspecified and reserved ones and those of cloud metadata services, which a wider range does not allow either. Names are checked by the collector when it dials."`
	DenyEndpointRange  []netip.Prefix `group:"produce" placeholder:"CIDR" help:"No producer has an address in these ranges (repeatable), whatever else is allowed."`

	AllowLoopbackEndpoints string `default:"auto" enum:"auto,yes,no" group:"produce" help:"Whether producers may be at loopback addresses: yes, no, or auto, which is yes when --listen and --http-listen are loopback addresses."`
}

// Policy checks the flags. serve says where the service listens.
func (f *EndpointFlags) Policy(serve *ServeFlags) (endpoint.Policy, error) {
	p := endpoint.Policy{Allow: f.AllowEndpointRange, Deny: f.DenyEndpointRange, Loopback: f.AllowLoopbackEndpoints == "yes"}
	if err := CheckRanges("--allow-endpoint-range", p.Allow); err != nil {
		return p, err
	}
	if err := CheckRanges("--deny-endpoint-range", p.Deny); err != nil {
		return p, err
	}
	if f.AllowLoopbackEndpoints == "auto" {
		p.Loopback = onLoopback(serve.Listen) && onLoopback(serve.HTTPListen)
	}
	return p, nil
}

// onLoopback tells whether only this machine reaches an address.
func onLoopback(address string) bool {
	host, _, err := splitAddress(address)
	return err == nil && loopback(host)
}

// DialWithin connects over TCP, to addresses that a policy allows: to where a peer
// says that it answers, which may be anywhere.
func DialWithin(p endpoint.Policy) func(ctx context.Context, address string) (net.Conn, error) {
	d := net.Dialer{ControlContext: func(_ context.Context, _, resolved string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(resolved)
		if err != nil {
			return err
		}
		return p.CheckAddr(at.Addr())
	}}
	return func(ctx context.Context, address string) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) }
}
