package store

import (
	"context"
	"time"
)

// A kv keeps bytes under keys as etcd does: each transaction that changes
// something gets the next revision, old revisions can be read until they are
// compacted. It is safe for concurrent use. Its errors are registrar's
// ErrCompacted, ErrFull and ErrLeaseLost where those fit.
type kv interface {
	// revision is the current one, linearizably.
	revision(ctx context.Context) (int64, error)

	// page reads at most limit items of the keys from <= key < to, in order, as
	// of a revision; zero: as of now, linearizably.
	page(ctx context.Context, from, to string, at int64, limit int) (page, error)

	// commit carries out the writes if every one of them, the checks too, finds
	// what it expects, else none of them; then, with read, it tells what it found,
	// in order. No key comes twice.
	commit(ctx context.Context, writes []write, read bool) (result, error)

	// watch brings the changes of all keys that begin with keyPrefix after a
	// revision, until ctx ends.
	watch(ctx context.Context, keyPrefix string, after int64) (*stream, error)
}

// A leaser lets keys stand only while someone keeps their lease alive.
type leaser interface {
	// grant makes a lease that lives ttl, or somewhat longer, as it says.
	grant(ctx context.Context, ttl time.Duration) (lease int64, granted time.Duration, err error)

	// keepAlive lets the lease live for all of its time again. It tries once.
	keepAlive(ctx context.Context, lease int64) error

	// revoke ends the lease and deletes its keys.
	revoke(ctx context.Context, lease int64) error
}

// An item is what stands under a key; modified is zero where nothing does.
type item struct {
	key      string
	value    []byte
	modified int64
}

// A page is a part of a range, all as of revision. more: it goes on after the
// last item.
type page struct {
	revision int64
	items    []item
	more     bool
}

// A write puts, deletes or, to check, leaves alone one key that was last modified
// at expect.
type write struct {
	key    string
	expect int64
	value  []byte
	delete bool
	check  bool
	lease  int64
}

// A result is what became of writes, at revision.
type result struct {
	committed bool
	revision  int64
	found     []item
}

// A stream is a running watch. Whoever asked for it receives from responses
// until that is closed, which it is soon after the watch's context ends or
// after a response with an error.
type stream struct {
	responses <-chan response

	// progress asks for a response although nothing has changed. It may go
	// unheard while the watch is catching up: ask again.
	progress func() error
}

// A response brings every change of one revision. Without changes it says that
// there are no more up to that revision.
type response struct {
	revision int64
	changes  []change
	err      error
}

// A change is what came to stand under a key.
type change struct {
	key     string
	value   []byte
	deleted bool
}
