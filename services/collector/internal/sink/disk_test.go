package sink_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sink"
)

// need skips a test whose tools are not there, or fails where all must be.
func need(t *testing.T, what string, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if os.Getenv("ROLLCALL_REQUIRE_ALL") == "1" {
		t.Fatalf("%s: %v, and ROLLCALL_REQUIRE_ALL=1", what, err)
	}
	t.Skipf("%s: %v", what, err)
}

// tmpfs is a file system of that many bytes, until the test ends.
func tmpfs(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	need(t, "mount a tmpfs", syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)))
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// ext4 is a file system on a device of that many bytes, until the test ends, and
// the device's name. An error makes it read-only.
func ext4(t *testing.T, size int64) (dir, device string) {
	t.Helper()
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skipf("no loop devices on this machine: %v", err)
	}
	image, dir := filepath.Join(t.TempDir(), "image"), t.TempDir()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) string {
		out, err := exec.CommandContext(context.WithoutCancel(t.Context()), name, args...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		need(t, name, err)
		return strings.TrimSpace(string(out))
	}
	run("mkfs.ext4", "-q", "-e", "remount-ro", image)
	run("mount", "-o", "loop", image, dir)
	t.Cleanup(func() { run("umount", "-l", dir) })
	return dir, filepath.Base(run("findmnt", "-n", "-o", "SOURCE", dir))
}

// A feed writes batches to a store and knows which of them were acknowledged.
type feed struct {
	series []*sample.Series
	time   int64
	acked  []int64
}

func newFeed() *feed {
	f := &feed{time: nowMs() - 1_000_000}
	for i := range 500 {
		f.series = append(f.series, series("__name__", "fed", "i", fmt.Sprint(i), "padding", strings.Repeat("x", 50)))
	}
	return f
}

// write writes the next batch, of values that compress badly: it takes more than
// a page of the log.
func (f *feed) write(ctx context.Context, store *sink.TSDB) error {
	f.time++
	b := &sample.Batch{}
	for i, s := range f.series {
		b.Samples = append(b.Samples, at(s, f.time, 1/float64(f.time+int64(i*7919))))
	}
	err := store.Write(ctx, b)
	if err == nil {
		f.acked = append(f.acked, f.time)
	}
	return err
}

// patience bounds every wait for a disk, but for those that are about giving up.
const patience = 2 * time.Minute

// succeed writes till it succeeds: the store looks at its disk in its own time.
func (f *feed) succeed(t *testing.T, store *sink.TSDB) {
	t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = f.write(t.Context(), store); err == nil {
			return
		}
	}
	t.Fatalf("still no batch is taken after %v: %v", patience, err)
}

// fail writes till it fails, and gives the error.
func (f *feed) fail(t *testing.T, store *sink.TSDB) error {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if err := f.write(t.Context(), store); err != nil {
			return err
		}
	}
	t.Fatalf("every batch is still taken after %v", patience)
	return nil
}

// want compares what a store has with what was acknowledged. It may have more.
func (f *feed) want(t *testing.T, store *sink.TSDB) {
	t.Helper()
	all := read(t, store, "fed")
	for _, s := range f.series {
		has := map[int64]bool{}
		for _, p := range all[s.Labels().String()] {
			has[p.Time] = true
		}
		lost := 0
		for _, ms := range f.acked {
			if !has[ms] {
				lost++
			}
		}
		if lost > 0 {
			t.Fatalf("%s: %d of %d acknowledged samples are lost", s.Labels(), lost, len(f.acked))
		}
	}
}

// fill leaves a file system that many bytes, and gives what to remove.
func fill(t *testing.T, dir string, leave int64) string {
	t.Helper()
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "filler")
	if err := os.WriteFile(name, make([]byte, int64(fs.Bavail)*fs.Bsize-leave), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestAFullDiskLosesNothingThatWasAcknowledged(t *testing.T) {
	tests := map[string]struct {
		reserve, leave int64
	}{
		"with a reserve": {reserve: 32 << 20, leave: 33 << 20},
		"without":        {reserve: -1, leave: 1_300_000},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := tmpfs(t, 96<<20)
			dir := filepath.Join(disk, "tsdb")
			store := open(t, sink.TSDBConfig{Dir: dir, ReserveBytes: test.reserve, OutOfOrderWindow: time.Hour})
			f := newFeed()
			for range 20 {
				f.succeed(t, store)
			}
			filler := fill(t, disk, test.leave)
			err := f.fail(t, store)
			if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("error is %v, want one of no space", err)
			}
			if s := store.Status(); !s.Failing || s.LastError == "" || s.LastErrorTime.IsZero() {
				t.Errorf("status is %+v, want a failing one", s)
			}
			for range 50 {
				_ = f.write(t.Context(), store)
			}
			f.want(t, store) // it is still read

			// What a process that is killed now finds, on a disk that is still full.
			during := open(t, sink.TSDBConfig{Dir: crash(t, dir), OutOfOrderWindow: time.Hour})
			f.want(t, during)

			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
			before, opened := len(f.acked), sink.Opened(store)
			for range 50 {
				f.succeed(t, store)
			}
			if s := store.Status(); s.Failing {
				t.Errorf("status is %+v", s)
			}
			if test.reserve > 0 && sink.Opened(store) != opened {
				t.Error("the store was opened anew; with room in reserve it is not to be broken")
			}
			f.want(t, store)
			after := open(t, sink.TSDBConfig{Dir: crash(t, dir), OutOfOrderWindow: time.Hour})
			f.want(t, after)
			t.Logf("%d batches acknowledged before the disk was full, %d after", before, len(f.acked)-before)
		})
	}
}

