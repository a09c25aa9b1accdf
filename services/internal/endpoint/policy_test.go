package endpoint_test

import (
	"errors"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
)

// TestPolicyWithoutAList: the zero value keeps away from where secrets are,
// also through addresses that have another one in them.
func TestPolicyWithoutAList(t *testing.T) {
	for addr, allowed := range map[string]bool{
		"10.1.2.3":               true,
		"192.168.0.1":            true,
		"8.8.8.8":                true,
		"100.100.100.201":        true,
		"169.253.255.255":        true,
		"169.255.0.0":            true,
		"239.255.255.255":        false,
		"240.0.0.0":              false,
		"255.255.255.255":        false,
		"2001:db8::1":            true,
		"fd00::1":                true,
		"fec0::1":                true,
		"::ffff:10.1.2.3":        true,
		"127.0.0.1":              false,
		"127.255.255.255":        false,
		"::1":                    false,
		"::ffff:127.0.0.1":       false,
		"169.254.169.254":        false,
		"169.254.0.0":            false,
		"169.254.255.255":        false,
		"::ffff:169.254.169.254": false,
		"::ffff:a9fe:a9fe":       false,
		"fe80::1":                false,
		"fe80::1%eth0":           false,
		"febf::1":                false,
		"0.0.0.0":                false,
		"0.0.0.1":                false,
		"::":                     false,
		"::%lo":                  false,
		"::ffff:0.0.0.0":         false,
		"224.0.0.1":              false,
		"::ffff:224.0.0.1":       false,
		"ff02::1":                false,
		"ff02::1%eth0":           false,
		"ff0e::1":                false,
		"100.100.100.200":        false,
		"168.63.129.16":          false,
		"192.0.0.192":            false,
		"fd00:ec2::254":          false,
		"fd00:ec2::23":           false,
		"fd00:ec3::254":          true,
		"fd20:ce::254":           false,
		"fd00:42::42":            false,
		"fd00:c1::a9fe:a9fe":     false,
		"fd00:a9fe:a9fe::1":      false,

		// Within another address: a host that is allowed, and one that is not.
		"::10.1.2.3":                         true,
		"::169.254.169.254":                  false,
		"::127.0.0.1":                        false,
		"::ffff:0:10.1.2.3":                  true,
		"::ffff:0:169.254.169.254":           false,
		"64:ff9b::10.1.2.3":                  true,
		"64:ff9b::169.254.169.254":           false,
		"64:ff9b::127.0.0.1":                 false,
		"64:ff9b::100.100.100.200":           false,
		"64:ff9b:1::10.1.2.3":                true,
		"64:ff9b:1:ffff::169.254.169.254":    false,
		"2002:a01:203::1":                    true,
		"2002:a9fe:a9fe::1":                  false,
		"2002:7f00:1::":                      false,
		"2001:0:a01:203::f5fe:fdfc":          true,  // Teredo: server 10.1.2.3, client 10.1.2.3
		"2001:0:a9fe:a9fe::f5fe:fdfc":        false, // its server is the metadata service
		"2001:0:a01:203::5601:5601":          false, // its client is
		"2001:db8::5efe:10.1.2.3":            true,  // ISATAP
		"2001:db8::5efe:169.254.169.254":     false,
		"2001:db8::200:5efe:169.254.169.254": false,
		"2001:db8::100:5efe:169.254.169.254": true, // it is no mark of ISATAP
		"2001:db8:a9fe:a9fe:1::1":            true,
	} {
		checkPolicy(t, endpoint.Policy{}, netip.MustParseAddr(addr), allowed)
	}
	checkPolicy(t, endpoint.Policy{}, netip.Addr{}, false)
}

// TestPolicyOfLoopback: allowed, loopback is like any other address, and the
// rest of the fence stands.
func TestPolicyOfLoopback(t *testing.T) {
	p := endpoint.Policy{Loopback: true}
	for addr, allowed := range map[string]bool{
		"127.0.0.1": true, "127.1.2.3": true, "::1": true, "::ffff:127.0.0.1": true, "64:ff9b::127.0.0.1": true, "10.1.2.3": true,
		"169.254.169.254": false, "0.0.0.0": false, "::": false, "::2": false, "64:ff9b::169.254.169.254": false,
	} {
		checkPolicy(t, p, netip.MustParseAddr(addr), allowed)
	}
	p.Allow = ranges("10.0.0.0/8")
	checkPolicy(t, p, netip.MustParseAddr("127.0.0.1"), false)
	p.Allow, p.Deny = nil, ranges("127.0.0.0/8")
	checkPolicy(t, p, netip.MustParseAddr("127.0.0.1"), false)
	checkPolicy(t, p, netip.MustParseAddr("2002:7f00:1::"), false)
}

