// Command omicron tells the story that Rollcall exists for
// (https://github.com/oxidecomputer/omicron/issues/7124), on this machine and on
// real processes: a registry that refuses, breaks off, lies and forgets, and a
// collector that goes on collecting everybody through all of it.
//
// Its invariant: an act passes only by what the producers saw; and it leaves no
// process and no file behind.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/rollcall-metrics/rollcall/deploy/internal/child"
)

const description = `Plays omicron issue 7124 with a real registry and a real collector on free ports
of this machine: a registry refuses the connection, gives half an answer, an
empty one, and comes back without its store. It tells how often each producer
was pulled meanwhile. It expects the other commands beside itself: make omicron
builds them.

Exit codes: 0 nobody was missed, 1 somebody was, or it could not be told,
2 refused its configuration.`

type flags struct {
	Producers int           `default:"5" help:"How many producers to collect."`
	Interval  time.Duration `default:"1s" help:"Their interval."`
	Pulls     int           `default:"4" help:"How often every producer is to be pulled in each act."`
	Late      time.Duration `default:"2s" help:"How late a pull may be, for a machine that is busy."`
}

const (
	exitFailed  = 1
	exitRefused = 2
)

func main() {
	var f flags
	kong.Parse(&f, kong.Name("omicron"), kong.Description(description), kong.DefaultEnvars("ROLLCALL_OMICRON"),
		kong.ConfigureHelp(kong.HelpOptions{NoAppDescFormat: true}),
		kong.Exit(func(code int) { os.Exit(min(code, exitRefused)) }))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := f.run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "omicron:", strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(exitFailed)
	}
}

// Validate is for kong.
func (f *flags) Validate() error {
	if f.Producers < 2 || f.Interval < 100*time.Millisecond || f.Pulls < 1 || f.Late < 0 {
		return fmt.Errorf("want at least two producers, an interval of 100ms, a pull in each act, and nobody early")
	}
	return nil
}

func (f *flags) run(ctx context.Context) error {
	bin, err := child.Commands()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "rollcall-omicron")
	if err != nil {
		return err
	}
	err = tell(ctx, settings{
		out: os.Stdout, dir: dir, registryCommand: filepath.Join(bin, "registry"), collectorCommand: filepath.Join(bin, "collector"),
		producers: f.Producers, interval: f.Interval, pulls: f.Pulls, late: f.Late,
	})
	if err != nil {
		return fmt.Errorf("%w (logs in %s)", err, dir)
	}
	return os.RemoveAll(dir)
}
