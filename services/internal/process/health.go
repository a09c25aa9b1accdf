package process

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

const healthDescription = `Ask the process that listens on an address whether it serves, by gRPC's health
protocol: for probes in containers, which have no shell.

Exit codes: 0 it serves, 1 it does not, or does not answer, 2 refused its flags.`

type healthFlags struct {
	Listen  string        `env:"ROLLCALL_LISTEN" default:"${listen}" help:"The address that the process listens on. One for all interfaces is asked on the loopback."`
	Service string        `default:"${service}" help:"Ask for this service, which serves when the process is ready. The empty name: whether the process lives."`
	Timeout time.Duration `env:"ROLLCALL_HEALTH_TIMEOUT" default:"3s" help:"Wait at most so long."`

	TLSFlags
}

// Health is the command that asks a process on this host whether it serves. The
// service is the one that tells whether the process is ready.
func Health(listen, service string) Command {
	return Command{
		Flags: &healthFlags{}, Description: healthDescription,
		Options: []kong.Option{kong.Vars{"listen": listen, "service": service}},
	}
}

// Run asks once.
func (f *healthFlags) Run(ctx context.Context) error {
	host, _, err := splitAddress(f.Listen)
	if err != nil {
		return Refusef("--listen %q: %w", f.Listen, err)
	}
	if f.Timeout <= 0 {
		return Refusef("--timeout %v: want more than 0", f.Timeout)
	}
	address := f.Listen
	if unspecified(host) {
		_, port, _ := net.SplitHostPort(f.Listen) // as above
		address = net.JoinHostPort(loopbackOf(host), port)
	}
	secured, err := f.tls()
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(secured.Credentials()), grpc.WithNoProxy(), grpc.WithDisableServiceConfig())
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, f.Timeout)
	defer cancel()
	answer, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{Service: f.Service})
	if err != nil {
		s := status.Convert(err)
		return fmt.Errorf("%s: %s: %.256q", address, s.Code(), s.Message())
	}
	if answer.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		return fmt.Errorf("%s: %s", address, answer.GetStatus())
	}
	return nil
}

// tls is how the process is spoken to; nil when it has no certificate. What it has
// to show is in the file; nothing is shown to it. A certificate that has run out is
// no reason to end the process, which may do all else that it is for.
func (f *healthFlags) tls() (ClientTLS, error) {
	if err := f.check(true); err != nil || f.TLSCert == "" {
		return nil, err
	}
	ca, err := readFile("--tls-ca", f.TLSCA)
	if err != nil {
		return nil, &RefusedError{err}
	}
	cert, err := readFile("--tls-cert", f.TLSCert)
	if err != nil {
		return nil, &RefusedError{err}
	}
	authorities, err := parseAuthorities(ca, time.Time{})
	if err != nil {
		return nil, Refusef("--tls-ca %s: %w", f.TLSCA, err)
	}
	block, _ := pem.Decode(cert)
	if block == nil {
		return nil, Refusef("--tls-cert %s: no certificate is in it", f.TLSCert)
	}
	own, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, Refusef("--tls-cert %s: the certificate is malformed", f.TLSCert)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: authorities, Time: func() time.Time {
		now, last := time.Now(), own.NotAfter.Add(-time.Second)
		if now.After(last) {
			return last
		}
		return now
	}}
	switch {
	case len(own.DNSNames) > 0:
		c.ServerName = strings.Replace(own.DNSNames[0], "*", "health", 1)
	case len(own.IPAddresses) > 0:
		c.ServerName = own.IPAddresses[0].String()
	default:
		return nil, Refusef("--tls-cert %s: it is for no name and no address", f.TLSCert)
	}
	return func() *tls.Config { return c }, nil
}

// loopbackOf is the address at which a listener on all interfaces of a family is
// asked: the name localhost may be of the other family, or of nobody.
func loopbackOf(host string) string {
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is6() && !ip.Is4In6() {
		return "::1"
	}
	return "127.0.0.1"
}
