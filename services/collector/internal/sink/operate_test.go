package sink_test

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sink"
)

func selector(pairs ...string) []*labels.Matcher {
	var ms []*labels.Matcher
	for i := 0; i < len(pairs); i += 2 {
		ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, pairs[i], pairs[i+1]))
	}
	return ms
}

// hours writes two series every quarter of an hour, out of order too, so that
// there are blocks, a head and out-of-order samples. It is for a bubble.
func hours(t *testing.T, store *sink.TSDB, n int) {
	t.Helper()
	kept, gone := series("__name__", "s", "i", "kept"), series("__name__", "s", "i", "gone")
	for range n * 4 {
		now := nowMs()
		write(t, store, batch(at(kept, now, 1), at(gone, now, 2)))
		write(t, store, batch(at(kept, now-60_000, 3), at(gone, now-60_000, 4)))
		time.Sleep(15 * time.Minute)
	}
	now := nowMs()
	write(t, store, batch(at(kept, now, 5), at(gone, now, 6)))
	write(t, store, batch(at(kept, now-60_000, 3), at(gone, now-60_000, 4)))
}

const (
	keptSeries = `{__name__="s", i="kept"}`
	goneSeries = `{__name__="s", i="gone"}`
)

func TestDeletedSeriesAreGoneEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		store := open(t, sink.TSDBConfig{Dir: dir, OutOfOrderWindow: time.Hour})
		hours(t, store, 9)
		if metas, err := store.BlockMetas(); err != nil || len(metas) < 2 {
			t.Fatalf("blocks are %v, %v; the test needs some", metas, err)
		}
		want := map[string][]point{keptSeries: read(t, store, "s")[keptSeries]}

		n, err := store.Delete(t.Context(), [][]*labels.Matcher{selector("__name__", "s", "i", "gone"), selector("i", "gone")}, math.MinInt64, math.MaxInt64)
		if n != 1 || err != nil {
			t.Errorf("deleted %d series, %v; want 1", n, err)
		}
		wantSamples(t, store, "s", want)
		wantSamples(t, open(t, sink.TSDBConfig{Dir: crash(t, dir), OutOfOrderWindow: time.Hour}), "s", want)

		if n, err := store.Delete(t.Context(), [][]*labels.Matcher{selector("i", "gone")}, math.MinInt64, math.MaxInt64); n != 0 || err != nil {
			t.Errorf("deleted %d series again, %v", n, err)
		}

		// What comes later is stored, also when all has become blocks.
		s := series("__name__", "s", "i", "gone")
		now := nowMs() + 1
		write(t, store, batch(at(s, now, 7)))
		want[goneSeries] = []point{pt(now, 7)}
		wantSamples(t, store, "s", want)
		for range 8 * 4 {
			time.Sleep(15 * time.Minute)
			write(t, store, batch(at(series("__name__", "clock"), nowMs(), 1)))
		}
		wantSamples(t, store, "s", want)
	})
}

func TestDeleteInASpan(t *testing.T) {
	store := open(t, sink.TSDBConfig{})
	now := nowMs()
	s, other := series("__name__", "s"), series("__name__", "s", "i", "other")
	for i := range int64(10) {
		write(t, store, batch(at(s, now+i, float64(i)), at(other, now+i+100, float64(i))))
	}
	n, err := store.Delete(t.Context(), [][]*labels.Matcher{selector("__name__", "s")}, now+2, now+8)
	if n != 1 || err != nil {
		t.Errorf("deleted %d series, %v; want the one that had samples", n, err)
	}
	got := read(t, store, "s")
	if diff := cmp.Diff([]point{pt(now, 0), pt(now+1, 1), pt(now+9, 9)}, got[`{__name__="s"}`]); diff != "" {
		t.Error(diff)
	}
	if len(got[`{__name__="s", i="other"}`]) != 10 {
		t.Errorf("the other series has %v", got)
	}
}