// TestPolicyAllowsByName: a wide range does not open the fence, one that is as
// narrow as the fence does, for itself.
func TestPolicyAllowsByName(t *testing.T) {
	for _, c := range []struct {
		allow, addr string
		allowed     bool
	}{
		{"0.0.0.0/0", "10.1.2.3", true},
		{"0.0.0.0/0", "169.254.169.254", false},
		{"0.0.0.0/0", "127.0.0.1", false},
		{"0.0.0.0/0", "100.100.100.200", false},
		{"::/0", "2001:db8::1", true},
		{"::/0", "::1", false},
		{"::/0", "fd00:ec2::254", false},
		{"::/0", "64:ff9b::169.254.169.254", false},
		{"::/0", "64:ff9b::10.1.2.3", true},
		{"100.64.0.0/10", "100.100.100.200", false},
		{"100.64.0.0/10", "100.100.100.201", true},
		{"100.100.100.200/32", "100.100.100.200", true},
		{"169.254.0.0/15", "169.254.7.7", false},
		{"169.254.0.0/16", "169.254.7.7", true},
		{"169.254.7.0/24", "169.254.7.7", true},
		{"169.254.7.0/24", "169.254.169.254", false},
		{"169.254.0.0/16", "127.0.0.1", false},
		{"127.0.0.0/8", "127.0.0.1", true},
		{"127.0.0.0/8", "::1", false},
		{"::1/128", "::1", true},
		{"64:ff9b::/96", "64:ff9b::169.254.169.254", false},
		{"64:ff9b::a9fe:a9fe/128", "64:ff9b::169.254.169.254", true},
	} {
		checkPolicy(t, endpoint.Policy{Allow: ranges(c.allow)}, netip.MustParseAddr(c.addr), c.allowed)
	}
}

// TestPolicyDenies: whatever is allowed, and also within another address.
func TestPolicyDenies(t *testing.T) {
	p := endpoint.Policy{Allow: ranges("10.0.0.0/8", "169.254.7.7/32", "2000::/3"), Deny: ranges("10.9.0.0/16", "169.254.0.0/16", "2001:db8:9::/48")}
	for addr, allowed := range map[string]bool{
		"10.1.2.3": true, "10.9.1.1": false, "::ffff:10.9.1.1": false, "169.254.7.7": false, "2001:db8::1": true, "2001:db8:9::1": false,
		"2002:a09:101::1": false, "2002:a01:203::1": true,
	} {
		checkPolicy(t, p, netip.MustParseAddr(addr), allowed)
	}
	checkPolicy(t, endpoint.Policy{Deny: ranges("0.0.0.0/0")}, netip.MustParseAddr("10.1.2.3"), false)
	checkPolicy(t, endpoint.Policy{Deny: ranges("0.0.0.0/0")}, netip.MustParseAddr("2001:db8::1"), true)
	checkPolicy(t, endpoint.Policy{Deny: []netip.Prefix{{}}}, netip.MustParseAddr("10.1.2.3"), true)
}

func ranges(list ...string) []netip.Prefix {
	all := make([]netip.Prefix, len(list))
	for i, s := range list {
		all[i] = netip.MustParsePrefix(s)
	}
	return all
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
	for _, s := range []string{"http://" + host + "/", "grpc://" + host + ":1", "https://" + host + ":9100/metrics"} {
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
		"http://metadata.google.internal/", "http://169.254.169.254.nip.example/", "http://0x/", "http://08.1/", "http://1.2.3.4.5/",
		"http://4294967296/", "http://1.2.3.256/", "http://256.1/", "http://0xg/", "http://localhost.example/", "http://notlocalhost/",
		"http://169.254.1_0.1/", "http://482910473829/",
	} {
		for _, p := range []endpoint.Policy{{}, {Allow: ranges("10.0.0.0/8")}} {
			if err := p.CheckURL(parse(t, s)); err != nil {
				t.Errorf("CheckURL(%q) = %v", s, err)
			}
		}
	}
}

// TestPolicyKnowsOldSpellings: a resolver of the C library takes them for
// addresses. So they are refused with them, not only when they are dialled.
func TestPolicyKnowsOldSpellings(t *testing.T) {
	for host, addr := range map[string]string{
		"2852039166": "169.254.169.254", "0xa9fea9fe": "169.254.169.254", "0XA9FEA9FE": "169.254.169.254", "025177524776": "169.254.169.254",
		"0251.0376.0251.0376": "169.254.169.254", "0xa9.0xfe.0xa9.0xfe": "169.254.169.254", "169.254.43518": "169.254.169.254",
		"169.16689662": "169.254.169.254", "169.254.169.254.": "169.254.169.254", "2852039166.": "169.254.169.254",
		"169.0xfe.0251.254": "169.254.169.254", "00000251.254.169.254": "169.254.169.254",
		"127.1": "127.0.0.1", "0": "0.0.0.0", "0x7f.1": "127.0.0.1", "017700000001": "127.0.0.1", "2130706433": "127.0.0.1",
		"localhost": "127.0.0.1", "LOCALHOST": "127.0.0.1", "localhost.": "127.0.0.1", "a.b.localhost": "127.0.0.1",
		"167838211": "10.1.2.3", "10.66051": "10.1.2.3",
	} {
		at := netip.MustParseAddr(addr)
		for _, p := range []endpoint.Policy{{}, {Loopback: true}, {Allow: ranges("10.0.0.0/8")}, {Deny: ranges("10.0.0.0/8")}} {
			want := p.CheckAddr(at)
			if err := p.CheckURL(parse(t, "http://"+host+":80/")); (err == nil) != (want == nil) {
				t.Errorf("CheckURL(%q) = %v, %s is %v", host, err, addr, want)
			}
		}
	}
	if err := (endpoint.Policy{Allow: ranges("::1/128")}).CheckURL(parse(t, "http://localhost/")); err != nil {
		t.Errorf("localhost is also ::1: %v", err)
	}
}

func parse(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := endpoint.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
