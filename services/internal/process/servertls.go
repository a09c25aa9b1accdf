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
// session to resume: each connection is verified as of its own time. One that a
// Guard has ends when what it was verified by does.
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
		return i.serverConfig(base, r, hello.Conn), nil
	}
	return outer
}

// serverConfig is the configuration for one connection.
func (i *Identity) serverConfig(base *tls.Config, r *Refusals, conn net.Conn) *tls.Config {
	m := i.current.Load()
	c := base.Clone()
	c.Certificates = []tls.Certificate{*m.certificate}
	c.VerifyConnection = func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return nil
		}
		shown := state.PeerCertificates[0]
		end, reason := verify(state.PeerCertificates, m.authorities, time.Now())
		if reason != "" {
			r.note(conn.RemoteAddr(), reason, shown)
			return errCertificate
		}
		if below := guardedBelow(conn); below != nil {
			below.endWith(shown, end)
		}
		return nil
	}
	return c
}

// verify returns when a chain is no longer taken, or why it is not now.
func verify(chain []*x509.Certificate, authorities *x509.CertPool, now time.Time) (end time.Time, why reason) {
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	verified, err := chain[0].Verify(x509.VerifyOptions{
		Roots: authorities, Intermediates: intermediates, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err == nil {
		return endOf(verified), ""
	}
	return time.Time{}, refusal(chain[0], now, err)
}

// endOf is the first instant at which none of some chains is good: each is as long as
// all that is in it.
func endOf(chains [][]*x509.Certificate) (end time.Time) {
	for _, chain := range chains {
		last := chain[0].NotAfter
		for _, c := range chain[1:] {
			if c.NotAfter.Before(last) {
				last = c.NotAfter
			}
		}
		if last.After(end) {
			end = last
		}
	}
	return end.Add(1) // NotAfter is the last one at which it is
}

// refusal is why a certificate could not be verified.
func refusal(leaf *x509.Certificate, now time.Time, err error) reason {
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
		if bytes.Equal(leaf.RawIssuer, leaf.RawSubject) {
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
