// Package directory takes directories for one process, and makes the names in
// them durable: what the queue and the state file both need of the disk.
//
// Its invariant: a claimed directory is nobody else's until the claim is closed or
// the process dies, also where the volume has become read-only.
package directory

import (
	"errors"
	"io"
	"os"
	"path/filepath"
)

const (
	lockName = "lock"
	fileMode = 0o600
)

// Claim takes the one lock on a directory, which must be there, until the result
// is closed. It fails at once when the lock is taken, and wraps the error taken.
//
// The file that is locked stays: removing it would let two processes lock two
// files of one name.
func Claim(dir string, taken error) (io.Closer, error) {
	name := filepath.Join(dir, lockName)
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		// A volume that has become read-only can still be read and locked.
		readable, second := os.Open(name)
		if second != nil {
			return nil, err
		}
		file = readable
	}
	if err := flock(file, taken); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// Sync makes the names in a directory durable: it syncs the directory as if it
// were a file.
func Sync(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
