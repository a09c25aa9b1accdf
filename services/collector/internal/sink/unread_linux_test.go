package sink_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sink"
)

// TestALogThatCannotBeReadIsNotCut has the disk give no part of the log that is
// not its last one when the store is opened, and give it later. The store's own
// repair would remove all behind it.
func TestALogThatCannotBeReadIsNotCut(t *testing.T) {
	dir := t.TempDir()
	s := series("__name__", "a")
	now := nowMs()
	for i := range 4 { // each opening begins a segment
		store := open(t, sink.TSDBConfig{Dir: dir})
		write(t, store, batch(at(s, now+int64(i), float64(i))))
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
	}
	name := func(n int) string { return filepath.Join(dir, "wal", fmt.Sprintf("%08d", n)) }
	aside := filepath.Join(t.TempDir(), "segment")
	if err := os.Rename(name(1), aside); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/proc/self/mem", name(1)); err != nil { // reads give EIO
		t.Fatal(err)
	}
	store := open(t, sink.TSDBConfig{Dir: dir})
	if st := store.Status(); !st.Failing {
		t.Error("a store whose log cannot be read is not failing")
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(aside, name(1)); err != nil {
		t.Fatal(err)
	}
	wantSamples(t, open(t, sink.TSDBConfig{Dir: dir}), "a", map[string][]point{
		`{__name__="a"}`: {pt(now, 0), pt(now+1, 1), pt(now+2, 2), pt(now+3, 3)},
	})
}
