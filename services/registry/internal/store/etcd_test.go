package store_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store/storetest"
)

// leaseTTL is that of leases in real time.
const leaseTTL = 6 * time.Second

// An etcdServer is an embedded etcd under exam. Its processes are this one, by
// function calls, or others, by gRPC over its unix socket.
type etcdServer struct {
	dir    string
	socket string
	own    *store.Store
	client *clientv3.Client
}

func newEtcdServer(t *testing.T) *etcdServer {
	t.Helper()
	dir := t.TempDir()
	e := &etcdServer{dir: filepath.Join(dir, "data"), socket: filepath.Join(dir, "s")}
	e.start(t)
	t.Cleanup(func() {
		_ = e.client.Close()
		if err := e.own.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return e
}

func (e *etcdServer) start(t *testing.T) {
	t.Helper()
	e.own = reopenEmbedded(t, store.EmbeddedConfig{Dir: e.dir, SocketPath: e.socket})
	e.client = e.dial(t)
}

func openEmbedded(t testing.TB, config store.EmbeddedConfig) *store.Store {
	t.Helper()
	config.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	s, err := store.OpenEmbedded(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// reopenEmbedded opens a store that was closed while other tests started children:
// a child has all that is open here until it runs, the lock of that store, too.
func reopenEmbedded(t testing.TB, config store.EmbeddedConfig) *store.Store {
	t.Helper()
	config.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	for ctx := background(t); ; {
		s, err := store.OpenEmbedded(ctx, config)
		if errors.Is(err, store.ErrInUse) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

func (e *etcdServer) dial(t testing.TB) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + e.socket}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func (e *etcdServer) restart(t *testing.T) {
	t.Helper()
	_ = e.client.Close()
	if err := e.own.Close(); err != nil {
		t.Fatal(err)
	}
	e.start(t)
}

func (e *etcdServer) server(open func(t *testing.T) storetest.Process) storetest.Server {
	return storetest.Server{
		Open:    open,
		Restart: e.restart,
		Compact: func(t *testing.T, at assignment.Revision) {
			t.Helper()
			if _, err := e.client.Compact(t.Context(), int64(at), clientv3.WithCompactPhysical()); err != nil {
				t.Fatal(err)
			}
		},
		Put: func(t *testing.T, key string, value []byte) {
			t.Helper()
			if _, err := e.client.Put(t.Context(), key, string(value)); err != nil {
				t.Fatal(err)
			}
		},
		Delete: func(t *testing.T, key string) {
			t.Helper()
			if _, err := e.client.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		},
		LeaseTTL: leaseTTL,
	}
}

// TestEmbedded holds the exam for the Store of the process that has the etcd.
func TestEmbedded(t *testing.T) {
	storetest.Run(t, func(t *testing.T, part func(*testing.T, storetest.Server)) {
		t.Helper()
		t.Parallel()
		e := newEtcdServer(t)
		part(t, e.server(func(*testing.T) storetest.Process {
			s := store.Sibling(e.own)
			// The one that has the etcd goes last.
			closeAll := func() error { return s.Close() }
			t.Cleanup(func() { _ = s.Close() })
			return storetest.Process{Store: s, Close: closeAll}
		}))
	})
}

// TestClient holds the exam for Stores of other processes, over gRPC.
func TestClient(t *testing.T) {
	storetest.Run(t, func(t *testing.T, part func(*testing.T, storetest.Server)) {
		t.Helper()
		t.Parallel()
		e := newEtcdServer(t)
		part(t, e.server(func(t *testing.T) storetest.Process {
			t.Helper()
			client := e.dial(t)
			s := store.OpenClient(client)
			t.Cleanup(func() { _ = s.Close(); _ = client.Close() })
			return storetest.Process{Store: s, Close: s.Close, Kill: func() { _ = client.Close() }}
		}))
	})
}

func background(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
