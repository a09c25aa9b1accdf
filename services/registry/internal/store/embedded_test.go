package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
)

func closeStore(t *testing.T, s *store.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// TestEmbeddedIsPrivate looks for listeners and at the modes of what is made.
func TestEmbeddedIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "data")
	socket := filepath.Join(t.TempDir(), "s")
	s := openEmbedded(t, store.EmbeddedConfig{Dir: dir, SocketPath: socket})
	server := store.Server(s)
	if len(server.Peers) != 0 {
		t.Errorf("it listens for peers: %v", server.Peers)
	}
	for _, listener := range server.Clients {
		if network := listener.Addr().Network(); network != "unix" {
			t.Errorf("it listens on %s %s", network, listener.Addr())
		}
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, "member"): 0o700, socket: 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	closeStore(t, s)
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	s = openEmbedded(t, store.EmbeddedConfig{Dir: dir})
	if n := len(store.Server(s).Clients); n != 0 {
		t.Errorf("it listens for %d clients", n)
	}
	closeStore(t, s)
}

// TestEmbeddedIsQuick is about seconds, not milliseconds: it may not wait for
// an election of the usual length or for clients that are gone.
func TestEmbeddedIsQuick(t *testing.T) {
	dir := t.TempDir()
	for range 3 {
		began := time.Now()
		s := openEmbedded(t, store.EmbeddedConfig{Dir: dir})
		opened := time.Now()
		closeStore(t, s)
		t.Logf("opened in %s, closed in %s", opened.Sub(began), time.Since(opened))
		if opened.Sub(began) > 20*time.Second || time.Since(opened) > 20*time.Second {
			t.Error("that is too long")
		}
	}
}

