package store_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store/storetest"
)

var errKilled = errors.New("killed")

func memoryServer(ttl time.Duration) storetest.Server {
	memory := store.NewMemory()
	return storetest.Server{
		Open: func(t *testing.T) storetest.Process {
			t.Helper()
			var killed atomic.Bool
			s := memory.OpenFaulty(func(string) error {
				if killed.Load() {
					return errKilled
				}
				return nil
			})
			t.Cleanup(func() { _ = s.Close() })
			return storetest.Process{Store: s, Close: s.Close, Kill: func() { killed.Store(true) }}
		},
		Restart:  func(*testing.T) {},
		Compact:  func(_ *testing.T, at assignment.Revision) { memory.Compact(at) },
		Put:      func(_ *testing.T, key string, value []byte) { memory.Put(key, value) },
		Delete:   func(_ *testing.T, key string) { memory.Delete(key) },
		LeaseTTL: ttl,
	}
}

func TestMemoryInBubble(t *testing.T) {
	storetest.Run(t, func(t *testing.T, part func(*testing.T, storetest.Server)) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) { part(t, memoryServer(15*time.Second)) })
	})
}

func TestMemoryOutsideBubble(t *testing.T) {
	storetest.Run(t, func(t *testing.T, part func(*testing.T, storetest.Server)) {
		t.Helper()
		t.Parallel()
		part(t, memoryServer(leaseTTL))
	})
}
