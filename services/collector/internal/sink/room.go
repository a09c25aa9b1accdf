package sink

import (
	"sync/atomic"
	"time"
)

// lookAfter is how long what was seen of the file system is believed.
const lookAfter = 100 * time.Millisecond

// A room watches how much of a file system is free, so that a full one is noticed
// before a write fails in its middle. It is safe for concurrent use.
type room struct {
	dir     string
	reserve int64 // as TSDBConfig.ReserveBytes

	looked atomic.Int64 // when, in nanoseconds since the Unix epoch
	seen   atomic.Pointer[error]
}

// check is an error when nothing should be written.
func (r *room) check(now time.Time) error {
	last := r.looked.Load()
	if age := now.UnixNano() - last; (age >= int64(lookAfter) || age < 0) && r.looked.CompareAndSwap(last, now.UnixNano()) {
		err := r.look()
		r.seen.Store(&err)
	}
	if err := r.seen.Load(); err != nil {
		return *err
	}
	return nil
}
