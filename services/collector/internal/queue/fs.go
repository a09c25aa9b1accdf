package queue

import (
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/directory"
)

// FS is what a queue needs of a file system. Names are paths. It is safe for
// concurrent use, and any call may hang for as long as the disk does.
type FS interface {
	// Claim makes a directory, when it is missing, and takes the one lock on it
	// until the result is closed. It fails at once, with ErrLocked, when the lock
	// is taken.
	Claim(dir string) (io.Closer, error)

	// List tells the files of a directory.
	List(dir string) ([]Entry, error)

	// OpenFile is as [os.OpenFile].
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)

	// Remove takes a name away; who has the file open still reads it.
	Remove(name string) error

	// SyncDir makes the names in a directory durable.
	SyncDir(dir string) error
}

// An Entry is a file of a directory.
type Entry struct {
	// Name is without the directory.
	Name string

	// Size is in bytes, Changed when they were last written.
	Size    int64
	Changed time.Time
}

// A File is an open file.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer

	// Sync makes contents and size durable. After an error what was written since
	// the last success may be lost, whatever a later call returns.
	Sync() error

	// Truncate changes the size.
	Truncate(size int64) error
}

const (
	dirMode  = 0o700
	fileMode = 0o600 // labels are nobody else's business
)

// system is the operating system's.
type system struct{}

// Claim is [directory.Claim], of a directory that is made when it is missing.
func (system) Claim(dir string) (io.Closer, error) {
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, err
	}
	return directory.Claim(dir, ErrLocked)
}

// List is [os.ReadDir] with sizes.
func (system) List(dir string) ([]Entry, error) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	all := make([]Entry, 0, len(names))
	for _, d := range names {
		info, err := d.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue // gone, or none of ours
		}
		all = append(all, Entry{d.Name(), info.Size(), info.ModTime()})
	}
	return all, nil
}

// OpenFile is [os.OpenFile].
func (system) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	file, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err // not file: that would be a File with nil in it
	}
	return file, nil
}

// Remove is [os.Remove].
func (system) Remove(name string) error { return os.Remove(name) }

// SyncDir is [directory.Sync].
func (system) SyncDir(dir string) error { return directory.Sync(dir) }
