package statefile_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/guard"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/statefile"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
)

func mustAppend(t *testing.T, file *statefile.File, r *roll, entry statefile.Entry) {
	t.Helper()
	if err := file.Append(entry, r.state); err != nil {
		t.Fatalf("append: %v", err)
	}
}

func mustClose(t *testing.T, file *statefile.File) {
	t.Helper()
	if err := file.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
}

func TestEmptyDirectoryIsQuiet(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	file, state := open(t, statefile.Config{Dir: dir})
	defer mustClose(t, file)
	if state.Accepted.Epoch != "" || state.Accepted.Set.Len() != 0 || len(state.Held) != 0 {
		t.Errorf("loaded %+v", state)
	}
	if found := file.Recovery(); found.Damage != nil || found.Fallback || found.Aside != "" || found.Torn != 0 {
		t.Errorf("found %+v", found)
	}
}

func TestSetSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	file, _ := open(t, statefile.Config{Dir: dir})
	r := newRoll(t)
	mustAppend(t, file, r, r.all(members(0, 100, 1)))
	mustAppend(t, file, r, r.change(members(90, 110, 2), id(3), id(4)))
	mustAppend(t, file, r, r.rebucket(0, members(50, 70, 3)))
	mustClose(t, file)
	file, state := open(t, statefile.Config{Dir: dir})
	defer mustClose(t, file)
	if want := r.state(); show(state) != show(&want) || state.Accepted.Position != r.accepted.Position {
		t.Errorf("loaded\n%s, want\n%s", show(state), show(&want))
	}
	info, err := os.Stat(filepath.Join(dir, "set.1"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// TestHeldSurvivesRestart holds, confirms and releases, over appends, rewrites
// and changes of epoch.
func TestHeldSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	r := newRoll(t)
	check := func(want ...guard.Held) {
		t.Helper()
		file, state := open(t, statefile.Config{Dir: dir})
		mustClose(t, file)
		r.accepted = state.Accepted
		if !slices.EqualFunc(state.Held, want, func(a, b guard.Held) bool {
			return a.Assignment.SameWork(b.Assignment) && a.Assignment.Hash() == b.Assignment.Hash() &&
				a.Epoch == b.Epoch && a.Revision == b.Revision && a.Since.Equal(b.Since) && a.Confirmed == b.Confirmed
		}) {
			t.Fatalf("loaded %+v, want %+v", state.Held, want)
		}
	}
	step := func(entry statefile.Entry) {
		t.Helper()
		file, _ := open(t, statefile.Config{Dir: dir})
		mustAppend(t, file, r, entry)
		mustClose(t, file)
	}
	step(r.all(members(0, 5, 7)))
	check()
	// The same registry comes back empty: all are held.
	entry := r.all(nil)
	for n := range 5 {
		entry = r.hold(entry, n, 0)
	}
	step(entry)
	check(r.state().Held...)
	step(r.hold(statefile.Entry{}, 2, 7*time.Hour))
	check(r.state().Held...)
	// Two come back, in another epoch; the set is written anew.
	r.epoch = "e2"
	entry = r.release(r.release(r.all(members(0, 2, 7)), 0), 1)
	step(entry)
	check(r.state().Held...)
	if n := len(r.state().Held); n != 3 {
		t.Fatalf("%d held", n)
	}
	for n := 2; n < 5; n++ {
		step(r.release(statefile.Entry{}, n))
	}
	check()
	// Nothing sealed, but something held: an odd state is kept all the same.
	h := guard.Held{Assignment: member(1, 1)}
	file, _ := open(t, statefile.Config{Dir: dir + "/other"})
	err := file.Append(statefile.Entry{}, func() statefile.State { return statefile.State{Held: []guard.Held{h}} })
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, file)
	dir += "/other"
	check(h)
}

func TestOtherCollectorRefused(t *testing.T) {
	dir := t.TempDir()
	file, _ := open(t, statefile.Config{Dir: dir})
	r := newRoll(t)
	mustAppend(t, file, r, r.all(members(0, 3, 1)))
	mustClose(t, file)

	_, _, err := statefile.Open(statefile.Config{Dir: dir, Collector: "collector-b", MaxProducers: 10})
	if !errors.Is(err, statefile.ErrOtherCollector) || !strings.Contains(err.Error(), `"collector-a"`) ||
		!strings.Contains(err.Error(), `"collector-b"`) || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v", err)
	}
	file, state := open(t, statefile.Config{Dir: dir})
	defer mustClose(t, file)
	if want := r.state(); show(state) != show(&want) {
		t.Error("the refusal has changed something")
	}
	if _, _, err := statefile.Open(statefile.Config{Dir: t.TempDir(), Collector: "a/b"}); !errors.Is(err, assignment.ErrID) {
		t.Errorf("got %v", err)
	}
}

