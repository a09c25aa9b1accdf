package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/embed"
)

// lockDir makes the directory and keeps other processes out of it. etcd would
// wait for its database file without end.
func lockDir(dir string) (*fileutil.LockedFile, error) {
	if err := os.MkdirAll(dir, fileutil.PrivateDirMode); err != nil {
		return nil, err
	}
	// A directory that is another's, like a mounted volume, may not be changed;
	// what etcd makes inside is private all the same.
	_ = os.Chmod(dir, fileutil.PrivateDirMode)
	lock, err := fileutil.TryLockFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, fileutil.PrivateFileMode)
	if errors.Is(err, fileutil.ErrLocked) {
		return nil, ErrInUse
	}
	if err != nil {
		return nil, err
	}
	// An etcd that was started on the directory by hand knows nothing of the
	// lock. Other faults of the file are etcd's to report.
	database := filepath.Join(dir, "member", "snap", "db")
	if _, err := os.Stat(database); errors.Is(err, fs.ErrNotExist) {
		return lock, nil
	}
	db, err := bolt.Open(database, fileutil.PrivateFileMode, &bolt.Options{ReadOnly: true, Timeout: time.Millisecond})
	switch {
	case err == nil:
		_ = db.Close()
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, errors.Join(ErrInUse, lock.Close())
	}
	return lock, nil
}

// maxSocketPath is the longest path of a socket, in bytes: a struct sockaddr_un
// has 108 on Linux, the last of which is zero.
const maxSocketPath = 107

// tryBind finds out whether there can be a socket at a path; to etcd it would be
// fatal that there cannot. The caller holds the lock of the directory: what is
// there was left by a process that was killed.
func tryBind(path string) error {
	if path == "" {
		return nil
	}
	if len(path) > maxSocketPath {
		return fmt.Errorf("the path has %d bytes; a socket's may have %d", len(path), maxSocketPath)
	}
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there, and is no socket", path)
	default:
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	return listener.Close() // removes it
}

// start returns when etcd is ready. If it fails it releases the lock, but not
// before what was started is stopped.
func start(ctx context.Context, config EmbeddedConfig, lock *fileutil.LockedFile, now *atomic.Int32) (*embed.Etcd, error) {
	stopped, err := create(ctx, config, now)
	if err == nil {
		var server *embed.Etcd
		if server, stopped, err = launch(ctx, config, now); err == nil {
			return server, nil
		}
	}
	release := func() { <-stopped; _ = lock.Close() }
	select {
	case <-stopped:
		release()
	default:
		go release()
	}
	return nil, err
}

// create makes a new store beside the place where it is to be and moves it
// there when it is whole. An etcd that dies while it makes its first log leaves
// one behind with which it never becomes ready again. With an error stopped is
// closed as by launch.
func create(ctx context.Context, config EmbeddedConfig, now *atomic.Int32) (stopped <-chan struct{}, err error) {
	const member = "member"
	place := filepath.Join(config.Dir, member)
	draft := config
	draft.Dir = filepath.Join(config.Dir, "new")
	draft.SocketPath = ""
	if err := os.RemoveAll(draft.Dir); err != nil {
		return closed(), err
	}
	if _, err := os.Stat(place); !errors.Is(err, fs.ErrNotExist) {
		return closed(), err
	}
	server, stopped, err := launch(ctx, draft, now)
	if err != nil {
		return stopped, err
	}
	now.Store(int32(stopping))
	server.Close()
	now.Store(int32(starting))
	if err := os.Rename(filepath.Join(draft.Dir, member), place); err != nil {
		return closed(), err
	}
	return closed(), errors.Join(os.RemoveAll(draft.Dir), syncDir(config.Dir))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(fileutil.Fsync(dir), dir.Close())
}

// launch starts etcd and returns when it is ready. If it fails, stopped is
// closed once nothing of it runs any more.
func launch(ctx context.Context, config EmbeddedConfig, now *atomic.Int32) (_ *embed.Etcd, stopped <-chan struct{}, err error) {
	var (
		server   *embed.Etcd
		startErr error
	)
	begun := async(func() { server, startErr = startEtcd(config, now) })
	select {
	case <-begun:
	case <-ctx.Done():
		// It cannot be interrupted while it reads its log.
		return nil, async(func() {
			if <-begun; server != nil {
				server.Close()
			}
		}), context.Cause(ctx)
	}
	if startErr != nil {
		return nil, closed(), startErr
	}
	// Nobody is answered there before etcd is ready.
	if config.SocketPath != "" {
		if err := os.Chmod(config.SocketPath, fileutil.PrivateFileMode); err != nil {
			return nil, async(server.Close), err
		}
	}
	if err := awaitReady(ctx, server); err != nil {
		return nil, async(server.Close), err
	}
	return server, nil, nil
}

func awaitReady(ctx context.Context, server *embed.Etcd) error {
	select {
	case <-server.Server.ReadyNotify():
		return nil
	case err := <-server.Err():
		return err
	case <-server.Server.StopNotify():
		return errors.New("etcd stopped while it was starting")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// async does something in a goroutine and closes what it returns at the end.
func async(do func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	return done
}

func closed() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// startEtcd turns what etcd panics of or exits for, like a damaged log, into an
// error.
func startEtcd(config EmbeddedConfig, now *atomic.Int32) (server *embed.Etcd, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			server, err = nil, fmt.Errorf("etcd cannot start: %v", reason)
		}
	}()
	return embed.StartEtcd(etcdConfig(config, newEtcdLogger(config.Logger, now)))
}
