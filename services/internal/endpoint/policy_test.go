package endpoint_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
)

func TestPolicyWithoutAList(t *testing.T) {
	for addr, allowed := range map[string]bool{
		"127.0.0.1":              true,
		"10.1.2.3":               true,
		"192.168.0.1":            true,
		"8.8.8.8":                true,
		"169.253.255.255":        true,
		"169.255.0.0":            true,
		"::1":                    true,
		"2001:db8::1":            true,
		"fd00::1":                true,
		"fec0::1":                true,
		"::ffff:10.1.2.3":        true,
		"169.254.169.254":        false,
		"169.254.0.0":            false,
		"169.254.255.255":        false,
		"::ffff:169.254.169.254": false,
		"::ffff:a9fe:a9fe":       false,
		"fe80::1":                false,
		"fe80::1%eth0":           false,
		"febf::1":                false,
		"0.0.0.0":                false,
		"::":                     false,
		"::%lo":                  false,
		"::ffff:0.0.0.0":         false,
		"224.0.0.1":              false,
		"239.255.255.255":        false,
		"::ffff:224.0.0.1":       false,
		"ff02::1":                false,
		"ff02::1%eth0":           false,
		"ff0e::1":                false,
	} {
		checkPolicy(t, endpoint.Policy{}, netip.MustParseAddr(addr), allowed)
	}
	checkPolicy(t, endpoint.Policy{}, netip.Addr{}, false)
}

func TestPolicyWithAList(t *testing.T) {
	p := endpoint.Policy{Allow: []netip.Prefix{
		netip.MustParsePrefix("10.1.2.3/16"), // not masked
		netip.MustParsePrefix("192.0.2.7/32"),
		netip.MustParsePrefix("2001:db8::/32"),
		netip.MustParsePrefix("fe80::/10"),
	}}
	for addr, allowed := range map[string]bool{
		"10.1.0.0":           true,
		"10.1.255.255":       true,
		"::ffff:10.1.2.3":    true,
		"192.0.2.7":          true,
		"2001:db8:ffff::1":   true,
		"fe80::1":            true, // who lists it wants it
		"fe80::1%eth0":       true,
		"10.0.255.255":       false,
		"10.2.0.0":           false,
		"192.0.2.8":          false,
		"::ffff:192.0.2.8":   false,
		"::10.1.2.3":         false, // IPv4-compatible is not IPv4
		"64:ff9b::10.1.2.3":  false,
		"2001:db7::1":        false,
		"127.0.0.1":          false,
		"::1":                false,
		"169.254.169.254":    false,
		"0.0.0.0":            false,
		"::":                 false,
		"ff02::1":            false,
		"::ffff:169.254.0.1": false,
	} {
		checkPolicy(t, p, netip.MustParseAddr(addr), allowed)
	}
	checkPolicy(t, p, netip.Addr{}, false)
	// A list of nothing valid allows nothing: it is not the zero value.
	checkPolicy(t, endpoint.Policy{Allow: []netip.Prefix{{}}}, netip.MustParseAddr("10.0.0.1"), false)
	checkPolicy(t, endpoint.Policy{Allow: []netip.Prefix{{}}}, netip.Addr{}, false)
}

func checkPolicy(t *testing.T, p endpoint.Policy, addr netip.Addr, allowed bool) {
	t.Helper()
	err := p.CheckAddr(addr)
	if (err == nil) != allowed {
		t.Errorf("CheckAddr(%s) with %v = %v, want allowed %v", addr, p.Allow, err, allowed)
	}
	if err != nil && !errors.Is(err, endpoint.ErrEndpoint) {
		t.Errorf("CheckAddr(%s) = %v, does not wrap ErrEndpoint", addr, err)
	}
	if !addr.IsValid() {
		return
	}
	host := addr.String()
	if addr.Is6() {
		host = "[" + strings.ReplaceAll(host, "%", "%25") + "]"
	}
	for _, s := range []string{"http://" + host + "/", "https://" + host + ":9100/metrics"} {
		u, perr := endpoint.Parse(s)
		if perr != nil {
			t.Errorf("Parse(%q) = %v", s, perr)
			continue
		}
		if uerr := p.CheckURL(u); (uerr == nil) != (err == nil) {
			t.Errorf("CheckURL(%q) = %v, CheckAddr = %v", s, uerr, err)
		}
	}
}

// What a name stands for is not known before it is dialled; then CheckAddr is
// asked.
func TestPolicyLeavesNamesToTheDialler(t *testing.T) {
	for _, s := range []string{
		"http://metadata.google.internal/", "http://2852039166/", "http://0xa9fea9fe/", "http://0251.0376.0251.0376/",
		"http://169.254.43518/", "http://169.254.169.254./", "http://169.254.169.254.nip.example/",
	} {
		u, err := endpoint.Parse(s)
		if err != nil {
			t.Errorf("Parse(%q) = %v", s, err)
			continue
		}
		if err := (endpoint.Policy{Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}).CheckURL(u); err != nil {
			t.Errorf("CheckURL(%q) = %v", s, err)
		}
	}
}
