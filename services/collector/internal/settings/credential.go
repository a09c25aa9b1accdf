package settings

import (
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/common/config"
	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
)

// maxSecret bounds a user name or secret, in bytes.
const maxSecret = 16 << 10

// A Credential is how this collector shows a producer who it is, and how it
// checks who the producer is. It is for the hosts in its list only: whoever may
// register a producer chooses where the credential that it names is sent.
type Credential struct {
	// Authorization is that header's value; empty is none.
	Authorization config.Secret

	// TLS is for https; nil is as without a credential. TLSDigest differs where
	// TLS does.
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

// credential is how the YAML of one is laid out.
type credential struct {
	BasicAuth       *config.BasicAuth     `yaml:"basic_auth,omitempty"`
	Authorization   *config.Authorization `yaml:"authorization,omitempty"`
	BearerToken     config.Secret         `yaml:"bearer_token,omitempty"`
	BearerTokenFile string                `yaml:"bearer_token_file,omitempty"`
	TLS             *config.TLSConfig     `yaml:"tls_config,omitempty"`
	Hosts           []string              `yaml:"hosts"`
	AllowHTTP       bool                  `yaml:"allow_http,omitempty"`
}

// complete checks a credential and reads its files. What is read holds until
// the next reload.
func (c *credential) complete(dir string, read Reader) (Credential, error) {
	hosts, err := endpoint.ParseHosts(c.Hosts)
	if err != nil {
		return Credential{}, fmt.Errorf("hosts: %w", err)
	}
	out := Credential{Hosts: hosts, AllowHTTP: c.AllowHTTP}
	common := config.HTTPClientConfig{
		BasicAuth: c.BasicAuth, Authorization: c.Authorization,
		BearerToken: c.BearerToken, BearerTokenFile: c.BearerTokenFile,
	}
	if err := common.Validate(); err != nil {
		return out, err
	}
	from := source{dir, read}
	if out.Authorization, err = authorization(&common, from); err != nil {
		return out, err
	}
	if c.TLS != nil {
		out.TLS, out.TLSDigest, err = completeTLS(*c.TLS, from)
	}
	return out, err
}

// A source gives what is written in place or in a file.
type source struct {
	dir  string
	read Reader
}

// secret is one that is short, and fits into a header.
func (s source) secret(what, inline, path, ref string) (string, error) {
	text, err := s.text(what, inline, path, ref)
	if err != nil {
		return "", err
	}
	if path != "" {
		text = strings.TrimSpace(text)
	}
	switch {
	case len(text) > maxSecret:
		return "", fmt.Errorf("%s: %d bytes, at most %d are allowed", what, len(text), maxSecret)
	case !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "", fmt.Errorf("%s: control characters, or not UTF-8", what)
	}
	return text, nil
}

func (s source) text(what, inline, path, ref string) (string, error) {
	switch {
	case ref != "":
		return "", fmt.Errorf("%s: there is no secret manager here for a reference", what)
	case inline != "" && path != "":
		return "", fmt.Errorf("%s: in place and in a file", what)
	case path == "":
		return inline, nil
	}
	data, err := s.read(config.JoinDir(s.dir, path))
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	if len(data) == 0 {
		return "", fmt.Errorf("%s: the file is empty", what)
	}
	return string(data), nil
}

// authorization is the header's value.
func authorization(c *config.HTTPClientConfig, from source) (config.Secret, error) {
	if b := c.BasicAuth; b != nil {
		return basic(b, from)
	}
	// A bearer_token became an authorization when it was validated.
	a := c.Authorization
	if a == nil {
		return "", nil
	}
	if a.Type == "" || strings.ContainsFunc(a.Type, oddInName) {
		return "", errors.New("authorization: type: want a single word")
	}
	token, err := from.secret("authorization: credentials", string(a.Credentials), a.CredentialsFile, a.CredentialsRef)
	if err != nil {
		return "", err
	}
	if token == "" {
		return "", errors.New("authorization: credentials are missing")
	}
	if strings.ContainsFunc(token, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "", errors.New("authorization: credentials: want printable ASCII")
	}
	return config.Secret(a.Type + " " + token), nil
}

func basic(b *config.BasicAuth, from source) (config.Secret, error) {
	user, err := from.secret("basic_auth: username", b.Username, b.UsernameFile, b.UsernameRef)
	if err != nil {
		return "", err
	}
	if user == "" || strings.Contains(user, ":") {
		return "", errors.New("basic_auth: username: want one without a colon")
	}
	password, err := from.secret("basic_auth: password", string(b.Password), b.PasswordFile, b.PasswordRef)
	if err != nil {
		return "", err
	}
	return config.Secret("Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))), nil
}

// completeTLS reads the files of t, which is a copy.
func completeTLS(t config.TLSConfig, from source) (*tls.Config, string, error) {
	var err error
	if t.CA, err = from.text("tls_config: ca", t.CA, t.CAFile, t.CARef); err != nil {
		return nil, "", err
	}
	if t.Cert, err = from.text("tls_config: cert", t.Cert, t.CertFile, t.CertRef); err != nil {
		return nil, "", err
	}
	key, err := from.text("tls_config: key", string(t.Key), t.KeyFile, t.KeyRef)
	if err != nil {
		return nil, "", err
	}
	pair, err := clientCertificate(t.Cert, key)
	if err != nil {
		return nil, "", err
	}
	made, err := config.NewTLSConfig(&config.TLSConfig{
		CA: t.CA, ServerName: t.ServerName, InsecureSkipVerify: t.InsecureSkipVerify,
		MinVersion: t.MinVersion, MaxVersion: t.MaxVersion,
	})
	switch {
	case err != nil:
		return nil, "", errors.New("tls_config: ca is not certificates in PEM, or the versions are not in order")
	case t.ServerName != "" && !endpoint.ServerName(t.ServerName):
		return nil, "", errors.New("tls_config: server_name: want a host name or an address")
	case pair != nil:
		made.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
	}
	return made, digest(t.CA, t.Cert, key, t.ServerName, strconv.FormatBool(t.InsecureSkipVerify),
		t.MinVersion.String(), t.MaxVersion.String()), nil
}

// clientCertificate is nil where there is none.
func clientCertificate(cert, key string) (*tls.Certificate, error) {
	switch {
	case cert == "" && key == "":
		return nil, nil //nolint:nilnil // there is none, and that is no error
	case cert == "" || key == "":
		return nil, errors.New("tls_config: cert and key go together")
	}
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		return nil, errors.New("tls_config: cert and key are not a pair in PEM")
	}
	return &pair, nil
}

func oddInName(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("._-", r))
}
