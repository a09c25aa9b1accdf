package process

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// errCertificate ends a handshake. The peer gets the same alert whatever was wrong.
var errCertificate = errors.New("the peer's certificate is refused")

// Server is the configuration of a server of gRPC or HTTP. A client may show a
// certificate or none: one that is shown has been verified by the time that the
// handshake is done, as the first of ConnectionState.PeerCertificates. There is no
// session to resume: each connection is verified as of its own time.
func (i *Identity) Server(r *Refusals) *tls.Config {
	base := &tls.Config{
		MinVersion:             i.files.MinVersion,
		NextProtos:             []string{"h2", "http/1.1"},
		ClientAuth:             tls.RequestClientCert, // verified below, against the authorities of the time
		SessionTicketsDisabled: true,
	}
	outer := base.Clone()
	outer.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if len(hello.SupportedVersions) > 0 && slices.Max(hello.SupportedVersions) < base.MinVersion {
			r.note(hello.Conn.RemoteAddr(), refusedVersion, nil)
		}
		return i.serverConfig(base, r, hello.Conn.RemoteAddr()), nil
	}
	return outer
}

// serverConfig is the configuration for one connection.
func (i *Identity) serverConfig(base *tls.Config, r *Refusals, from net.Addr) *tls.Config {
	m := i.current.Load()
	c := base.Clone()
	c.Certificates = []tls.Certificate{*m.certificate}
	c.VerifyConnection = func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return nil
		}
		if reason := refusal(state.PeerCertificates, m.authorities, time.Now()); reason != "" {
			r.note(from, reason, state.PeerCertificates[0])
			return errCertificate
		}
		return nil
	}
	return c
}

// refusal is why a chain is not taken, or nothing.
func refusal(chain []*x509.Certificate, authorities *x509.CertPool, now time.Time) reason {
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: authorities, Intermediates: intermediates, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err == nil {
		return ""
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		switch {
		case invalid.Reason == x509.Expired && invalid.Cert != nil && now.Before(invalid.Cert.NotBefore):
			return refusedNotYet
		case invalid.Reason == x509.Expired:
			return refusedExpired
		case invalid.Reason == x509.IncompatibleUsage:
			return refusedUsage
		}
		return refusedInvalid
	}
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); unknown {
		if bytes.Equal(chain[0].RawIssuer, chain[0].RawSubject) {
			return refusedSelfSigned
		}
		return refusedUnknown
	}
	return refusedInvalid
}

// transportOptions are those of a gRPC server with a TLS configuration, or with
// none: nil is plain text.
func transportOptions(c *tls.Config) []grpc.ServerOption {
	if c == nil {
		return nil
	}
	return []grpc.ServerOption{grpc.Creds(credentials.NewTLS(c))}
}

// SecureHTTP is lis with TLS, or itself without: nil is plain text. ServeHTTP
// bounds the time of a handshake.
func SecureHTTP(lis net.Listener, c *tls.Config) net.Listener {
	if c == nil || lis == nil {
		return lis
	}
	return tls.NewListener(lis, c)
}

// names are what a certificate says whose it is, fit for a log line.
func names(c *x509.Certificate) string {
	all := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	for _, uri := range c.URIs {
		all = append(all, uri.String())
	}
	return clip(strings.Join(all, " "))
}

// clip bounds a text from outside.
func clip(s string) string {
	const most = 256
	if len(s) > most {
		s = s[:most] + "..."
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
