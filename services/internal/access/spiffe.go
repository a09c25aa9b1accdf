package access

import (
	"errors"
	"fmt"
	"strings"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

const (
	spiffeScheme   = "spiffe://"
	maxSPIFFE      = 2048
	maxTrustDomain = 255
)

// A spiffeID is a SPIFFE ID, checked as the SPIFFE-ID standard says.
type spiffeID struct {
	domain string
	path   []string
}

// parseSPIFFE checks an id from a certificate.
func parseSPIFFE(s string) (spiffeID, error) {
	if len(s) > maxSPIFFE {
		return spiffeID{}, fmt.Errorf("a SPIFFE ID of %d bytes, at most %d are allowed", len(s), maxSPIFFE)
	}
	rest, ok := strings.CutPrefix(s, spiffeScheme)
	if !ok {
		return spiffeID{}, fmt.Errorf("%.100q does not begin with %s", s, spiffeScheme)
	}
	domain, path, more := strings.Cut(rest, "/")
	if err := checkDomain(domain); err != nil {
		return spiffeID{}, err
	}
	id := spiffeID{domain: domain}
	if !more {
		return id, nil
	}
	id.path = strings.Split(path, "/")
	for _, segment := range id.path {
		if err := checkSegment(segment); err != nil {
			return spiffeID{}, err
		}
	}
	return id, nil
}

func checkDomain(s string) error {
	if s == "" || len(s) > maxTrustDomain || !only(s, false) {
		return fmt.Errorf("%.100q is no trust domain: want 1 to %d of a-z, 0-9, '.', '-' and '_'", s, maxTrustDomain)
	}
	return nil
}

func checkSegment(s string) error {
	if s == "" || s == "." || s == ".." || !only(s, true) {
		return fmt.Errorf("%.100q is no segment of a SPIFFE ID: want letters, digits, '.', '-' and '_'", s)
	}
	return nil
}

// only tells whether a string has but the characters of a trust domain, or with
// upper those of a segment.
func only(s string, upper bool) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '.', c == '-', c == '_', upper && 'A' <= c && c <= 'Z':
		default:
			return false
		}
	}
	return true
}

// spiffeOf is the SPIFFE ID of a certificate, empty for one that has none. One
// with another name of that sort beside it proves nothing: the X509-SVID standard
// wants exactly one.
func spiffeOf(uris []string) (string, error) {
	for _, uri := range uris {
		if len(uri) < len("spiffe:") || !strings.EqualFold(uri[:len("spiffe:")], "spiffe:") {
			continue
		}
		if len(uris) > 1 {
			return "", fmt.Errorf("the certificate has a SPIFFE ID and %d other URIs, which the X509-SVID standard forbids", len(uris)-1)
		}
		return uri, nil
	}
	return "", nil
}

// A spiffePattern is what a rule says of SPIFFE IDs. Its domain is * for any; one
// segment may be {role}, and {id}, if it is there, is last and takes one segment
// or more.
type spiffePattern struct {
	domain         string
	path           []string
	hasRole, hasID bool
}

const (
	roleSegment = "{role}"
	idSegment   = "{id}"
)

func parsePattern(s string) (spiffePattern, error) {
	rest, ok := strings.CutPrefix(s, spiffeScheme)
	if !ok || len(s) > maxSPIFFE {
		return spiffePattern{}, fmt.Errorf("want %s and at most %d bytes", spiffeScheme, maxSPIFFE)
	}
	domain, path, more := strings.Cut(rest, "/")
	p := spiffePattern{domain: domain}
	if domain != "*" {
		if err := checkDomain(domain); err != nil {
			return p, err
		}
	}
	if !more {
		return p, errors.New("want a path behind the trust domain")
	}
	p.path = strings.Split(path, "/")
	for i, segment := range p.path {
		switch {
		case segment == roleSegment && !p.hasRole:
			p.hasRole = true
		case segment == idSegment && i == len(p.path)-1:
			p.hasID = true
		default:
			if err := checkSegment(segment); err != nil {
				return p, fmt.Errorf("%w; %s may stand once, and %s as the last one", err, roleSegment, idSegment)
			}
		}
	}
	return p, nil
}

// match tells whether an id is as the pattern says, and which role and id it has
// in it.
func (p spiffePattern) match(s spiffeID) (role Role, id string, ok bool) {
	if p.domain != "*" && p.domain != s.domain || len(s.path) < len(p.path) || !p.hasID && len(s.path) > len(p.path) {
		return "", "", false
	}
	for i, segment := range p.path {
		switch segment {
		case roleSegment:
			role = Role(s.path[i])
		case idSegment:
			return role, strings.Join(s.path[i:], "/"), true
		default:
			if segment != s.path[i] {
				return "", "", false
			}
		}
	}
	return role, "", true
}

// checkID tells whether one with a role can have an id.
func checkID(role Role, id string) error {
	var err error
	switch role {
	case Producer:
		_, err = assignment.ParseProducerID(id)
	case Collector:
		_, err = assignment.ParseCollectorID(id)
	case Registry, Operator, Reader:
	}
	return err
}
