//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package queue

import (
	"errors"
	"fmt"
	"os"
)

// flock refuses: two processes on one queue would each remove what the other has.
func flock(file *os.File) error {
	return fmt.Errorf("lock %s: %w", file.Name(), errors.ErrUnsupported)
}
