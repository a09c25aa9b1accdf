package directory_test

import (
	"cmp"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/directory"
)

// What cannot be written can be claimed if it was before.
func TestClaimToRead(t *testing.T) {
	if os.Geteuid() == 0 {
		asNobody(t)
		return
	}
	dir := cmp.Or(os.Getenv(nobodysDir), t.TempDir())
	release(t, claim(t, dir))
	if err := os.Chmod(filepath.Join(dir, "lock"), 0o400); err != nil {
		t.Fatal(err)
	}
	lock := claim(t, dir)
	if _, err := directory.Claim(dir, errTaken); !errors.Is(err, errTaken) {
		t.Errorf("a second claim: %v", err)
	}
	release(t, lock)
}

// nobodysDir names a directory of nobody's to the process that asNobody starts.
const nobodysDir = "ROLLCALL_TEST_DIRECTORY"

// asNobody runs the test in a process of another user: root writes everywhere.
func asNobody(t *testing.T) {
	t.Helper()
	const nobody = 65534
	dir, err := os.MkdirTemp("", "claim") //nolint:usetesting // what is above t.TempDir is closed to nobody
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // it is in the directory for such
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	// Where the binary is, nobody may not go.
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), nobodysDir+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, out)
	}
}
