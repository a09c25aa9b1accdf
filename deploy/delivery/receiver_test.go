package delivery_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/rollcall-metrics/rollcall/deploy/internal/child"
	"github.com/rollcall-metrics/rollcall/deploy/internal/receiver"
)

// What makes a process of this test binary a receiver.
var (
	serveAt      = flag.String("serve-receiver", "", "be a receiver at this address, and no test")
	serveJournal = flag.String("journal", "", "of a receiver: the file that outlives it")
)

// serveReceiver is the process of a receiver that can be killed. It returns its
// exit code.
func serveReceiver(address, path string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	journal, err := receiver.OpenJournal(path)
	if err == nil {
		err = receiver.New(receiver.Config{Address: address, Journal: journal}).Up(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	<-ctx.Done()
	return 0
}

// planReceiver is how such a process is run.
func planReceiver(t testing.TB, dir string) (plan *child.Service, journal string) {
	t.Helper()
	at := freePorts(t, 1)[0]
	journal = filepath.Join(dir, "journal")
	return &child.Service{
		Name: "receiver", HTTP: at, Ready: receiver.TotalsPath, Log: filepath.Join(dir, "receiver.log"),
		Args: []string{os.Args[0], "-serve-receiver", at, "-journal", journal},
	}, journal
}

// newReceiver is one in this process, with a ledger, that is down. It ends with
// the test.
func newReceiver(t testing.TB) (*receiver.Receiver, *receiver.Ledger) {
	t.Helper()
	ledger := receiver.NewLedger()
	r := receiver.New(receiver.Config{Address: freePorts(t, 1)[0], Ledger: ledger})
	t.Cleanup(r.Down)
	return r, ledger
}

// up has a receiver listen.
func up(t testing.TB, r *receiver.Receiver) {
	t.Helper()
	if err := r.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
}
