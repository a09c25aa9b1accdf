package registrar

import (
	"context"
	"errors"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// Errors of a Store. Any other is a fault of the store, after which nothing is
// known of what was asked for.
var (
	// ErrCompacted says that the events after a revision are no longer kept.
	ErrCompacted = errors.New("the store no longer keeps the events after that revision")

	// ErrFull says that the store takes no more writes; it was not written.
	ErrFull = errors.New("the store is full")

	// ErrUnreadable says that a record cannot be decoded. Trying again does not
	// help, and serving without that record would strike somebody off.
	ErrUnreadable = errors.New("a record of the store cannot be read")

	// ErrLeaseLost says that the leased records are gone or going.
	ErrLeaseLost = errors.New("the lease of this process is lost")
)

// A Store keeps the roster. It is safe for concurrent use.
//
// Physics: a committed Txn is durable, also after kill -9 of every registry
// process; commits have one total order, the revisions; every process sees
// every commit, in that order.
type Store interface {
	// Load calls add with every record and the revision of its last write, all
	// as of one revision, which it returns. An error of add ends it.
	Load(ctx context.Context, add func(roster.Found) error) (assignment.Revision, error)

	// Watch calls apply with the batches after a revision, in order, until ctx
	// ends or apply or the store fails. ErrCompacted: load anew.
	Watch(ctx context.Context, after assignment.Revision, apply func(roster.Batch) error) error

	// Commit carries out each of txns by itself and returns an outcome for
	// each. It may join them in larger transactions. With an error nothing is
	// known of any of them.
	Commit(ctx context.Context, txns []roster.Txn) ([]roster.Outcome, error)

	// Sync returns the store's revision, linearizably, and has every running
	// Watch of this Store bring a batch of at least that revision soon.
	Sync(ctx context.Context) (assignment.Revision, error)

	// HoldLease makes leased writes possible: it calls held once there is a
	// lease, keeps it until ctx ends, then gives it up. ErrLeaseLost: the
	// store has let it run out.
	HoldLease(ctx context.Context, ttl time.Duration, held func()) error
}