func TestDirectoryIsLocked(t *testing.T) {
	dir := t.TempDir()
	file, _ := open(t, statefile.Config{Dir: dir})
	_, _, err := statefile.Open(statefile.Config{Dir: dir, Collector: collectorID, MaxProducers: 10})
	if !errors.Is(err, statefile.ErrLocked) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v", err)
	}
	mustClose(t, file)
	mustClose(t, file)
	if err := file.Append(statefile.Entry{}, nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("append after close: %v", err)
	}
	file, _ = open(t, statefile.Config{Dir: dir})
	mustClose(t, file)
}

func TestTooManyProducersRefused(t *testing.T) {
	p := newPast(t)
	for limit, want := range map[int]error{1: statefile.ErrTooMany, 2: nil} {
		d := p.disk(nil)
		_, _, err := statefile.Open(statefile.Config{Dir: "state", FS: d, Collector: collectorID, MaxProducers: limit})
		if !errors.Is(err, want) || d.locked != (want == nil) {
			t.Errorf("at most %d: %v", limit, err)
		}
	}
}

// TestPositionIsSpared leaves entries out that only advance the position, but
// not what builds on them.
func TestPositionIsSpared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		cfg := statefile.Config{FS: d, Dir: "state"}
		file, _ := open(t, cfg)
		r := newRoll(t)
		mustAppend(t, file, r, r.all(members(0, 3, 1)))
		ops := d.ops
		mustAppend(t, file, r, r.beat())
		mustAppend(t, file, r, statefile.Entry{})
		if d.ops != ops {
			t.Error("a position was written within a minute")
		}
		time.Sleep(statefile.PositionInterval)
		mustAppend(t, file, r, r.beat())
		_, state := open(t, statefile.Config{FS: d.crashed(func(int) int { return 0 }), Dir: "state"})
		if state.Accepted.Position != r.accepted.Position {
			t.Errorf("after a minute: at %v, want %v", state.Accepted.Position, r.accepted.Position)
		}
		before := state.Accepted.Position
		r.beat()
		mustAppend(t, file, r, r.change(members(4, 5, 1)))
		torn := newDisk()
		torn.live["set.1"] = &inode{data: slices.Clone(d.live["set.1"].data[:len(d.live["set.1"].data)-1])}
		if _, state = open(t, statefile.Config{FS: torn, Dir: "state"}); state.Accepted.Position != before {
			t.Errorf("the base of an entry that is not whole was loaded: %v, want %v", state.Accepted.Position, before)
		}
		file, state = open(t, statefile.Config{FS: d.killed(), Dir: "state"})
		if want := r.state(); show(state) != show(&want) || len(file.Recovery().Damage) > 0 {
			t.Errorf("changes to a base that was left out: %+v", file.Recovery())
		}
	})
}

// TestDiskFull fills the disk: the entry that does not fit is refused, those
// before it stay, and all is there when there is space again.
func TestDiskFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		space := 3000
		d.before = func(_ int, name string) *fault {
			used := 0
			for _, n := range d.live {
				used += len(n.data)
			}
			if name != "write" || used+d.written <= space {
				return nil
			}
			return &fault{err: syscall.ENOSPC, bytes: space - used}
		}
		cfg := statefile.WithGrowth(statefile.Config{FS: d, Dir: "state"}, 1000)
		file, _ := open(t, cfg)
		r := newRoll(t)
		mustAppend(t, file, r, r.all(members(0, 20, 1)))
		kept := r.mark()
		n, err := 0, error(nil)
		for ; err == nil && n < 100; n++ {
			kept = r.mark()
			err = file.Append(r.change(members(n%20, n%20+2, n+2)), r.state)
		}
		if !errors.Is(err, syscall.ENOSPC) || n < 8 {
			t.Fatalf("%d appends, then %v", n, err)
		}
		_, state := open(t, statefile.Config{FS: d.crashed(func(int) int { return 0 }), Dir: "state"})
		checkOneOf(t, state, []mark{kept})

		// As long as it is full, the set is written once in 5 s at most.
		for range 3 {
			if err := file.Append(r.beat(), r.state); !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
		}
		ops := d.ops
		if err := file.Append(r.beat(), r.state); !errors.Is(err, syscall.ENOSPC) || d.ops != ops {
			t.Errorf("%v, %d operations", err, d.ops-ops)
		}
		space = 100_000
		time.Sleep(statefile.RewriteInterval)
		mustAppend(t, file, r, r.beat())
		file, state = open(t, statefile.Config{FS: d.crashed(func(int) int { return 0 }), Dir: "state"})
		checkOneOf(t, state, []mark{r.mark()})
		if file.Recovery().Damage != nil {
			t.Errorf("%+v", file.Recovery())
		}
	})
}

