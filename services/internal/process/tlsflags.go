package process

import (
	"crypto/tls"
)

// TLSFlags say what a process shows to its peers and whom it trusts.
type TLSFlags struct {
	TLSCert       string `name:"tls-cert" group:"tls" placeholder:"FILE" help:"Show this certificate to peers (PEM), as a server and as a client, with --tls-key and --tls-ca. The files are read anew when they change."`
	TLSKey        string `name:"tls-key" group:"tls" placeholder:"FILE" help:"The key of --tls-cert (PEM)."`
	TLSCA         string `name:"tls-ca" group:"tls" placeholder:"FILE" help:"Trust the authorities in this file (PEM), of which there may be several, and nobody else. For endpoints of producers those of the system count, too."`
	TLSMinVersion string `name:"tls-min-version" default:"1.3" enum:"1.2,1.3" group:"tls" help:"Least version of TLS that is spoken with other processes of Rollcall: 1.2 or 1.3."`
}

// any tells whether TLS is asked for.
func (f *TLSFlags) any() bool { return f.TLSCert != "" || f.TLSKey != "" || f.TLSCA != "" }

// Secured tells whether connections to others have TLS.
func (f *TLSFlags) Secured() bool { return f.TLSCA != "" }

// server tells whether a server can have TLS.
func (f *TLSFlags) server() bool { return f.TLSCert != "" && f.TLSKey != "" && f.TLSCA != "" }

// check refuses what is incomplete. A client may show no certificate.
func (f *TLSFlags) check(client bool) error {
	switch {
	case f.any() && !f.server() && !client:
		return Refusef("--tls-cert, --tls-key and --tls-ca: want all three or none")
	case (f.TLSCert == "") != (f.TLSKey == ""):
		return Refusef("--tls-cert and --tls-key: want both or neither")
	case f.TLSCert != "" && f.TLSCA == "":
		return Refusef("--tls-cert without --tls-ca: whom does it trust?")
	}
	return nil
}

// load reads the files; nil when there are none.
func (f *TLSFlags) load() (*Identity, error) {
	if !f.any() {
		return nil, nil //nolint:nilnil // nothing is asked for, and nothing is wrong
	}
	least := uint16(tls.VersionTLS13)
	if f.TLSMinVersion == "1.2" {
		least = tls.VersionTLS12
	}
	return LoadIdentity(IdentityFiles{Cert: f.TLSCert, Key: f.TLSKey, CA: f.TLSCA, MinVersion: least})
}

// TokenFlags are how a client says who it is without a certificate.
type TokenFlags struct {
	TokenFile string `name:"token-file" group:"tls" placeholder:"FILE" help:"Show the token in this file with each call to a registry or a collector. It is read anew for each."`
}

// Bearer makes the credentials; nil when no file is given. Over plain text they are
// shown only if that is allowed.
func (f *TokenFlags) Bearer(secure, insecure bool) (*BearerFile, error) {
	if f.TokenFile == "" {
		return nil, nil //nolint:nilnil // as above
	}
	if !secure && !insecure {
		return nil, Refusef("--token-file without --tls-ca: the token could be read on its way (--insecure allows it)")
	}
	return NewBearerFile(f.TokenFile, !secure)
}

// ClientFlags say how a command speaks to registries and collectors.
type ClientFlags struct {
	TLSFlags
	TokenFlags

	Insecure bool `group:"tls" help:"Show the token of --token-file in plain text, too."`
}

// Client checks the flags and reads the files that they name.
func (f *ClientFlags) Client() (Client, error) {
	var c Client
	if err := f.check(true); err != nil {
		return c, err
	}
	if f.Insecure && f.any() {
		return c, Refusef("--insecure with --tls-ca: which of the two?")
	}
	identity, err := f.load()
	if err != nil {
		return c, err
	}
	if identity != nil {
		c.TLS = identity.Client()
	}
	c.Bearer, err = f.Bearer(c.TLS != nil, f.Insecure)
	return c, err
}