func TestDeleteRefusesWhatSelectsAll(t *testing.T) {
	store := open(t, sink.TSDBConfig{})
	write(t, store, batch(at(series("__name__", "s"), nowMs(), 1)))
	for name, s := range map[string][][]*labels.Matcher{
		"nothing":         nil,
		"no matcher":      {{}},
		"the empty value": {selector("i", "")},
		"anything":        {{labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".*")}},
		"one of two":      {selector("__name__", "s"), selector("i", "")},
	} {
		if _, err := store.Delete(t.Context(), s, math.MinInt64, math.MaxInt64); !errors.Is(err, sink.ErrTooBroad) {
			t.Errorf("%s: error is %v, want ErrTooBroad", name, err)
		}
	}
	if len(read(t, store, "s")) != 1 {
		t.Error("something was deleted")
	}
}

func TestSnapshotIsAStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := open(t, sink.TSDBConfig{OutOfOrderWindow: time.Hour})
		hours(t, store, 9)
		want := read(t, store, "s")
		dir, bytes, err := store.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if size := sizeOf(t, dir); size != bytes || bytes == 0 || !filepath.IsAbs(dir) {
			t.Errorf("%s is said to have %d bytes, and has %d", dir, bytes, size)
		}
		second := open(t, sink.TSDBConfig{Dir: crash(t, dir)}) // as it is taken away
		wantSamples(t, second, "s", want)
		write(t, store, batch(at(series("__name__", "s", "i", "kept"), nowMs()+1, 1))) // the store goes on
	})
}

func TestSnapshotOfNothing(t *testing.T) {
	store := open(t, sink.TSDBConfig{})
	dir, _, err := store.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	open(t, sink.TSDBConfig{Dir: crash(t, dir)})
}

func TestPromtoolOpensASnapshot(t *testing.T) {
	_, err := exec.LookPath("promtool")
	need(t, "promtool", err)
	store := open(t, sink.TSDBConfig{})
	now := nowMs()
	write(t, store, batch(at(series("__name__", "s", "i", "1"), now, 42)))
	dir, _, err := store.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"tsdb", "list", dir}, {"tsdb", "dump", dir}} {
		out, err := exec.CommandContext(t.Context(), "promtool", args...).CombinedOutput()
		if err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
		if want := fmt.Sprintf(`{__name__="s", i="1"} 42 %d`, now); args[1] == "dump" && !strings.Contains(string(out), want) {
			t.Errorf("promtool dumps\n%s\nwant %s", out, want)
		}
	}
}

func TestSnapshotsAreBounded(t *testing.T) {
	dir := t.TempDir()
	config := sink.TSDBConfig{Dir: dir, Logger: slog.New(slog.DiscardHandler)}
	left := filepath.Join(dir, "snapshots", "20200101T000000Z-0123456789abcdef.tmp")
	if err := os.MkdirAll(left, 0o750); err != nil {
		t.Fatal(err)
	}
	store := open(t, config)
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an unfinished snapshot is still there: %v", err)
	}
	write(t, store, batch(at(series("__name__", "s"), nowMs(), 1)))
	var last string
	for range sink.MaxSnapshots {
		var err error
		if last, _, err = store.Snapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := store.Snapshot(t.Context()); !errors.Is(err, sink.ErrTooManySnapshots) {
		t.Errorf("error is %v, want ErrTooManySnapshots", err)
	}
	if err := os.RemoveAll(last); err != nil {
		t.Fatal(err)
	}
	if _, _, err := store.Snapshot(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestOneOperationAtATime(t *testing.T) {
	store := open(t, sink.TSDBConfig{})
	release := sink.Operate(store)
	if _, _, err := store.Snapshot(t.Context()); !errors.Is(err, sink.ErrBusy) {
		t.Errorf("error is %v, want ErrBusy", err)
	}
	if _, err := store.Delete(t.Context(), [][]*labels.Matcher{selector("a", "b")}, 0, 1); !errors.Is(err, sink.ErrBusy) {
		t.Errorf("error is %v, want ErrBusy", err)
	}
	release()
	if _, _, err := store.Snapshot(t.Context()); err != nil {
		t.Error(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := store.Snapshot(t.Context()); !errors.Is(err, sink.ErrClosed) {
		t.Errorf("error is %v, want ErrClosed", err)
	}
}

func sizeOf(t *testing.T, dir string) (bytes int64) {
	t.Helper()
	for _, pattern := range []string{"*", "*/*", "*/*/*"} {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			info, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			if !info.IsDir() {
				bytes += info.Size()
			}
		}
	}
	return bytes
}
