package directory_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/directory"
)

var errTaken = errors.New("taken")

func claim(t *testing.T, dir string) io.Closer {
	t.Helper()
	lock, err := directory.Claim(dir, errTaken)
	if err != nil {
		t.Fatal(err)
	}
	return lock
}

func release(t *testing.T, lock io.Closer) {
	t.Helper()
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
}

// A second claim fails, also in this process; one after the first was closed does
// not, and finds the same file.
func TestClaim(t *testing.T) {
	dir := t.TempDir()
	first := claim(t, dir)
	file, err := os.Stat(filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := directory.Claim(dir, errTaken); !errors.Is(err, errTaken) {
		t.Errorf("a second claim: %v", err)
	}
	release(t, first)
	release(t, claim(t, dir))
	if again, err := os.Stat(filepath.Join(dir, "lock")); err != nil || !os.SameFile(file, again) {
		t.Errorf("the file of the lock is another one: %v", err)
	}
}

func TestClaimOfNothing(t *testing.T) {
	if _, err := directory.Claim(filepath.Join(t.TempDir(), "absent"), errTaken); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
