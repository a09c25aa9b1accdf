// Package endpoint knows what a producer's endpoint may be: how its URL must
// look, and which addresses may be dialled.
//
// Its invariant: a URL that Parse accepts has a scheme, a host and nothing that
// smuggles credentials or a fragment along.
package endpoint

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrEndpoint is wrapped by every error of this package.
var ErrEndpoint = errors.New("bad endpoint")

// maxURL bounds an endpoint's length in bytes.
const maxURL = 2048

// Parse checks a producer's URL: http or https, with a host, without user info,
// fragment, spaces and control characters, valid UTF-8, at most 2,048 bytes. Or
// it is grpc or grpcs, with a port, and without path and query: the service is
// the path.
func Parse(s string) (*url.URL, error) {
	if len(s) > maxURL {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrEndpoint, len(s), maxURL)
	}
	if !utf8.ValidString(s) {
		return nil, fmt.Errorf("%w: not valid UTF-8", ErrEndpoint)
	}
	if i := strings.IndexFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }); i >= 0 {
		return nil, fmt.Errorf("%w: a space or control character at byte %d", ErrEndpoint, i)
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("%w: not a URL", ErrEndpoint)
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https" && !Native(u):
		return nil, fmt.Errorf("%w: scheme %q, want http, https, grpc or grpcs", ErrEndpoint, u.Scheme)
	case u.User != nil:
		return nil, fmt.Errorf("%w: user info is not allowed", ErrEndpoint)
	case strings.Contains(s, "#"):
		return nil, fmt.Errorf("%w: a fragment is not allowed", ErrEndpoint)
	case u.Hostname() == "":
		return nil, fmt.Errorf("%w: no host", ErrEndpoint)
	case !plainHost(u.Host):
		return nil, fmt.Errorf("%w: host %q", ErrEndpoint, u.Host)
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return nil, fmt.Errorf("%w: port %q", ErrEndpoint, p)
		}
	} else if strings.HasSuffix(u.Host, ":") {
		return nil, fmt.Errorf("%w: empty port", ErrEndpoint)
	}
	if Native(u) && (u.Port() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.ForceQuery || u.Opaque != "") {
		return nil, fmt.Errorf("%w: want %s://host:port and nothing else", ErrEndpoint, u.Scheme)
	}
	return u, nil
}

// Native reports whether a producer is asked by Rollcall's own protocol, over
// gRPC, and not by HTTP.
func Native(u *url.URL) bool { return u.Scheme == "grpc" || u.Scheme == "grpcs" }

// MaxServerName bounds the name that a certificate is for, in bytes.
const MaxServerName = 253

// ServerName reports whether a string can be the name that a certificate is
// for: a host name, or an address without a zone.
func ServerName(s string) bool {
	if addr, err := netip.ParseAddr(s); err == nil {
		return addr.Zone() == ""
	}
	if len(s) > MaxServerName {
		return false
	}
	for part := range strings.SplitSeq(s, ".") {
		if part == "" || len(part) > 63 || strings.Trim(part, "-") != part || strings.ContainsFunc(part, oddInName) {
			return false
		}
	}
	return true
}

// oddInName reports a character that no host name has. The underscore is in some
// all the same.
func oddInName(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_')
}

// plainHost looks at a host after its escapes were undone: they can hide bytes
// that are not UTF-8, and characters that are refused in the open. One pair of
// brackets and one percent sign belong to an IPv6 address, others to nothing
// good.
func plainHost(host string) bool {
	rest := host
	if address, ok := strings.CutPrefix(host, "["); ok {
		rest = strings.Replace(strings.Replace(address, "]", "", 1), "%", "", 1)
	}
	odd := func(r rune) bool { return r == ' ' || !unicode.IsPrint(r) || strings.ContainsRune(`"<>%[]`, r) }
	return utf8.ValidString(rest) && !strings.ContainsFunc(rest, odd)
}

// HostPort is the URL's host with its port, the scheme's own where it tells
// none: the `instance` label of a producer that has no other.
func HostPort(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	if u.Scheme == "https" {
		return u.Host + ":443"
	}
	return u.Host + ":80"
}
