package process

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// A ClientTLS returns the configuration for the next connection to a server, which
// its caller does not change; nil: plain text. It has no server name: that is for
// the address which is dialled.
type ClientTLS func() *tls.Config

// Client is for connections to other processes of Rollcall: only the authorities
// in the file are trusted.
func (i *Identity) Client() ClientTLS {
	return func() *tls.Config { return i.current.Load().client }
}

// Producers is for endpoints of producers. They may be anybody's, so that the
// authorities of the system are trusted, too; and the certificate is shown only to
// who asks for one of its authority, or of any.
func (i *Identity) Producers() ClientTLS {
	return func() *tls.Config { return i.current.Load().producers }
}

func (m *material) clientConfig(least uint16, authorities *x509.CertPool) *tls.Config {
	c := &tls.Config{MinVersion: least, RootCAs: authorities}
	if own := m.certificate; own != nil {
		c.GetClientCertificate = func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if request.SupportsCertificate(own) != nil {
				return new(tls.Certificate), nil //nolint:nilerr // none is shown
			}
			return own, nil
		}
	}
	return c
}

// A Client is how a client reaches servers. The zero value: in plain text, as
// nobody.
type Client struct {
	TLS    ClientTLS
	Bearer *BearerFile // nil for none
}

// Options are those of a gRPC connection.
func (c Client) Options() []grpc.DialOption {
	options := []grpc.DialOption{grpc.WithTransportCredentials(c.TLS.Credentials())}
	if c.Bearer != nil {
		options = append(options, grpc.WithPerRPCCredentials(c.Bearer))
	}
	return options
}

// Credentials are those of gRPC connections; each new one has the configuration
// of its time.
func (c ClientTLS) Credentials() credentials.TransportCredentials {
	if c == nil {
		return insecure.NewCredentials()
	}
	return &reloading{c}
}

// reloading are credentials that begin each connection with the configuration of
// its time.
type reloading struct{ config ClientTLS }

// ClientHandshake implements credentials.TransportCredentials.
func (r *reloading) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return credentials.NewTLS(r.config()).ClientHandshake(ctx, authority, conn)
}

// ServerHandshake implements credentials.TransportCredentials: it fails.
func (*reloading) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("credentials of a client serve nobody")
}

// Info implements credentials.TransportCredentials.
func (r *reloading) Info() credentials.ProtocolInfo { return credentials.NewTLS(r.config()).Info() }

// Clone implements credentials.TransportCredentials.
func (r *reloading) Clone() credentials.TransportCredentials { return &reloading{r.config} }

// OverrideServerName implements credentials.TransportCredentials: it fails.
func (*reloading) OverrideServerName(string) error {
	return errors.New("the server's name is that of the address")
}

// A BearerFile is a file with a token that is shown with each call. It is read for
// each, so that it may be replaced at any time.
type BearerFile struct {
	path      string
	plaintext bool
}

// NewBearerFile makes one of the file of a flag. Over plain text it is shown only
// if that is allowed.
func NewBearerFile(path string, plaintext bool) (*BearerFile, error) {
	b := &BearerFile{path, plaintext}
	if _, err := b.read(); err != nil {
		return nil, &RefusedError{err}
	}
	return b, nil
}

// maxTokenBytes bounds a token.
const maxTokenBytes = 4 << 10

func (b *BearerFile) read() (string, error) {
	content, err := readFile("--token-file", b.path)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(content))
	switch {
	case token == "" || len(token) > maxTokenBytes:
		return "", fmt.Errorf("--token-file %s: want 1 to %d bytes", b.path, maxTokenBytes)
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", fmt.Errorf("--token-file %s: want one line of printable ASCII without blanks", b.path)
	}
	return token, nil
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b *BearerFile) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token, err := b.read()
	if err != nil {
		return nil, err
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (b *BearerFile) RequireTransportSecurity() bool { return !b.plaintext }
