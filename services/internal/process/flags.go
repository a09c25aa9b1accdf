package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/alecthomas/kong"
)

// Groups are the headings of the flags in the help of a service.
func Groups() kong.Option {
	return kong.ExplicitGroups([]kong.Group{
		{Key: "data", Title: "Data:"},
		{Key: "etcd", Title: "Data in an etcd that is there already:"},
		{Key: "serve", Title: "Where it serves (addresses are host:port):"},
		{Key: "follow", Title: "Whom it follows:"},
		{Key: "lead", Title: "Collectors:"},
		{Key: "produce", Title: "Producers:"},
		{Key: "self", Title: "Its own metrics, collected like any producer's:"},
		{Key: "log", Title: "Logs, on standard error:"},
	})
}

// LogFlags say how a command logs.
type LogFlags struct {
	LogFormat string `default:"json" enum:"json,text" group:"log" help:"Lines of json, or of text for people."`
	LogLevel  string `default:"info" enum:"debug,info,warn,error" group:"log" help:"Least level that is logged: debug, info, warn or error."`
}

// Logger makes the logger that the flags ask for.
func (f *LogFlags) Logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.LogLevel)); err != nil {
		return nil, Refusef("--log-level: %w", err)
	}
	return NewLogger(w, level, f.LogFormat == "json"), nil
}

// ServeFlags say where a service listens. The variables listen and http_listen
// are the defaults.
type ServeFlags struct {
	Listen     string        `default:"${listen}" group:"serve" help:"Serve gRPC on this address."`
	HTTPListen string        `name:"http-listen" default:"${http_listen}" group:"serve" help:"Serve ${web} over HTTP on this address."`
	Insecure   bool          `group:"serve" help:"Allow addresses that other hosts can reach. There is no TLS and no authentication yet: whoever reaches them may do everything."`
	StopGrace  time.Duration `default:"10s" group:"serve" help:"On SIGTERM or SIGINT, wait at most so long for calls that are being served. A second signal ends the process at once."`
}

// Check refuses what is wrong with the flags.
func (f *ServeFlags) Check() error {
	for _, address := range []struct{ flag, value string }{{"--listen", f.Listen}, {"--http-listen", f.HTTPListen}} {
		host, _, err := splitAddress(address.value)
		if err != nil {
			return Refusef("%s %q: %w", address.flag, address.value, err)
		}
		if !f.Insecure && !loopback(host) {
			return Refusef("%s %s: %w (--insecure allows it)", address.flag, address.value, ErrExposed)
		}
	}
	if f.StopGrace <= 0 {
		return Refusef("--stop-grace %v: want more than 0", f.StopGrace)
	}
	return nil
}

// Open listens on both addresses.
func (f *ServeFlags) Open(ctx context.Context) (grpcListener, httpListener net.Listener, err error) {
	if grpcListener, err = Listen(ctx, f.Listen, f.Insecure); err != nil {
		return nil, nil, err
	}
	if httpListener, err = Listen(ctx, f.HTTPListen, f.Insecure); err != nil {
		return nil, nil, errors.Join(err, grpcListener.Close())
	}
	return grpcListener, httpListener, nil
}

// Advertised is the address at which others reach what listens on an address:
// the value of the flag, or, if that is empty, the listen address itself. It is
// refused when it could not be the same after a restart, or means nothing to
// another host.
func Advertised(flag, value, listen string) (string, error) {
	if value == "" {
		host, port, err := splitAddress(listen)
		switch {
		case err != nil:
			return "", Refusef("%q: %w", listen, err)
		case port == 0:
			return "", Refusef("%s: port 0 of %s is another one at each start; give the address at which others reach it", flag, listen)
		case unspecified(host):
			return "", Refusef("%s: %s is no address for others; give the one at which they reach it", flag, listen)
		}
		return listen, nil
	}
	host, port, err := splitAddress(value)
	switch {
	case err != nil:
		return "", Refusef("%s %q: %w", flag, value, err)
	case port == 0 || unspecified(host):
		return "", Refusef("%s %q: want a host and a port that others can reach", flag, value)
	}
	return value, nil
}

func splitAddress(address string) (host string, port uint64, err error) {
	host, number, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, errors.New("want host:port")
	}
	if port, err = strconv.ParseUint(number, 10, 16); err != nil {
		return "", 0, fmt.Errorf("port %q: want a number from 0 to 65535", number)
	}
	return host, port, nil
}

func unspecified(host string) bool {
	if host == "" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsUnspecified()
}

// CheckRanges refuses ranges that would contain nothing.
func CheckRanges(flag string, ranges []netip.Prefix) error {
	for _, r := range ranges {
		if r.Addr().Is4In6() {
			return Refusef("%s %s: write it as an IPv4 range", flag, r)
		}
		if r != r.Masked() {
			return Refusef("%s %s: it has bits beyond its length; did you mean %s?", flag, r, r.Masked())
		}
	}
	return nil
}
