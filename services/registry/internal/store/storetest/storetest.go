// Package storetest is the exam that every body of the registrar's store has to
// pass: what registrar.Store promises, tried on a running server.
//
// Its invariant: it knows nothing of how a store does it, so a store that passes
// can take the place of another one.
package storetest

import (
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
)

// A Process is one process's access to the store.
type Process struct {
	registrar.Store

	// Close is the orderly end. It may be called more than once.
	Close func() error

	// Kill ends the process as kill -9 does: its lease is not given up. Nil if
	// this body cannot.
	Kill func()
}

// A Server is a new, empty store under exam. What it starts it also cleans up,
// by t.Cleanup.
type Server struct {
	// Open opens the store for one more process.
	Open func(t *testing.T) Process

	// Restart stops the server and starts it again; all processes have closed.
	Restart func(t *testing.T)

	// Compact forgets what was before a revision.
	Compact func(t *testing.T, at assignment.Revision)

	// Put writes bytes under a key, past the types.
	Put func(t *testing.T, key string, value []byte)

	// Delete removes a key, past the types.
	Delete func(t *testing.T, key string)

	// LeaseTTL is how long its leases live. A machine that stands still for half of
	// that loses none.
	LeaseTTL time.Duration
}

// Run holds the exam, each part of it in a subtest. with gives the part a new
// server, in a bubble of testing/synctest if it likes.
func Run(t *testing.T, with func(t *testing.T, part func(t *testing.T, server Server))) {
	t.Helper()
	for _, p := range []struct {
		name string
		part func(t *testing.T, server Server)
	}{
		{"EmptyStore", emptyStore},
		{"EveryKindOfRecord", everyKindOfRecord},
		{"CreateOnce", createOnce},
		{"EpochIsCreatedOnce", epochIsCreatedOnce},
		{"NoLostUpdate", noLostUpdate},
		{"NoResurrection", noResurrection},
		{"AllOrNothing", allOrNothing},
		{"FoundTellsWhatStands", foundTellsWhatStands},
		{"SameKeyTwiceInOneCall", sameKeyTwiceInOneCall},
		{"OneFailureDoesNotSpreadInAPack", oneFailureDoesNotSpreadInAPack},
		{"CheckWritesNothing", checkWritesNothing},
		{"FailedCheckFails", failedCheckFails},
		{"ManyCheckTheSame", manyCheckTheSame},
		{"ChecksKeepTheirOrder", checksKeepTheirOrder},
		{"NoWriteSkew", noWriteSkew},
		{"Limits", limits},
		{"InvalidWritesNothing", invalidWritesNothing},
		{"LoadIsOfOneRevision", loadIsOfOneRevision},
		{"LoadEndsByAdd", loadEndsByAdd},
		{"LoadOfCompactedRevision", loadOfCompactedRevision},
		{"WatchSeesEachRevisionWhole", watchSeesEachRevisionWhole},
		{"LargeRevisionsStayWhole", largeRevisionsStayWhole},
		{"WatchFromCompactedRevision", watchFromCompactedRevision},
		{"WatchAfterTheFuture", watchAfterTheFuture},
		{"WatchEnds", watchEnds},
		{"SyncOfIdleStore", syncOfIdleStore},
		{"SyncBringsRevisionsWithoutRecords", syncBringsRevisionsWithoutRecords},
		{"LeaseKeepsRecords", leaseKeepsRecords},
		{"LeaseDiesWithItsHolder", leaseDiesWithItsHolder},
		{"NoLeaseNoLeasedWrite", noLeaseNoLeasedWrite},
		{"OneLeaseAtATime", oneLeaseAtATime},
		{"UnknownFieldsAreKept", unknownFieldsAreKept},
		{"UnknownKeysAreIgnored", unknownKeysAreIgnored},
		{"UndecodableRefuses", undecodableRefuses},
		{"RestartKeepsEverything", restartKeepsEverything},
		{"ClosedStore", closedStore},
		{"CanceledContext", canceledContext},
	} {
		t.Run(p.name, func(t *testing.T) { with(t, p.part) })
	}
}