// TestUnwritableDiskIsLoadedFrom resumes from a disk that takes nothing.
func TestUnwritableDiskIsLoadedFrom(t *testing.T) {
	p := newPast(t)
	d := p.disk(map[string][]byte{p.newest: p.files[p.newest][:len(p.files[p.newest])-3]})
	d.before = func(int, string) *fault { return &fault{err: syscall.EROFS} }
	file, state := open(t, statefile.Config{FS: d, Dir: "state"})
	checkOneOf(t, state, p.marks)
	if file.Recovery().Torn == 0 || state.Accepted.Set.Len() == 0 {
		t.Errorf("%+v", file.Recovery())
	}
	for range 2 {
		err := file.Append(statefile.Entry{}, func() statefile.State { return *state })
		if !errors.Is(err, syscall.EROFS) {
			t.Errorf("append: %v", err)
		}
	}
}

// TestMistakesAreWrittenAnew gives entries that are no sequel to the file.
func TestMistakesAreWrittenAnew(t *testing.T) {
	r := newRoll(t)
	all := r.all(members(0, 3, 1))
	r.epoch = "e2"
	unrelated := newRoll(t)
	unrelated.all(nil)
	unrelated.epoch = "e3"
	for name, frames := range map[string][]assignment.Frame{
		"no begin":    all.Frames[1:],
		"no end":      all.Frames[:1],
		"older":       {&assignment.Begin{Scope: assignment.ScopeAll, Epoch: "e1", Revision: 1}, &assignment.End{}},
		"other epoch": {&assignment.Begin{Scope: assignment.ScopeChanges, Epoch: "e3", Revision: 99}, &assignment.End{}},
		"not UTF-8":   {&assignment.Begin{Scope: assignment.ScopeAll, Epoch: "\xff", Revision: 99}, &assignment.End{}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDisk()
			file, _ := open(t, statefile.Config{FS: d, Dir: "state"})
			mustAppend(t, file, r, all)
			mustAppend(t, file, r, statefile.Entry{Frames: frames})
			_, state := open(t, statefile.Config{FS: d.killed(), Dir: "state"})
			checkOneOf(t, state, []mark{r.mark()})
		})
	}
}

// TestLargeSetIsWrittenInChunks writes a set of several chunks.
func TestLargeSetIsWrittenInChunks(t *testing.T) {
	d := newDisk()
	file, _ := open(t, statefile.Config{FS: d, Dir: "state"})
	r := newRoll(t)
	ms := members(0, 300, 1)
	for _, m := range ms {
		m.Labels = []assignment.Label{{Name: "blob", Value: strings.Repeat("x", 5000)}}
	}
	mustAppend(t, file, r, r.all(ms))
	chunks := 0
	for i, record := range statefile.Records(d.live["set.1"].data) {
		if n := len(record.Payload); n > wire.ChunkBytes {
			t.Errorf("record %d has %d bytes", i, n)
		} else if n > wire.ChunkBytes/2 {
			chunks++
		}
	}
	if chunks < 2 {
		t.Errorf("%d chunks", chunks)
	}
	_, state := open(t, statefile.Config{FS: d.killed(), Dir: "state"})
	checkOneOf(t, state, []mark{r.mark()})
}

// TestFileStaysSmall changes the same producers for long.
func TestFileStaysSmall(t *testing.T) {
	d := newDisk()
	file, _ := open(t, statefile.WithGrowth(statefile.Config{FS: d, Dir: "state"}, 2000))
	r := newRoll(t)
	mustAppend(t, file, r, r.all(members(0, 10, 1)))
	for n := range 200 {
		mustAppend(t, file, r, r.change(members(n%10, n%10+1, n)))
	}
	for name, node := range d.live {
		if len(node.data) > 2500 {
			t.Errorf("%s has %d bytes", name, len(node.data))
		}
	}
	if len(d.live) != 2 {
		t.Errorf("%d files", len(d.live))
	}
}