func TestSecondOpenFailsAtOnce(t *testing.T) {
	dir := t.TempDir()
	s := openEmbedded(t, store.EmbeddedConfig{Dir: dir})
	began := time.Now()
	_, err := store.OpenEmbedded(t.Context(), store.EmbeddedConfig{Dir: dir})
	if !errors.Is(err, store.ErrInUse) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), dir) {
		t.Errorf("second open: %v", err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
	closeStore(t, s)
	// Another program, which knows nothing of our lock, has the database.
	db, err := bolt.Open(filepath.Join(dir, "member", "snap", "db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.OpenEmbedded(t.Context(), store.EmbeddedConfig{Dir: dir}); !errors.Is(err, store.ErrInUse) {
		t.Errorf("open beside another program: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	closeStore(t, openEmbedded(t, store.EmbeddedConfig{Dir: dir}))
}

func TestOpenFails(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, open := range map[string]func() (*store.Store, error){
		"no directory": func() (*store.Store, error) { return store.OpenEmbedded(t.Context(), store.EmbeddedConfig{}) },
		"a file":       func() (*store.Store, error) { return store.OpenEmbedded(t.Context(), store.EmbeddedConfig{Dir: file}) },
		"a negative retention": func() (*store.Store, error) {
			return store.OpenEmbedded(t.Context(), store.EmbeddedConfig{Dir: filepath.Join(dir, "r"), Retention: -1})
		},
		"a negative quota": func() (*store.Store, error) {
			return store.OpenEmbedded(t.Context(), store.EmbeddedConfig{Dir: filepath.Join(dir, "q"), QuotaBytes: -1})
		},
		"a relative socket": func() (*store.Store, error) {
			return store.OpenEmbedded(t.Context(), store.EmbeddedConfig{Dir: filepath.Join(dir, "q"), SocketPath: "s"})
		},
		"canceled": func() (*store.Store, error) {
			return store.OpenEmbedded(canceled, store.EmbeddedConfig{Dir: filepath.Join(dir, "c")})
		},
	} {
		s, err := open()
		if err == nil {
			t.Errorf("%s: no error", name)
			closeStore(t, s)
		}
		t.Logf("%s: %v", name, err)
	}
	// Nothing that failed keeps its directory for long.
	ctx := background(t)
	for {
		s, err := store.OpenEmbedded(ctx, store.EmbeddedConfig{Dir: filepath.Join(dir, "c")})
		if err == nil {
			closeStore(t, s)
			break
		}
		if !errors.Is(err, store.ErrInUse) || ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

// TestSocketLeftOut opens stores where no socket can be: they do without, say
// so, and take nothing away from there but what a killed process left.
func TestSocketLeftOut(t *testing.T) {
	dir := t.TempDir()
	full := filepath.Join(dir, "full")
	if err := os.MkdirAll(filepath.Join(full, "kept"), 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(dir, "stale")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	if err := left.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, path string
		clients    int
	}{
		{"no directory", filepath.Join(dir, "missing", "s"), 0},
		{"too long", filepath.Join(dir, strings.Repeat("x", 108)), 0},
		{"a directory", full, 0},
		{"a file", file, 0},
		{"a stale socket", stale, 1},
	} {
		var log bytes.Buffer
		s, err := store.OpenEmbedded(t.Context(), store.EmbeddedConfig{
			Dir: filepath.Join(dir, "data"), SocketPath: c.path, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if n := len(store.Server(s).Clients); n != c.clients {
			t.Errorf("%s: it listens for %d clients, want %d", c.name, n, c.clients)
		}
		closeStore(t, s)
		if warned := strings.Contains(log.String(), "cannot be backed up"); warned != (c.clients == 0) {
			t.Errorf("%s: it says %q", c.name, log.String())
		}
	}
	for _, path := range []string{filepath.Join(full, "kept"), file} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}

// TestDamagedLog opens a store of which a part of the log is overwritten.
func TestDamagedLog(t *testing.T) {
	dir := t.TempDir()
	s := openEmbedded(t, store.EmbeddedConfig{Dir: dir})
	for i := range 100 {
		if _, err := s.Commit(t.Context(), []roster.Txn{create(fmt.Sprint(i))}); err != nil {
			t.Fatal(err)
		}
	}
	closeStore(t, s)
	logs, err := filepath.Glob(filepath.Join(dir, "member", "wal", "*.wal"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no log: %v", err)
	}
	log, err := os.OpenFile(logs[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := log.WriteAt(bytes.Repeat([]byte{0x5a}, 64), 2000); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	s, err = store.OpenEmbedded(t.Context(), store.EmbeddedConfig{Dir: dir})
	if err == nil {
		closeStore(t, s)
		t.Fatal("opened")
	}
	t.Log(err)
}

// TestBackup saves a backup over the socket and opens what it holds.
func TestBackup(t *testing.T) {
	e := newEtcdServer(t)
	if _, err := e.own.Commit(t.Context(), []roster.Txn{create("a/b")}); err != nil {
		t.Fatal(err)
	}
	backup, err := e.client.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	saved, err := io.ReadAll(backup)
	if err != nil || !bytes.Contains(saved, []byte("/rollcall/v1/producers/a/b")) {
		t.Fatalf("the backup of %d bytes does not hold the record: %v", len(saved), err)
	}
	_ = backup.Close()
}

// TestFullStore fills a small store. It goes on being read, watched and deleted
// from, and takes writes again when there is space.
func TestFullStore(t *testing.T) {
	t.Parallel()
	const quota = 8 << 20
	dir := t.TempDir()
	s := openEmbedded(t, store.EmbeddedConfig{Dir: dir, QuotaBytes: quota})
	written := fillUp(t, s, "a")
	if err := s.HoldLease(t.Context(), time.Second, func() {}); !errors.Is(err, registrar.ErrFull) {
		t.Errorf("a lease of a full store: %v", err)
	}
	stands := map[string]assignment.Revision{}
	_, err := s.Load(t.Context(), func(found roster.Found) error {
		stands[found.Record.Key().ID] = found.Revision
		return nil
	})
	if diff := cmp.Diff(written, stands); err != nil || diff != "" {
		t.Errorf("%v; what stands is not what was written (-want +got):\n%s", err, diff)
	}
	synced, err := s.Sync(t.Context())
	if err != nil {
		t.Error(err)
	}
	err = s.Watch(t.Context(), 1, func(b roster.Batch) error {
		if b.Revision >= synced {
			return errStop
		}
		return nil
	})
	if !errors.Is(err, errStop) {
		t.Errorf("a watch of a full store: %v", err)
	}
	closeStore(t, s)
	// A larger quota is enough.
	s = reopenEmbedded(t, store.EmbeddedConfig{Dir: dir, QuotaBytes: 2 * quota})
	maps.Copy(written, fillUp(t, s, "b"))
	// So are deletes, once their history is forgotten.
	var deletes []roster.Txn
	for id, revision := range written {
		deletes = append(deletes, roster.Txn{{Key: roster.ProducerKey(assignment.ProducerID(id)), Expect: revision}})
	}
	if _, err := s.Commit(t.Context(), deletes); err != nil {
		t.Fatal(err)
	}
	compactAll(t, s)
	// The space is free when etcd has next written to its file.
	for ctx := background(t); ctx.Err() == nil; {
		store.LookAfter(s)
		if _, err = s.Commit(t.Context(), []roster.Txn{create("again")}); err == nil {
			break
		}
	}
	if err != nil {
		t.Errorf("after everything was deleted: %v", err)
	}
	closeStore(t, s)
}

// fillUp writes until the store is full, with several writers, so that some of
// their transactions are under way when it gets full. What has an outcome has it
// although etcd may have answered that there is no space.
func fillUp(t *testing.T, s *store.Store, name string) map[string]assignment.Revision {
	t.Helper()
	var (
		mu      sync.Mutex
		written = map[string]assignment.Revision{}
		group   sync.WaitGroup
	)
	for writer := range 6 {
		group.Go(func() {
			for i := range 1000 {
				r := record(fmt.Sprintf("%s%d.%d", name, writer, i), strings.Repeat("x", 900_000))
				outcomes, err := s.Commit(t.Context(), []roster.Txn{
					{{Key: r.Key(), Record: r}, {Key: roster.ProducerKey("nobody"), Check: true}},
				})
				if err != nil {
					if !errors.Is(err, registrar.ErrFull) {
						t.Error(err)
					}
					return
				}
				mu.Lock()
				written[string(r.ID)] = outcomes[0].Revision
				mu.Unlock()
			}
			t.Error("it does not get full")
		})
	}
	group.Wait()
	return written
}

func compactAll(t *testing.T, s *store.Store) {
	t.Helper()
	revision, err := s.Sync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Compact(t.Context(), s, int64(revision)); err != nil {
		t.Fatal(err)
	}
}

// TestClientOfStoppedStore asks a server that is gone.
func TestClientOfStoppedStore(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "s")
	server := openEmbedded(t, store.EmbeddedConfig{Dir: t.TempDir(), SocketPath: socket})
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + socket}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	s := store.OpenClient(client)
	began := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		first := true
		ended <- s.Watch(t.Context(), 1, func(roster.Batch) error {
			if first {
				first = false
				close(began)
			}
			return nil
		})
	}()
	<-began
	closeStore(t, server)
	if err := <-ended; err == nil || errors.Is(err, registrar.ErrCompacted) {
		t.Errorf("the watch ended with %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := s.Commit(ctx, []roster.Txn{create("a")}); err == nil {
		t.Error("a commit without a server")
	}
	closeStore(t, s)
}
