package statefile

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/directory"
)

// FS is what a state file needs of a file system. Names are paths below the
// directory of the state.
type FS interface {
	// Claim makes a directory, durably, when it is missing, and takes the one
	// lock on it until the result is closed. It fails at once, with ErrLocked,
	// when the lock is taken.
	Claim(dir string) (io.Closer, error)

	// OpenFile is as [os.OpenFile]. A file that it makes is durable when it and
	// then its directory have been synced.
	OpenFile(name string, flag int, perm fs.FileMode) (Handle, error)

	// Rename puts a file in the place of another: at once for whoever opens it,
	// durably when the directory has been synced.
	Rename(from, to string) error

	// Remove takes a name away, durably when the directory has been synced.
	Remove(name string) error

	// SyncDir makes the names in a directory durable.
	SyncDir(dir string) error
}

// A Handle is an open file. What was written is durable when Sync returns nil;
// until then any part of it may survive a crash, in no order.
type Handle interface {
	io.ReaderAt
	io.WriteCloser

	// Sync makes contents and size durable. After an error the state of
	// everything written since the last success is unknown, for good.
	Sync() error

	// Truncate changes the size.
	Truncate(size int64) error
}

const (
	dirMode  = 0o700
	fileMode = 0o600 // endpoints and labels are nobody else's business
)

// system is the operating system's.
type system struct{}

// Claim is [directory.Claim], of a directory that is made when it is missing.
func (system) Claim(dir string) (io.Closer, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	return directory.Claim(dir, ErrLocked)
}

// OpenFile is [os.OpenFile].
func (system) OpenFile(name string, flag int, perm fs.FileMode) (Handle, error) {
	file, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err // not file: that would be a Handle with nil in it
	}
	return file, nil
}

// Rename is [os.Rename].
func (system) Rename(from, to string) error { return os.Rename(from, to) }

// Remove is [os.Remove].
func (system) Remove(name string) error { return os.Remove(name) }

// SyncDir is [directory.Sync].
func (system) SyncDir(dir string) error { return directory.Sync(dir) }

// makeDir is [os.MkdirAll], durably: each new directory's name is synced into its
// parent.
func makeDir(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, dirMode); err != nil {
		if errors.Is(err, fs.ErrExist) {
			if info, second := os.Stat(dir); second == nil && info.IsDir() {
				return nil // another process was faster
			}
		}
		return err
	}
	return directory.Sync(parent)
}
