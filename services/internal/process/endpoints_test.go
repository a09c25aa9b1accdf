package process_test

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
)

// TestLoopbackEndpoints: by itself, a service takes endpoints on loopback only
// while nobody on another host can ask it to.
func TestLoopbackEndpoints(t *testing.T) {
	for _, c := range []struct {
		flag, listen, http string
		want               bool
	}{
		{"auto", "127.0.0.1:7470", "127.0.0.1:7471", true},
		{"auto", "localhost:7470", "[::1]:7471", true},
		{"auto", "0.0.0.0:7470", "127.0.0.1:7471", false},
		{"auto", "127.0.0.1:7470", ":7471", false},
		{"auto", "127.0.0.1:7470", "[::]:7471", false},
		{"auto", "10.0.0.1:7470", "10.0.0.1:7471", false},
		{"auto", "registry.example:7470", "127.0.0.1:7471", false},
		{"yes", "0.0.0.0:7470", "0.0.0.0:7471", true},
		{"no", "127.0.0.1:7470", "127.0.0.1:7471", false},
	} {
		f := process.EndpointFlags{AllowLoopbackEndpoints: c.flag}
		p, err := f.Policy(&process.ServeFlags{Listen: c.listen, HTTPListen: c.http})
		if err != nil || p.Loopback != c.want {
			t.Errorf("%+v: %+v, %v", c, p, err)
		}
	}
}

func TestEndpointRangesAreChecked(t *testing.T) {
	bad := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/8")}
	for _, f := range []process.EndpointFlags{{AllowEndpointRange: bad}, {DenyEndpointRange: bad}} {
		if p, err := f.Policy(&process.ServeFlags{}); err == nil {
			t.Errorf("%+v: taken as %+v", f, p)
		}
	}
}

// TestDialWithin: the address itself is asked about, however it was written.
func TestDialWithin(t *testing.T) {
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	for _, c := range []struct {
		policy  endpoint.Policy
		address string
		allowed bool
	}{
		{endpoint.Policy{}, lis.Addr().String(), false},
		{endpoint.Policy{Loopback: true}, lis.Addr().String(), true},
		{endpoint.Policy{Loopback: true}, "169.254.169.254:80", false},
		{endpoint.Policy{Loopback: true}, "[64:ff9b::a9fe:a9fe]:80", false},
		{endpoint.Policy{Loopback: true}, "[::ffff:169.254.169.254]:80", false},
	} {
		conn, err := process.DialWithin(c.policy)(t.Context(), c.address)
		if err == nil {
			conn.Close()
		}
		if (err == nil) != c.allowed || !c.allowed && !errors.Is(err, endpoint.ErrEndpoint) {
			t.Errorf("%s with %+v: %v", c.address, c.policy, err)
		}
	}
}
