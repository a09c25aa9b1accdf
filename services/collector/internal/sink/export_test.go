package sink

import "context"

// Abandon ends what a Close that ran out of time has left.
func Abandon(t *TSDB) { _ = t.current.Load().db.Close() }

// Keep does what is done every minute. The store's own goroutine must not do it
// meanwhile.
func Keep(t *TSDB) { t.keeper.keep(context.Background()) }

// MMap has all whole chunks written to disk.
func MMap(t *TSDB) { t.current.Load().db.ForceHeadMMap() }

// Operate begins an operator's work on a store.
func Operate(t *TSDB) (end func()) {
	t.operating.Lock()
	return t.operating.Unlock
}

// Opened is what the store has open: another one when it was broken and mended.
func Opened(t *TSDB) any { return t.current.Load() }
