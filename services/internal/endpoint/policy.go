package endpoint

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// A Policy says which addresses producers may have. The zero value refuses where
// no producer is and secrets are: loopback, link-local (cloud metadata services
// are there, mostly), multicast, unspecified and reserved addresses, the other
// addresses of metadata services, and IPv6 addresses that a router turns into
// one of those.
type Policy struct {
	// Allow, when not empty, lists the only ranges that are allowed. What the zero
	// value refuses stays refused, unless a range in Allow is that very range or
	// lies within it: 0.0.0.0/0 does not mean the metadata service.
	Allow []netip.Prefix

	// Deny lists ranges that are refused, whatever Allow says.
	Deny []netip.Prefix

	// Loopback says that loopback is like any other address.
	Loopback bool
}

// fence is what no producer has, other than loopback.
//
//nolint:gochecknoglobals // a table that is only read
var fence = prefixes(
	"0.0.0.0/8", "240.0.0.0/4", // this network, reserved and broadcast: RFC 6890
	"169.254.0.0/16", "fe80::/10", // link-local: RFC 3927, RFC 4291
	"224.0.0.0/4", "ff00::/8", // multicast: RFC 5771, RFC 4291
	"::/128", // unspecified

	// Metadata services that are not link-local, as their vendors document them.
	"fd00:ec2::/32",          // AWS: IMDS at ::254 ("Access instance metadata for an EC2 instance"), EKS Pod Identity at ::23
	"fd20:ce::254/128",       // Google Compute Engine, "View and query VM metadata"
	"fd00:42::42/128",        // Scaleway, "Use the Metadata API"
	"fd00:a9fe:a9fe::1/128",  // Akamai, "Metadata Service API"
	"fd00:c1::a9fe:a9fe/128", // Oracle Cloud, "Getting Instance Metadata"
	"100.100.100.200/32",     // Alibaba Cloud ECS, "Access instance metadata"
	"168.63.129.16/32",       // Azure, "What is IP address 168.63.129.16?"
	"192.0.0.192/32",         // Oracle Cloud, the older address of its metadata service
)

//nolint:gochecknoglobals // as above
var loopback = prefixes("127.0.0.0/8", "::1/128")

func prefixes(list ...string) []netip.Prefix {
	all := make([]netip.Prefix, len(list))
	for i, s := range list {
		all[i] = netip.MustParsePrefix(s)
	}
	return all
}

// A carrier is a range of IPv6 addresses that have an IPv4 address in them, to
// which some router or host may send what is sent to them.
type carrier struct {
	netip.Prefix
	at     int  // of the address, in bytes
	invert bool // its bits are inverted
}

//nolint:gochecknoglobals // as above
var carriers = []carrier{
	{netip.MustParsePrefix("::/96"), 12, false},           // IPv4-compatible: RFC 4291
	{netip.MustParsePrefix("::ffff:0:0:0/96"), 12, false}, // IPv4-translated: RFC 2765
	{netip.MustParsePrefix("64:ff9b::/96"), 12, false},    // NAT64: RFC 6052
	{netip.MustParsePrefix("64:ff9b:1::/48"), 12, false},  // NAT64 of a site, as /96: RFC 8215
	{netip.MustParsePrefix("2002::/16"), 2, false},        // 6to4: RFC 3056
	{netip.MustParsePrefix("2001::/32"), 4, false},        // Teredo, its server: RFC 4380
	{netip.MustParsePrefix("2001::/32"), 12, true},        // and its client
}

// carried are the IPv4 addresses within an IPv6 address.
func carried(addr netip.Addr) []netip.Addr {
	if !addr.Is6() || addr == netip.IPv6Loopback() {
		return nil
	}
	bytes, all := addr.As16(), []netip.Addr(nil)
	for _, c := range carriers {
		if !c.Contains(addr) {
			continue
		}
		v4 := [4]byte(bytes[c.at : c.at+4])
		for i := range v4 {
			if c.invert {
				v4[i] ^= 0xff
			}
		}
		all = append(all, netip.AddrFrom4(v4))
	}
	// ISATAP has its mark in the middle: RFC 5214.
	if bytes[8]&^2 == 0 && bytes[9] == 0 && bytes[10] == 0x5e && bytes[11] == 0xfe {
		all = append(all, netip.AddrFrom4([4]byte(bytes[12:])))
	}
	return all
}

