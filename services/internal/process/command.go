package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	"google.golang.org/grpc/grpclog"
)

// The exit codes of every command. Who restarts processes may leave one alone
// that ended with ExitRefused: it would only refuse again.
const (
	// ExitOK: done, or stopped as asked.
	ExitOK = 0

	// ExitFailed: it could not start, or failed while it ran.
	ExitFailed = 1

	// ExitRefused: what the command line and the environment ask for is not
	// taken. Nothing was opened or changed.
	ExitRefused = 2
)

// EnvPrefix begins the name of every environment variable: --data-dir is also
// ROLLCALL_DATA_DIR.
const EnvPrefix = "ROLLCALL"

// A RefusedError says what is wrong with a configuration.
type RefusedError struct{ Err error }

// Error tells what is wrong.
func (e *RefusedError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong.
func (e *RefusedError) Unwrap() error { return e.Err }

// Refusef makes a RefusedError.
func Refusef(format string, args ...any) error { return &RefusedError{fmt.Errorf(format, args...)} }

// Execute parses the command line and the environment into command, a pointer
// to a struct for kong, and calls the Run method of what was chosen. Run may
// take a context, which ends at the first SIGINT or SIGTERM; a second one ends
// the process at once. Execute returns the exit code, and has told an error as
// one line on standard error by then.
//
// --help and --version end the process.
func Execute(command any, name, description string, options ...kong.Option) int {
	return execute(name, os.Args[1:], Command{Flags: command, Description: description, Options: options})
}

// A Command is one of the things that a program does.
type Command struct {
	Flags       any // a pointer to a struct for kong, with a method Run
	Description string
	Options     []kong.Option
}

// ExecuteNamed is Execute for a program that does several things: it takes the
// command that the first argument names, or else the one whose name is empty.
func ExecuteNamed(program string, commands map[string]Command) int {
	args := os.Args[1:]
	if len(args) > 0 && args[0] != "" {
		if command, ok := commands[args[0]]; ok {
			return execute(program+" "+args[0], args[1:], command)
		}
	}
	return execute(program, args, commands[""])
}

func execute(name string, args []string, command Command) int {
	// What gRPC prints by itself is the peer's text, such as the data of a GOAWAY.
	// Calls tell their errors to us.
	if os.Getenv("GRPC_GO_LOG_SEVERITY_LEVEL") == "" {
		grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	}
	options := append([]kong.Option{
		kong.Name(name),
		kong.Description(command.Description),
		kong.DefaultEnvars(EnvPrefix),
		kong.Vars{"version": name + " " + built()},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoAppDescFormat: true, WrapUpperBound: 110}),
	}, command.Options...)
	parser, err := kong.New(command.Flags, options...)
	if err != nil {
		return Report(os.Stderr, name, fmt.Errorf("the flags are not well made: %w", err))
	}
	chosen, err := parser.Parse(args)
	if err != nil {
		return Report(os.Stderr, name, Refusef("%w (%s --help tells more)", err, name))
	}
	ctx, stop := untilSignal()
	defer stop()
	chosen.BindTo(ctx, (*context.Context)(nil))
	return Report(os.Stderr, name, chosen.Run())
}

// untilSignal makes a context that ends at the first signal to stop. The next
// one does then what it does to any process.
func untilSignal() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case <-signals:
		case <-ctx.Done():
		}
		// Before ctx ends, unlike with signal.NotifyContext: who has seen that
		// the first signal has an effect may count on the second one.
		signal.Stop(signals)
		cancel()
	}()
	return ctx, cancel
}

// detailed is an error that has more to tell than one line.
type detailed interface {
	error
	Details() []string
}

// Report tells an error, if it is one, as a line that begins with the command's
// name, and one more line for each of its Details. It returns the exit code.
func Report(w io.Writer, name string, err error) int {
	if err == nil {
		return ExitOK
	}
	line := strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
	fmt.Fprintf(w, "%s: %s\n", name, line)
	if d, ok := errors.AsType[detailed](err); ok {
		for _, more := range d.Details() {
			fmt.Fprintf(w, "  %s\n", more)
		}
	}
	if _, refused := errors.AsType[*RefusedError](err); refused {
		return ExitRefused
	}
	return ExitFailed
}
