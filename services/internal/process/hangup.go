package process

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// Hangups tells of SIGHUP until ctx ends, and keeps it from ending the process.
// Of several that come before one is received, one is told.
func Hangups(ctx context.Context) <-chan os.Signal {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	context.AfterFunc(ctx, func() { signal.Stop(signals) })
	return signals
}
