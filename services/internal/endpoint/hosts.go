package endpoint

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// maxHosts bounds a list of hosts.
const maxHosts = 1000

// Hosts are the endpoints that something is for: names, *.domain for all names
// below a domain, addresses, ranges of addresses, or * for all; names and
// addresses with a port or, for every port, without. A name is compared as it is
// written in the URL: what it stands for is not looked up, and a range holds
// addresses only that are written in the URL. The zero value is none.
type Hosts struct {
	list     []string // in small letters
	prefixes []netip.Prefix
}

// ParseHosts checks a list, which must not be empty.
func ParseHosts(list []string) (Hosts, error) {
	if len(list) == 0 || len(list) > maxHosts {
		return Hosts{}, fmt.Errorf("%w: %d hosts, want 1 to %d (\"*\" is all)", ErrEndpoint, len(list), maxHosts)
	}
	var h Hosts
	for _, one := range list {
		one = strings.ToLower(one)
		if strings.Contains(one, "/") {
			prefix, err := netip.ParsePrefix(one)
			if err != nil || prefix != prefix.Masked() {
				return Hosts{}, fmt.Errorf("%w: %.100q is not a range of addresses", ErrEndpoint, one)
			}
			h.prefixes = append(h.prefixes, prefix)
			continue
		}
		if err := checkHost(one); err != nil {
			return Hosts{}, fmt.Errorf("%w: host %.100q: %w", ErrEndpoint, one, err)
		}
		h.list = append(h.list, one)
	}
	return h, nil
}

// checkHost refuses what no URL would ever match.
func checkHost(one string) error {
	if one == "*" {
		return nil
	}
	u, err := Parse("http://" + strings.TrimPrefix(one, "*."))
	switch {
	case err != nil || !strings.EqualFold(u.Host, strings.TrimPrefix(one, "*.")):
		return errors.New("want a host, or host:port")
	case strings.Contains(u.Host, "*"):
		return errors.New("want * alone, or *. in front of a domain")
	}
	return nil
}

// Has reports whether an endpoint is among them.
func (h Hosts) Has(u *url.URL) bool {
	name, port := strings.ToLower(u.Host), strings.ToLower(HostPort(u))
	bare := strings.TrimSuffix(name, ":"+u.Port())
	for _, one := range h.list {
		domain, wild := strings.CutPrefix(one, "*.")
		switch {
		case one == "*", one == bare, one == port:
			return true
		case wild && (strings.HasSuffix(bare, "."+domain) || strings.HasSuffix(port, "."+domain)):
			return true
		}
	}
	addr, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		return false
	}
	for _, prefix := range h.prefixes {
		if prefix.Contains(addr.Unmap()) {
			return true
		}
	}
	return false
}

// String lists them.
func (h Hosts) String() string {
	all := append([]string(nil), h.list...)
	for _, prefix := range h.prefixes {
		all = append(all, prefix.String())
	}
	return strings.Join(all, ", ")
}
