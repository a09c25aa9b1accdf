//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package directory

import (
	"errors"
	"fmt"
	"os"
)

// flock refuses: two collectors in one directory would overwrite or remove what the
// other has.
func flock(file *os.File, _ error) error {
	return fmt.Errorf("lock %s: %w", file.Name(), errors.ErrUnsupported)
}
