// Package authority makes certificates for development and tests: an authority of
// one's own, and what it issues to the processes of Rollcall.
//
// Its invariant: whatever it issues names one role and one id, as the URI
// spiffe://DOMAIN/rollcall/ROLE/ID, and no authority but this one can be made of it.
package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Roles are those that a certificate may name.
func Roles() []string { return []string{"producer", "collector", "registry", "operator", "reader"} }

// DefaultTrustDomain is the trust domain where none is told.
const DefaultTrustDomain = "rollcall.test"

const (
	// maxDays bounds how long a certificate is good for.
	maxDays = 3650

	// backdate is how far the clocks may be apart.
	backdate = 5 * time.Minute

	// maxCommonName is X.509's own bound.
	maxCommonName = 64

	maxID    = 128
	maxNames = 64
)

var (
	domain  = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,253}[a-z0-9])?$`)
	segment = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
	dnsName = regexp.MustCompile(`^(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$`)
)

// A Pair is a certificate and its key, both in PEM.
type Pair struct{ Certificate, Key []byte }

// An Authority issues certificates.
type Authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
	domain      string
}

// New makes an authority for a trust domain, and the pair from which Parse makes it
// again.
func New(trustDomain string, now time.Time, days int) (*Authority, Pair, error) {
	if !domain.MatchString(trustDomain) {
		return nil, Pair{}, fmt.Errorf("trust domain %.64q: want lower case letters, digits and ._-", trustDomain)
	}
	if days < 1 || days > maxDays {
		return nil, Pair{}, fmt.Errorf("%d days: want 1 to %d", days, maxDays)
	}
	template := x509.Certificate{
		// Each has a name of its own: by it a peer asks for certificates.
		Subject:               pkix.Name{CommonName: "Rollcall development authority " + rand.Text()[:8]},
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: trustDomain}},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.AddDate(0, 0, days),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	pair, err := sign(&template, nil, nil)
	if err != nil {
		return nil, Pair{}, err
	}
	a, err := Parse(pair)
	return a, pair, err
}

// Parse makes an authority of what New has made.
func Parse(pair Pair) (*Authority, error) {
	block, _ := pem.Decode(pair.Certificate)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("the authority's certificate is no certificate in PEM")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the authority's certificate: %w", err)
	}
	if block, _ = pem.Decode(pair.Key); block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("the authority's key is no private key in PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the authority's key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	switch {
	case !ok || !key.PublicKey.Equal(certificate.PublicKey):
		return nil, errors.New("the authority's key is not that of its certificate")
	case !certificate.IsCA:
		return nil, errors.New("the authority's certificate is not that of an authority")
	case len(certificate.URIs) != 1 || certificate.URIs[0].Scheme != "spiffe" || !domain.MatchString(certificate.URIs[0].Host):
		return nil, errors.New("the authority's certificate names no trust domain")
	}
	return &Authority{certificate: certificate, key: key, pem: pair.Certificate, domain: certificate.URIs[0].Host}, nil
}

// Certificate is the authority's own, in PEM: what others trust.
func (a *Authority) Certificate() []byte { return a.pem }

// TrustDomain is the one that it issues for.
func (a *Authority) TrustDomain() string { return a.domain }

// A Request says what is to be issued.
type Request struct {
	Role, ID string
	DNS      []string
	IPs      []netip.Addr
	Days     int

	// ServerOnly leaves out that it may be shown by a client, and SelfSigned the
	// authority: certificates that are to be refused.
	ServerOnly, SelfSigned bool
}

// Check refuses what cannot be issued.
func (r *Request) Check() error {
	if !slices.Contains(Roles(), r.Role) {
		return fmt.Errorf("role %.64q: want one of %s", r.Role, strings.Join(Roles(), ", "))
	}
	if len(r.ID) > maxID {
		return fmt.Errorf("an id of %d bytes: want at most %d", len(r.ID), maxID)
	}
	for part := range strings.SplitSeq(r.ID, "/") {
		if !segment.MatchString(part) || part == "." || part == ".." {
			return fmt.Errorf("id %q: want letters, digits and ._- between slashes", r.ID)
		}
	}
	if len(r.DNS)+len(r.IPs) > maxNames {
		return fmt.Errorf("%d names and addresses: want at most %d", len(r.DNS)+len(r.IPs), maxNames)
	}
	for _, name := range r.DNS {
		if !dnsName.MatchString(name) {
			return fmt.Errorf("DNS name %.64q: want letters, digits, dots and hyphens", name)
		}
	}
	for _, ip := range r.IPs {
		if !ip.IsValid() || ip.Zone() != "" {
			return fmt.Errorf("address %v: want one without a zone", ip)
		}
	}
	if r.Days < 1 || r.Days > maxDays {
		return fmt.Errorf("%d days: want 1 to %d", r.Days, maxDays)
	}
	return nil
}

// Issue makes a certificate, good from now on for servers and for clients, that
// ends with the authority's at the latest.
func (a *Authority) Issue(r Request, now time.Time) (Pair, error) {
	if err := r.Check(); err != nil {
		return Pair{}, err
	}
	template := x509.Certificate{
		Subject:               pkix.Name{CommonName: (r.Role + " " + r.ID)[:min(len(r.Role)+1+len(r.ID), maxCommonName)]},
		DNSNames:              r.DNS,
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: a.domain, Path: "/rollcall/" + r.Role + "/" + r.ID}},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.AddDate(0, 0, r.Days),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	if template.NotAfter.After(a.certificate.NotAfter) {
		template.NotAfter = a.certificate.NotAfter
	}
	if r.ServerOnly {
		template.ExtKeyUsage = template.ExtKeyUsage[:1]
	}
	for _, ip := range r.IPs {
		template.IPAddresses = append(template.IPAddresses, ip.Unmap().AsSlice())
	}
	if r.SelfSigned {
		return sign(&template, nil, nil)
	}
	return sign(&template, a.certificate, a.key)
}

// sign makes a key and its certificate; without a parent it signs itself.
func sign(template, parent *x509.Certificate, by *ecdsa.PrivateKey) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return Pair{}, err
	}
	if parent == nil {
		parent, by = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		return Pair{}, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{
		Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}),
	}, nil
}

// NewToken makes a random bearer token, and the SHA-256 of its text in hexadecimal,
// which is all that who checks it needs to know.
func NewToken() (token, sum string) {
	token = rand.Text() + rand.Text()
	digest := sha256.Sum256([]byte(token))
	return token, hex.EncodeToString(digest[:])
}
