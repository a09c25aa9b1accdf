package auth

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"

	"github.com/rollcall-metrics/rollcall/services/internal/access"
)

// credentials are what a call came with.
type credentials struct {
	leaf   *x509.Certificate // nil: none
	header []string          // all values of authorization
}

// leafOf is the certificate of a connection's other end.
func leafOf(state *tls.ConnectionState) *x509.Certificate {
	if state == nil || len(state.PeerCertificates) == 0 {
		return nil
	}
	return state.PeerCertificates[0]
}

// identify says who has such credentials. A certificate goes before a token; the
// token counts where no rule is for the certificate, and not where that is
// malformed.
func identify(rules *access.Rules, c credentials) (access.Identity, access.Reason, error) {
	reason, err := access.NoCredentials, error(nil)
	if c.leaf != nil {
		var who access.Identity
		if who, err = rules.OfNames(urisOf(c.leaf), c.leaf.DNSNames); err == nil {
			return who, "", nil
		}
		reason = access.UnknownCredentials
		if !errors.Is(err, access.ErrUnknown) {
			return access.Identity{}, reason, err
		}
	}
	if len(c.header) == 0 {
		return access.Identity{}, reason, err
	}
	token, malformed := bearer(c.header)
	if malformed != nil {
		return access.Identity{}, access.UnknownCredentials, errors.Join(err, malformed)
	}
	who, unknown := rules.OfToken(token)
	if unknown != nil {
		return access.Identity{}, access.UnknownCredentials, errors.Join(err, unknown)
	}
	return who, "", nil
}

func urisOf(leaf *x509.Certificate) []string {
	uris := make([]string, len(leaf.URIs))
	for i, uri := range leaf.URIs {
		uris[i] = uri.String()
	}
	return uris
}

// bearer is the token of an authorization header. No error repeats what is in it.
func bearer(values []string) (string, error) {
	if len(values) != 1 {
		return "", errors.New("more than one authorization header")
	}
	scheme, token, found := strings.Cut(values[0], " ")
	if !found || !strings.EqualFold(scheme, "bearer") {
		return "", errors.New("the authorization header is not: Bearer TOKEN")
	}
	return token, nil
}
