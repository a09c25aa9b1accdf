package process

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rollcall-metrics/rollcall/services/internal/access"
)

// ServeFlags say where a service listens, and how. The variables listen and
// http_listen are the defaults.
type ServeFlags struct {
	Listen         string `default:"${listen}" group:"serve" help:"Serve gRPC on this address."`
	HTTPListen     string `name:"http-listen" default:"${http_listen}" group:"serve" help:"Serve ${web} over HTTP on this address."`
	Insecure       bool   `group:"serve" help:"Without TLS, allow addresses that other hosts can reach: whoever reaches them can read everything and do everything, and so can whoever is on the way."`
	MaxConnections int    `default:"20000" group:"serve" help:"Close connections that are more than this many, on both addresses together."`

	MaxConnectionsPerAddress int `default:"0" group:"serve" help:"Close those connections of one address (of IPv6: one /64 network) that are more than this many. 0: half of --max-connections. Give more where a proxy or a gateway stands before everybody."`

	Introspection string        `default:"auto" enum:"auto,on,off" group:"serve" help:"Serve what shows the inside of the process: gRPC reflection and channelz, and profiles at /debug/pprof/. auto: if both addresses are of this host only."`
	StopGrace     time.Duration `default:"10s" group:"serve" help:"On SIGTERM or SIGINT, wait at most so long for calls that are being served. A second signal ends the process at once."`

	TLSFlags
	AccessFlags
}

// Check refuses what is wrong with the flags.
func (f *ServeFlags) Check() error {
	if err := f.check(false); err != nil {
		return err
	}
	return f.checkServing()
}

// CheckClient is Check for a service that may do without a certificate of its own:
// it is a client that trusts authorities, and serves in plain text.
func (f *ServeFlags) CheckClient() error {
	if err := f.check(true); err != nil {
		return err
	}
	return f.checkServing()
}

func (f *ServeFlags) checkServing() error {
	if f.Insecure && f.server() {
		return Refusef("--insecure with --tls-cert, --tls-key and --tls-ca: which of the two?")
	}
	for _, address := range []struct{ flag, value string }{{"--listen", f.Listen}, {"--http-listen", f.HTTPListen}} {
		host, _, err := splitAddress(address.value)
		if err != nil {
			return Refusef("%s %q: %w", address.flag, address.value, err)
		}
		if !f.exposable() && !loopback(host) {
			return Refusef("%s %s: %w (--tls-cert, --tls-key and --tls-ca prevent that, --insecure allows it)", address.flag, address.value, ErrExposed)
		}
	}
	if f.StopGrace <= 0 {
		return Refusef("--stop-grace %v: want more than 0", f.StopGrace)
	}
	if f.MaxConnections <= 0 {
		return Refusef("--max-connections %d: want more than 0", f.MaxConnections)
	}
	if f.MaxConnectionsPerAddress < 0 {
		return Refusef("--max-connections-per-address %d: want 0 or more", f.MaxConnectionsPerAddress)
	}
	return nil
}

// share is how many connections one address may have.
func (f *ServeFlags) share() int {
	if f.MaxConnectionsPerAddress > 0 {
		return f.MaxConnectionsPerAddress
	}
	return (f.MaxConnections + 1) / 2
}

// exposable tells whether other hosts may reach the addresses.
func (f *ServeFlags) exposable() bool { return f.Insecure || f.server() }

// Scheme is how others begin the URL of the HTTP address.
func (f *ServeFlags) Scheme() string {
	if f.server() {
		return "https"
	}
	return "http"
}

// Doors are what a service is reached by, and what it reaches others with.
type Doors struct {
	// GRPC and HTTP are bounded in their connections. TLS is not on them yet.
	GRPC, HTTP net.Listener

	// Server is the configuration of both; nil for plain text.
	Server *tls.Config

	// Peers is for registries and collectors, Producers for endpoints; nil for
	// plain text, and for the authorities of the system.
	Peers, Producers ClientTLS

	// Access returns the rules of who may do what that hold now; nil: everybody may do
	// everything.
	Access func() *access.Rules

	// Introspection tells whether to show the inside of the process.
	Introspection bool

	local bool
}

// Open reads the files of TLS, which are watched until ctx ends, and listens on both
// addresses.
func (f *ServeFlags) Open(ctx context.Context, logger *slog.Logger, metrics prometheus.Registerer) (*Doors, error) {
	identity, err := f.load()
	if err != nil {
		return nil, err
	}
	rules, err := f.rules()
	if err != nil {
		return nil, err
	}
	refusals := NewRefusals(logger, metrics)
	d := &Doors{Introspection: f.introspection(), local: f.local()}
	if identity != nil {
		metrics.MustRegister(identity)
		d.Peers, d.Producers = identity.Client(), identity.Producers()
	}
	if f.server() {
		defaults := access.Default()
		d.Access = func() *access.Rules { return defaults }
		d.Server = identity.Server(refusals) //nolint:contextcheck // a handshake has none that it could log with
	}
	if rules != nil {
		metrics.MustRegister(rules)
		d.Access = rules.Rules
	}
	if d.GRPC, err = Listen(ctx, f.Listen, f.exposable()); err != nil {
		return nil, err
	}
	if d.HTTP, err = Listen(ctx, f.HTTPListen, f.exposable()); err != nil {
		return nil, errors.Join(err, d.GRPC.Close())
	}
	guard := NewGuard(f.MaxConnections, f.share(), d.Server != nil, refusals)
	d.GRPC, d.HTTP = guard.GRPCListener(d.GRPC), guard.Listener(d.HTTP)
	if identity != nil {
		go identity.Watch(ctx, DefaultRefresh, logger)
	}
	if rules != nil {
		go rules.Watch(ctx, DefaultRefresh, logger)
	}
	return d, nil
}

// rules reads the file of --access; nil without one.
func (f *ServeFlags) rules() (*RuleFile, error) {
	if f.Access == "" {
		return nil, nil //nolint:nilnil // nothing is asked for, and nothing is wrong
	}
	return LoadRules(f.Access)
}

// Announce tells where a service listens, and of plain text.
func (d *Doors) Announce(ctx context.Context, logger *slog.Logger) {
	logger.InfoContext(ctx, "listening", "grpc", d.GRPC.Addr().String(), "http", d.HTTP.Addr().String(), "tls", d.Server != nil)
	switch {
	case d.Server != nil:
	case d.Access != nil:
		logger.WarnContext(ctx, "plain text: whoever is on the way may read and change what is said, tokens too")
	case d.local:
		logger.WarnContext(ctx, "plain text: whoever is on this host may do everything")
	default:
		logger.WarnContext(ctx, "plain text: whoever reaches the addresses may do everything, and whoever is on the way may read and change it")
	}
}

func (f *ServeFlags) introspection() bool {
	return f.Introspection == "on" || f.Introspection == "auto" && f.local()
}

// local tells whether only this host can reach the addresses, which are well
// formed.
func (f *ServeFlags) local() bool {
	for _, address := range []string{f.Listen, f.HTTPListen} {
		if host, _, err := splitAddress(address); err != nil || !loopback(host) {
			return false
		}
	}
	return true
}
