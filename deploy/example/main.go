// Command example is a program with metrics, for trying Rollcall and for testing
// it: it plays any number of producers, which register themselves, tell what a
// node exporter tells, and remember when they were pulled.
//
// Its invariant: what it remembers of pulls is what arrived, each once, oldest
// first, and never more than it was allowed.
package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/rollcall-metrics/rollcall/services/producer"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/credentials"
)

const description = `Plays producers of metrics for trials and tests: PREFIX-1 to PREFIX-N, with
endpoints /metrics/1 to /metrics/N, which register themselves. /metrics is one
more endpoint, which does not register itself: it is for the sidecar.

  GET /pulls        when each of them was pulled, in unix milliseconds, as JSON
  GET /pulls?id=ID  one of them
  POST /pulls       forget all of that

Every flag is also an environment variable, named behind it.

Exit codes: 0 stopped as asked, 1 failed, 2 refused its configuration.`

type flags struct {
	Serve  serveCommand  `cmd:"" default:"withargs" help:"Play producers. This is the default."`
	Health healthCommand `cmd:"" help:"Ask the process on this host whether it serves: exit code 0 if it does, 1 if not."`
}

type serveCommand struct {
	Registry      []string      `default:"127.0.0.1:7470" placeholder:"ADDRESS" help:"host:port of a registry's gRPC (repeatable)."`
	Prefix        string        `default:"example" help:"Begin the producers' ids with this."`
	Producers     int           `default:"1" help:"How many producers to play, 0 to 10000."`
	Interval      time.Duration `default:"5s" help:"Time between two pulls."`
	Timeout       time.Duration `help:"Longest time of one pull. Default: the registry's."`
	Lease         time.Duration `help:"How long a registration lives without renewal, 10s to 24h. Default: the registry's."`
	Pulls         int           `default:"20000" help:"Remember this many of the last pulls of each producer, 1 to 1000000."`
	HTTPListen    string        `name:"http-listen" default:"127.0.0.1:7491" help:"Serve HTTP on this address."`
	AdvertiseHTTP string        `name:"advertise-http" placeholder:"ADDRESS" help:"host:port at which collectors reach --http-listen. Default: the same."`
	Insecure      bool          `help:"Allow an address that other hosts can reach."`
	TLSCert       string        `name:"tls-cert" placeholder:"FILE" help:"Show this certificate to registries (PEM), with --tls-key and --tls-ca."`
	TLSKey        string        `name:"tls-key" placeholder:"FILE" help:"Its key (PEM)."`
	TLSCA         string        `name:"tls-ca" placeholder:"FILE" help:"The authorities of the registries' certificates (PEM)."`
}

func main() {
	os.Exit(run())
}

const (
	exitFailed  = 1
	exitRefused = 2
)

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	parsed := kong.Parse(&flags{}, kong.Name("example"), kong.Description(description), kong.DefaultEnvars("ROLLCALL"),
		kong.ConfigureHelp(kong.HelpOptions{NoAppDescFormat: true}), kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Exit(func(code int) { os.Exit(min(code, exitRefused)) }))
	if err := parsed.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "example:", strings.ReplaceAll(err.Error(), "\n", "; "))
		return exitFailed
	}
	return 0
}

// Validate is for kong.
func (c *serveCommand) Validate() error {
	host, port, err := net.SplitHostPort(c.HTTPListen)
	switch {
	case err != nil:
		return fmt.Errorf("--http-listen %q: want host:port", c.HTTPListen)
	case !c.Insecure && !loopback(host):
		return fmt.Errorf("--http-listen %s: other hosts could reach it (--insecure allows it)", c.HTTPListen)
	case c.AdvertiseHTTP == "" && (unspecified(host) || port == "0"):
		return fmt.Errorf("--advertise-http: %s is no address for others; give the one at which they reach it", c.HTTPListen)
	case c.Producers < 0 || c.Producers > 10_000:
		return fmt.Errorf("--producers %d: want 0 to 10000", c.Producers)
	case c.Pulls < 1 || c.Pulls > 1_000_000:
		return fmt.Errorf("--pulls %d: want 1 to 1000000", c.Pulls)
	}
	return nil
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

func unspecified(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "" || err == nil && addr.IsUnspecified()
}

// Run plays producers until ctx ends.
func (c *serveCommand) Run(ctx context.Context) error {
	logger := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	creds, err := c.credentials()
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.HTTPListen)
	if err != nil {
		return err
	}
	logger.InfoContext(ctx, "listening", "http", listener.Addr().String(), "producers", c.Producers)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return serve(ctx, newStage(c.Prefix, c.Producers, c.Pulls), listener) })
	address := c.AdvertiseHTTP
	if address == "" {
		address = c.HTTPListen
	}
	for n := 1; n <= c.Producers; n++ {
		group.Go(func() error {
			return producer.Keep(ctx, producer.Config{Registries: c.Registry, Credentials: creds, Logger: logger}, producer.Registration{
				ID:       producerID(c.Prefix, n),
				Endpoint: "http://" + address + "/metrics/" + strconv.Itoa(n),
				Labels:   map[string]string{"producer": producerID(c.Prefix, n)}, // all have one host and port
				Interval: c.Interval,
				Timeout:  c.Timeout,
				Lease:    c.Lease,
				Instance: rand.Text(),
			})
		})
	}
	return group.Wait()
}

// credentials are those for registries: nil, which is plain text, without flags. The
// files are read anew for each connection.
func (c *serveCommand) credentials() (credentials.TransportCredentials, error) {
	if c.TLSCert == "" && c.TLSKey == "" && c.TLSCA == "" {
		return nil, nil //nolint:nilnil // nothing is asked for, and nothing is wrong
	}
	if _, err := c.authorities(); err != nil {
		return nil, err
	}
	own := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
		return &pair, err
	}
	if _, err := own(nil); err != nil {
		return nil, fmt.Errorf("--tls-cert, --tls-key: %w", err)
	}
	return credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, GetClientCertificate: own,
		InsecureSkipVerify: true, VerifyConnection: c.verify, //nolint:gosec // verified by authorities of the time
	}), nil
}

func (c *serveCommand) authorities() (*x509.CertPool, error) {
	content, err := os.ReadFile(c.TLSCA)
	if err != nil {
		return nil, fmt.Errorf("--tls-ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("--tls-ca %s: no certificate is in it", c.TLSCA)
	}
	return pool, nil
}

// verify verifies a registry's certificate.
func (c *serveCommand) verify(state tls.ConnectionState) error {
	roots, err := c.authorities()
	if err != nil {
		return err
	}
	intermediates := x509.NewCertPool()
	for _, one := range state.PeerCertificates[1:] {
		intermediates.AddCert(one)
	}
	_, err = state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, DNSName: state.ServerName})
	return err
}

func producerID(prefix string, n int) string { return prefix + "-" + strconv.Itoa(n) }

// stopLimit bounds how long answers under way are waited for.
const stopLimit = 5 * time.Second

// serve serves HTTP until ctx ends.
func serve(ctx context.Context, handler http.Handler, listener net.Listener) error {
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, WriteTimeout: time.Minute,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
		defer cancel()
		if server.Shutdown(bounded) != nil {
			_ = server.Close() // the time is up; there is nobody to tell
		}
	})
	err := server.Serve(listener)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
