package registry

import (
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
)

// A MemoryStore keeps the roster in memory, for tests. It outlives the
// registries that use it.
type MemoryStore = store.Memory

// A MemorySnapshot is a MemoryStore as it was.
type MemorySnapshot = store.MemorySnapshot

// NewMemoryStore makes an empty one.
func NewMemoryStore() *MemoryStore { return store.NewMemory() }

// The operations of a MemoryStore that a test fails by name.
const (
	MemoryCommit = store.OpCommit
	MemoryGrant  = store.OpGrant
)

// ErrStoreFull is what a store that is full answers to a write.
var ErrStoreFull = registrar.ErrFull
