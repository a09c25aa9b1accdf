package scrape

import (
	"crypto/tls"
	"fmt"
	"net/url"

	"github.com/prometheus/common/config"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
)

// A Credential is what an assignment may name: how the collector shows a
// producer who it is, and whom it trusts. Redirects are not followed, so it goes
// to the assigned endpoint and nowhere else.
type Credential struct {
	// Authorization is that header's value; empty is none.
	Authorization config.Secret

	// TLS is for https; nil is that of the Config. TLSDigest differs where TLS
	// does, and is empty without.
	TLS       *tls.Config
	TLSDigest string

	// Hosts are the endpoints it is for.
	Hosts endpoint.Hosts

	// AllowHTTP lets Authorization be sent in the clear.
	AllowHTTP bool
}

// String hides what is secret.
func (c Credential) String() string { return "credential for " + c.Hosts.String() }

// GoString hides it, too.
func (c Credential) GoString() string { return c.String() }

// access is how a target is reached.
type access struct {
	authorization []string // the header's value, nil for none
	tls           *tls.Config
	transport     transportKey
}

// accessTo says how an assignment's endpoint, as it came out of relabeling, is
// reached.
func (s *Setup) accessTo(a *assignment.Assignment, u *url.URL) (access, error) {
	out := access{transport: transportKey{server: a.TLSServerName}}
	if a.TLSServerName != "" && !endpoint.ServerName(a.TLSServerName) {
		return access{}, fmt.Errorf("TLS server name %.300q: want a host name or an address", a.TLSServerName)
	}
	if a.Credential == "" {
		return out, nil
	}
	c, ok := s.Credentials[a.Credential]
	if !ok {
		return access{}, fmt.Errorf("no credential %.130q", a.Credential)
	}
	secure := u.Scheme == "https" || u.Scheme == "grpcs"
	switch {
	case !c.Hosts.Has(u):
		return access{}, fmt.Errorf("credential %q is not for the host %q", a.Credential, u.Host)
	case !secure && c.Authorization != "" && !c.AllowHTTP:
		return access{}, fmt.Errorf("credential %q must not be sent in the clear, by %s", a.Credential, u.Scheme)
	}
	if c.Authorization != "" {
		out.authorization = []string{string(c.Authorization)}
	}
	out.tls, out.transport.digest = c.TLS, c.TLSDigest
	return out, nil
}
