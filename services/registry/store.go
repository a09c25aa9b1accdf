package registry

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
)

func openStore(ctx context.Context, c Config) (*store.Store, error) {
	var s *store.Store
	var err error
	switch {
	case c.Memory != nil:
		return c.Memory.OpenFaulty(c.MemoryFaults), nil
	case c.Etcd != nil:
		external := *c.Etcd
		external.Logger = c.Logger
		s, err = store.OpenExternal(ctx, external)
	default:
		s, err = openEmbedded(ctx, c)
	}
	if err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	return s, nil
}

// socketName is, in the data directory, where etcdctl reaches the store in it.
const socketName = "etcd.sock"

func openEmbedded(ctx context.Context, c Config) (*store.Store, error) {
	dir, err := filepath.Abs(c.DataDir)
	if err != nil {
		return nil, err
	}
	return store.OpenEmbedded(ctx, store.EmbeddedConfig{
		Dir: c.DataDir, QuotaBytes: c.QuotaBytes, SocketPath: filepath.Join(dir, socketName), Logger: c.Logger,
	})
}
