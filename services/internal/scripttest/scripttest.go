// Package scripttest runs the scripts that test the commands: what a script of any
// command may say, and what a command needs for words of its own.
//
// Its invariant: whatever waits gives up within Patience, and whatever was begun
// has ended when the script has.
package scripttest

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// Patience bounds every wait, also on a machine that is busy with other things.
const Patience = 30 * time.Second

// A Word is what a script may say: a command with its arguments; neg tells of a !
// before it.
type Word = func(ts *testscript.TestScript, neg bool, args []string)

// Params are for the scripts of a command, which know its words beside those of all:
//
//   - free NAME...: set each variable to an address on which nobody listens, and
//     whose port the system gives to nobody by itself.
//   - exits CODE COMMAND...: run a command, and expect that it ends with this code
//     and says one line on standard error that begins with its name.
//   - await URL [REGEXP]: until the URL answers 200 with such a body. It asks with
//     the certificate in the directory $CLIENT, if that is set.
//   - unready URL [REGEXP]: the same for 503.
//   - refuses ADDRESS: until nobody listens there.
//   - hang ADDRESS: open a stream on a gRPC server that only the client would end.
//   - terminate, hangup: send SIGTERM or SIGHUP to every command in the background.
func Params(own map[string]Word) testscript.Params {
	words := map[string]Word{
		"free":      free,
		"exits":     exits,
		"await":     await,
		"unready":   unready,
		"refuses":   refuses,
		"hang":      hang,
		"terminate": terminate,
		"hangup":    hangup,
	}
	maps.Copy(words, own)
	return testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Deadline:            time.Now().Add(4 * Patience),
		Cmds:                words,
	}
}

// Poll fails the script unless try succeeds in time.
func Poll(ts *testscript.TestScript, try func() error) {
	err := try()
	for deadline := time.Now().Add(Patience); err != nil; err = try() {
		if time.Now().After(deadline) {
			ts.Fatalf("still after %v: %v", Patience, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// begun holds the function that stops what was begun, by its owner.
var begun sync.Map //nolint:gochecknoglobals // a script has nothing of its own to keep it in

// owner is a script and the name that it has given.
type owner struct{ script, name string }

// Begin runs something in this process, under a name, until End or the end of the
// script.
func Begin(ts *testscript.TestScript, name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	stop := sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	begun.Store(owner{ts.Name(), name}, stop)
	ts.Defer(func() { _ = stop() })
}

// End stops what has this name, and fails the script if that has failed.
func End(ts *testscript.TestScript, name string) {
	stop, ok := begun.LoadAndDelete(owner{ts.Name(), name})
	if !ok {
		ts.Fatalf("%s does not run", name)
	}
	ts.Check(stop.(func() error)()) //nolint:errcheck // put there by Begin
}