func TestAStoreOpensOnAFullDiskLater(t *testing.T) {
	t.Parallel()
	disk := tmpfs(t, 64<<20)
	dir := filepath.Join(disk, "tsdb")
	config := sink.TSDBConfig{Dir: dir, ReserveBytes: -1, WriteWait: patience, Logger: slog.New(slog.DiscardHandler)}
	first, err := sink.OpenTSDB(config)
	if err != nil {
		t.Fatal(err)
	}
	f := newFeed()
	fill(t, disk, 300_000)
	if err := f.fail(t, first); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("error is %v, want one of no space", err)
	}
	for range 20 {
		_ = f.write(t.Context(), first)
	}
	if err := first.Close(); err != nil {
		t.Log("the broken store was closed with an error: ", err)
	}
	store := open(t, config)
	if err := os.Remove(filepath.Join(disk, "filler")); err != nil {
		t.Fatal(err)
	}
	f.succeed(t, store)
	f.want(t, store)
}

func TestADiskThatBecomesReadOnly(t *testing.T) {
	t.Parallel()
	disk, device := ext4(t, 64<<20)
	trigger := filepath.Join("/sys/fs/ext4", device, "trigger_fs_error")
	if _, err := os.Stat(trigger); err != nil {
		need(t, "make ext4 fail", err)
	}
	store, err := sink.OpenTSDB(sink.TSDBConfig{Dir: filepath.Join(disk, "tsdb"), WriteWait: patience, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() }) // it cannot write the end of its log
	f := newFeed()
	for range 20 {
		f.succeed(t, store)
	}
	if err := os.WriteFile(trigger, []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.fail(t, store); !errors.Is(err, syscall.EROFS) {
		t.Errorf("error is %v, want one of a read-only file system", err)
	}
	f.want(t, store)
	after := open(t, sink.TSDBConfig{Dir: crash(t, filepath.Join(disk, "tsdb"))})
	f.want(t, after)
}

func TestAFrozenDiskHoldsNobody(t *testing.T) {
	t.Parallel()
	disk, _ := ext4(t, 64<<20)
	store := open(t, sink.TSDBConfig{Dir: filepath.Join(disk, "tsdb"), WriteWait: sink.DefaultWriteWait})
	f := newFeed()
	for range 20 {
		f.succeed(t, store)
	}
	freeze := func(flag string) {
		out, err := exec.CommandContext(context.WithoutCancel(t.Context()), "fsfreeze", flag, disk).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		need(t, "fsfreeze", err)
	}
	freeze("-f")
	frozen := true
	defer func() {
		if frozen {
			freeze("-u")
		}
	}()
	start := time.Now()
	err := f.fail(t, store)
	if took := time.Since(start); !errors.Is(err, sink.ErrStalled) || took > patience/2 {
		t.Errorf("error is %v after %v, want ErrStalled", err, took)
	}
	start = time.Now()
	for i := 0; i < 1000 && time.Since(start) < patience/2; i++ {
		if err := f.write(t.Context(), store); !errors.Is(err, sink.ErrStalled) {
			t.Fatalf("error is %v, want ErrStalled", err)
		}
	}
	if took := time.Since(start); took >= patience/2 {
		t.Errorf("a thousand batches were refused in %v", took)
	}
	if s := store.Status(); !s.Failing || s.Writing == 0 || s.Writing > s.Writers {
		t.Errorf("status is %+v", s)
	}
	freeze("-u")
	frozen = false
	f.succeed(t, store)
	f.want(t, store)
}

// The store panics when it cannot write its files of chunks.
func TestADiskThatIsFullForChunks(t *testing.T) {
	t.Parallel()
	disk := tmpfs(t, 64<<20)
	dir := filepath.Join(disk, "tsdb")
	store := open(t, sink.TSDBConfig{Dir: dir, ReserveBytes: -1})
	f := newFeed()
	for range 300 { // more than two chunks of each series
		f.succeed(t, store)
	}
	filler := fill(t, disk, 1)
	sink.Keep(store)
	if s := store.Status(); !s.Failing || !strings.Contains(s.LastError, "no space") {
		t.Errorf("status is %+v, want one that tells of it", s)
	}
	f.want(t, store)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	f.succeed(t, store)
	sink.Keep(store)
	f.succeed(t, store)
	f.want(t, store)
	f.want(t, open(t, sink.TSDBConfig{Dir: crash(t, dir)}))
}

// The store says nothing to who writes out-of-order samples that their log could
// not be written.
func TestTheOutOfOrderLogIsWatchedToo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	wbl := filepath.Join(dir, "wbl")
	if err := os.Mkdir(wbl, 0o750); err != nil {
		t.Fatal(err)
	}
	need(t, "mount a tmpfs", syscall.Mount("tmpfs", wbl, "tmpfs", 0, "size=256k"))
	t.Cleanup(func() { _ = syscall.Unmount(wbl, syscall.MNT_DETACH) })
	store, err := sink.OpenTSDB(sink.TSDBConfig{Dir: dir, OutOfOrderWindow: time.Hour, WriteWait: patience, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() }) // it cannot write the end of its log
	f := newFeed()
	newest := &sample.Batch{}
	for _, s := range f.series {
		newest.Samples = append(newest.Samples, at(s, nowMs(), 1))
	}
	write(t, store, newest)
	err = f.fail(t, store)
	if s := store.Status(); !s.Failing || len(f.acked) == 0 {
		t.Errorf("after %d batches: %v, status %+v", len(f.acked), err, s)
	}
	f.want(t, open(t, sink.TSDBConfig{Dir: crash(t, dir), OutOfOrderWindow: time.Hour}))
}
