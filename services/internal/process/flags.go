package process

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strconv"

	"github.com/alecthomas/kong"
)

// Groups are the headings of the flags in the help of a service.
func Groups() kong.Option {
	return kong.ExplicitGroups([]kong.Group{
		{Key: "data", Title: "Data:"},
		{Key: "etcd", Title: "Data in an etcd that is there already:"},
		{Key: "serve", Title: "Where it serves (addresses are host:port):"},
		{Key: "tls", Title: "What it shows to its peers, and whom it trusts:"},
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
