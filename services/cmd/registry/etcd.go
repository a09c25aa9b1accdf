package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync/atomic"

	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"github.com/rollcall-metrics/rollcall/services/registry"
)

// etcdFlags say which etcd keeps the roll, if not one of our own.
type etcdFlags struct {
	EtcdEndpoints    []string `name:"etcd-endpoints" group:"etcd" placeholder:"URL" help:"Keep the roll in the etcd with these members, in place of --data-dir (repeatable, or with commas): all https://host:port, or all http://host:port, for which addresses beyond this host need --insecure. While it cannot be reached the registry runs and is not ready."`
	EtcdCACert       string   `name:"etcd-cacert" group:"etcd" placeholder:"FILE" help:"Take only members with a certificate of these authorities (PEM). Default: those of the system."`
	EtcdCert         string   `name:"etcd-cert" group:"etcd" placeholder:"FILE" help:"Show this certificate to the members (PEM), with --etcd-key. They and --etcd-cacert are read anew for each connection."`
	EtcdKey          string   `name:"etcd-key" group:"etcd" placeholder:"FILE" help:"The key of --etcd-cert (PEM)."`
	EtcdUsername     string   `name:"etcd-username" group:"etcd" placeholder:"NAME" help:"Authenticate as this user of etcd. It needs to read and write all keys that begin with /rollcall/v1/."`
	EtcdPasswordFile string   `name:"etcd-password-file" group:"etcd" placeholder:"FILE" help:"Its password is the first line of this file."`
}

// etcd checks the flags; nil when none is given.
func (f *etcdFlags) etcd(insecure bool) (*registry.EtcdConfig, error) {
	if len(f.EtcdEndpoints) == 0 {
		for flag, value := range map[string]string{
			"--etcd-cacert": f.EtcdCACert, "--etcd-cert": f.EtcdCert, "--etcd-key": f.EtcdKey,
			"--etcd-username": f.EtcdUsername, "--etcd-password-file": f.EtcdPasswordFile,
		} {
			if value != "" {
				return nil, process.Refusef("%s without --etcd-endpoints", flag)
			}
		}
		return nil, nil //nolint:nilnil // nothing is asked for, and nothing is wrong
	}
	c := &registry.EtcdConfig{Endpoints: f.EtcdEndpoints, Username: f.EtcdUsername}
	var err error
	if c.TLS, err = f.tls(); err != nil {
		return nil, err
	}
	if c.Password, err = f.password(); err != nil {
		return nil, err
	}
	if err := c.Check(); err != nil {
		return nil, process.Refusef("--etcd-endpoints: %w", err)
	}
	for _, endpoint := range f.EtcdEndpoints {
		if !insecure && exposed(endpoint) {
			return nil, process.Refusef("--etcd-endpoints %s: what is said to it could be read and changed on its way; want https (--insecure allows it)", endpoint)
		}
	}
	return c, nil
}

// exposed tells whether an endpoint, which is well formed, is spoken to in plain
// text over a network.
func exposed(endpoint string) bool {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme == "https" || u.Hostname() == "localhost" {
		return err != nil
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return err != nil || !addr.IsLoopback()
}

// tls is how https endpoints are spoken to; nil when no flag says anything of it.
// The files are read anew for each connection, so that what runs out can be
// replaced.
func (f *etcdFlags) tls() (process.ClientTLS, error) {
	if f.EtcdCACert == "" && f.EtcdCert == "" && f.EtcdKey == "" {
		return nil, nil // as the system does
	}
	if (f.EtcdCert == "") != (f.EtcdKey == "") {
		return nil, process.Refusef("--etcd-cert and --etcd-key: want both or neither")
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.EtcdCert != "" {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(f.EtcdCert, f.EtcdKey)
			if err != nil {
				return nil, fmt.Errorf("the certificate for etcd: %w", err)
			}
			return &pair, nil
		}
		if _, err := c.GetClientCertificate(nil); err != nil {
			return nil, process.Refusef("--etcd-cert %s, --etcd-key %s: %w", f.EtcdCert, f.EtcdKey, err)
		}
	}
	if f.EtcdCACert == "" {
		return func() *tls.Config { return c }, nil
	}
	authorities, err := f.authorities()
	if err != nil {
		return nil, err
	}
	var last atomic.Pointer[x509.CertPool]
	last.Store(authorities)
	return func() *tls.Config {
		if fresh, err := f.authorities(); err == nil {
			last.Store(fresh) // else those from before
		}
		now := c.Clone()
		now.RootCAs = last.Load()
		return now
	}, nil
}

// authorities are those of the file.
func (f *etcdFlags) authorities() (*x509.CertPool, error) {
	content, err := os.ReadFile(f.EtcdCACert)
	if err != nil {
		return nil, process.Refusef("--etcd-cacert: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		return nil, process.Refusef("--etcd-cacert %s: no certificate is in it", f.EtcdCACert)
	}
	return pool, nil
}

// password is in a file, as the command line can be read by everybody on the
// machine.
func (f *etcdFlags) password() (string, error) {
	if (f.EtcdUsername == "") != (f.EtcdPasswordFile == "") {
		return "", process.Refusef("--etcd-username and --etcd-password-file: want both or neither")
	}
	if f.EtcdPasswordFile == "" {
		return "", nil
	}
	text, err := os.ReadFile(f.EtcdPasswordFile)
	if err != nil {
		return "", process.Refusef("--etcd-password-file: %w", err)
	}
	password, _, _ := strings.Cut(string(text), "\n")
	if password = strings.TrimSuffix(password, "\r"); password == "" {
		return "", process.Refusef("--etcd-password-file %s: its first line is empty", f.EtcdPasswordFile)
	}
	return password, nil
}
