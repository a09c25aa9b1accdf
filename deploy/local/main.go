// Command local runs one registry and two collectors on this machine, as
// processes of their own, to try Rollcall with: it is what make run runs.
//
// Its invariant: it leaves no process behind that it started. It restarts
// nothing either: a process that dies stays dead until somebody starts it.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/rollcall-metrics/rollcall/deploy/internal/child"
)

const description = `Runs one registry and two collectors on this machine, with their data and logs
in one directory. Ctrl-C stops them all. It expects the other commands beside
itself: make run builds them.

Exit codes: 0 stopped as asked, 1 failed, 2 refused its configuration.`

type flags struct {
	Dir       string        `default:".run" help:"Keep data and logs in this directory."`
	FirstPort int           `default:"7470" help:"The registry's gRPC port. The others follow: its HTTP +1, the first collector +10 and +11, the second +12 and +13."`
	Status    time.Duration `default:"5s" help:"Time between two lines of status."`
}

func main() {
	// Children are told when the thread that started them ends, so it must not
	// end before the process does.
	runtime.LockOSThread()
	var f flags
	kong.Parse(&f, kong.Name("local"), kong.Description(description), kong.DefaultEnvars("ROLLCALL_LOCAL"),
		kong.ConfigureHelp(kong.HelpOptions{NoAppDescFormat: true}),
		kong.Exit(func(code int) { os.Exit(min(code, exitRefused)) }))
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		signal.Stop(signals) // the next one does what it does to any process
		cancel()
	}()
	if err := f.run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "local:", strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(exitFailed)
	}
}

const (
	exitFailed  = 1
	exitRefused = 2
)

// stopLimit bounds the stop; it is longer than what the services allow
// themselves.
const stopLimit = time.Minute

// Validate is for kong.
func (f *flags) Validate() error {
	if f.FirstPort < 1 || f.FirstPort > maxPort-lastOffset {
		return fmt.Errorf("--first-port %d: want 1 to %d", f.FirstPort, maxPort-lastOffset)
	}
	if f.Status <= 0 {
		return fmt.Errorf("--status %v: want more than 0", f.Status)
	}
	return nil
}

const (
	maxPort    = 65535
	lastOffset = 13
)

// run starts everything, tells how it is doing until ctx ends, and stops
// everything.
func (f *flags) run(ctx context.Context, out io.Writer) error {
	plan, err := f.plan()
	if err != nil {
		return err
	}
	if err := plan.checkPorts(ctx); err != nil {
		return err
	}
	if err := os.MkdirAll(f.Dir, 0o700); err != nil {
		return err
	}
	w := &workers{out: out, died: make(chan *child.Child, len(plan))}
	defer w.kill()
	for _, s := range plan {
		if err := w.start(s); err != nil {
			return err
		}
	}
	if err := child.AwaitReady(ctx, w.children...); err != nil {
		return err
	}
	if ctx.Err() == nil {
		plan.introduce(out, w)
		w.watch(ctx, f.Status)
	}
	return w.stop()
}

// say writes a line for people, with the time.
func say(format string, args ...any) string {
	return time.Now().Format(time.TimeOnly) + "  " + fmt.Sprintf(format, args...) + "\n"
}