// CheckAddr reports whether an address may be dialled.
func (p Policy) CheckAddr(addr netip.Addr) error {
	addr = addr.Unmap().WithZone("") // to the kernel, ::ffff:a.b.c.d is a.b.c.d
	if !addr.IsValid() {
		return fmt.Errorf("%w: no address", ErrEndpoint)
	}
	within := carried(addr)
	for _, a := range append(within, addr) {
		if contain(p.Deny, a) {
			return fmt.Errorf("%w: address %s is in a range that is denied", ErrEndpoint, addr)
		}
	}
	if len(p.Allow) > 0 && !contain(p.Allow, addr) {
		return fmt.Errorf("%w: address %s is outside the allowed ranges", ErrEndpoint, addr)
	}
	if f, ok := p.fenced(addr); ok && !p.names(addr, f) {
		return fmt.Errorf("%w: address %s is not allowed (%s)", ErrEndpoint, addr, f)
	}
	for _, a := range within {
		if _, ok := p.fenced(a); ok && !p.names(addr, netip.PrefixFrom(addr, addr.BitLen())) {
			return fmt.Errorf("%w: address %s is not allowed: it leads to %s", ErrEndpoint, addr, a)
		}
	}
	return nil
}

// fenced is the range of the fence that an address is in.
func (p Policy) fenced(addr netip.Addr) (netip.Prefix, bool) {
	has := func(r netip.Prefix) bool { return r.Contains(addr) }
	if i := slices.IndexFunc(fence, has); i >= 0 {
		return fence[i], true
	}
	if i := slices.IndexFunc(loopback, has); i >= 0 && !p.Loopback {
		return loopback[i], true
	}
	return netip.Prefix{}, false
}

// names tells whether Allow has a range with the address in it that is not wider
// than f.
func (p Policy) names(addr netip.Addr, f netip.Prefix) bool {
	return slices.ContainsFunc(p.Allow, func(r netip.Prefix) bool { return r.Contains(addr) && r.Bits() >= f.Bits() })
}

func contain(ranges []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return r.Contains(addr) })
}

// CheckURL checks the address in a URL, however it is spelled. A host name
// passes: what it stands for is checked when it is dialled. To look it up here
// would tell whoever asks what this host's resolver knows, and wait for it.
func (p Policy) CheckURL(u *url.URL) error {
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	if addr, err := netip.ParseAddr(host); err == nil {
		return p.CheckAddr(addr)
	}
	if addr, ok := oldSpelling(host); ok {
		return p.CheckAddr(addr)
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") { // RFC 6761
		if v4 := p.CheckAddr(netip.AddrFrom4([4]byte{127, 0, 0, 1})); v4 != nil && p.CheckAddr(netip.IPv6Loopback()) != nil {
			return v4
		}
	}
	return nil
}

// oldSpelling reads what inet_aton(3) takes for an IPv4 address, and a resolver
// of the C library with it: one to four numbers, decimal, octal after 0 or
// hexadecimal after 0x, of which the last one is all the bytes that are left.
func oldSpelling(host string) (netip.Addr, bool) {
	parts := strings.Split(host, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var n uint64
	for i, s := range parts {
		bits := 8
		if i == len(parts)-1 {
			bits = 8 * (5 - len(parts))
		}
		base := 10
		switch {
		case strings.HasPrefix(s, "0x"):
			s, base = s[2:], 16
		case len(s) > 1 && s[0] == '0':
			s, base = s[1:], 8
		}
		one, err := strconv.ParseUint(s, base, bits)
		if err != nil {
			return netip.Addr{}, false
		}
		n = n<<bits | one
	}
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}), true
}
