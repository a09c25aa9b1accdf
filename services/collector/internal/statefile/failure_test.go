package statefile_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/statefile"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// failing lets operations of this name fail as long as *on.
func failing(name string, on *bool) func(int, string) *fault {
	return func(_ int, op string) *fault {
		if op == name && *on {
			return &fault{err: errFault}
		}
		return nil
	}
}

// nothing is the crash that loses all that it may.
func nothing(int) int { return 0 }

// TestLoadedIsMadeDurable kills a process between the rename of a new
// generation and the sync of the directory. What the next one loads and appends
// to must not go away with the name.
func TestLoadedIsMadeDurable(t *testing.T) {
	d := newDisk()
	file, _ := open(t, statefile.Config{FS: d, Dir: "state"})
	r := newRoll(t)
	on := true
	d.before = failing("syncdir", &on)
	if err := file.Append(r.all(members(0, 3, 1)), r.state); !errors.Is(err, errFault) {
		t.Fatal(err)
	}
	on = false
	file, state := open(t, statefile.Config{FS: d.killed(), Dir: "state"})
	checkOneOf(t, state, []mark{r.mark()})
	mustAppend(t, file, r, r.change(members(3, 4, 1)))
	_, state = open(t, statefile.Config{FS: d.crashed(nothing), Dir: "state"})
	checkOneOf(t, state, []mark{r.mark()})
}

// TestEntryThatCannotBeWrittenIsMissed fails the rewrite that an entry needs
// which cannot be appended: the one after it must not be appended alone.
func TestEntryThatCannotBeWrittenIsMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		cfg := statefile.WithGrowth(statefile.Config{FS: d, Dir: "state"}, 300)
		file, _ := open(t, cfg)
		r := newRoll(t)
		mustAppend(t, file, r, r.all(members(0, 3, 1)))
		on := true
		d.before = failing("create", &on)
		if err := file.Append(r.change(members(3, 40, 1)), r.state); !errors.Is(err, errFault) {
			t.Fatal(err)
		}
		on = false
		entry := r.change(members(0, 1, 2))
		if err := file.Append(entry, r.state); !errors.Is(err, errFault) {
			t.Errorf("right after it: %v", err)
		}
		time.Sleep(statefile.RewriteInterval)
		mustAppend(t, file, r, entry)
		file, state := open(t, statefile.Config{FS: d.crashed(nothing), Dir: "state"})
		checkOneOf(t, state, []mark{r.mark()})
		if file.Recovery().Damage != nil {
			t.Errorf("%+v", file.Recovery())
		}
	})
}

// TestFailedRewriteFailsNoAppend cannot write a file anew that has outgrown its
// base: entries are acknowledged still, up to twice the size.
func TestFailedRewriteFailsNoAppend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		cfg := statefile.WithGrowth(statefile.Config{FS: d, Dir: "state"}, 1000)
		file, _ := open(t, cfg)
		r := newRoll(t)
		mustAppend(t, file, r, r.all(members(0, 3, 1)))
		on := true
		d.before = failing("create", &on)
		size := 0
		for n := 2; ; n++ {
			err := file.Append(r.change(members(0, 1, n)), r.state)
			if err != nil {
				break
			}
			_, state := open(t, statefile.Config{FS: d.crashed(nothing), Dir: "state"})
			checkOneOf(t, state, []mark{r.mark()})
			size = len(d.live["set.1"].data)
		}
		if size < 1800 || size > 2000 {
			t.Errorf("appended up to %d bytes", size)
		}
		on = false
		time.Sleep(statefile.RewriteInterval)
		mustAppend(t, file, r, statefile.Entry{})
		_, state := open(t, statefile.Config{FS: d.crashed(nothing), Dir: "state"})
		checkOneOf(t, state, []mark{r.mark()})
	})
}

// TestNewNameMayStand fails a rewrite when the new generation may have its name
// already. Entries must not go into the old one then.
func TestNewNameMayStand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		cfg := statefile.WithGrowth(statefile.Config{FS: d, Dir: "state"}, 1000)
		file, _ := open(t, cfg)
		r := newRoll(t)
		mustAppend(t, file, r, r.all(members(0, 3, 1)))
		on := true
		d.before = failing("syncdir", &on)
		for n := 2; d.live["set.0"] == nil; n++ {
			mustAppend(t, file, r, r.change(members(0, 1, n)))
		}
		on = false
		entry := r.change(members(1, 2, 9))
		if err := file.Append(entry, r.state); err == nil {
			t.Error("acknowledged without having been written anew")
		}
		time.Sleep(statefile.RewriteInterval)
		mustAppend(t, file, r, entry)
		for o := (odometer{}); ; {
			_, state := open(t, statefile.Config{FS: d.crashed(o.pick), Dir: "state"})
			checkOneOf(t, state, []mark{r.mark()})
			if !o.next() {
				break
			}
		}
		_, state := open(t, statefile.Config{FS: d.killed(), Dir: "state"})
		checkOneOf(t, state, []mark{r.mark()})
	})
}

// TestRenameLeftBothNames crashes a machine whose file system does not rename
// atomically. Writing the next generation must not write over the one that the
// other name is for.
func TestRenameLeftBothNames(t *testing.T) {
	d := newDisk()
	file, _ := open(t, statefile.Config{FS: d, Dir: "state"})
	r := newRoll(t)
	mustAppend(t, file, r, r.all(members(0, 3, 1)))
	d.live["set.temp"], d.durable["set.temp"] = d.live["set.1"], d.live["set.1"]
	file, _ = open(t, statefile.Config{FS: d.killed(), Dir: "state"})
	on := true
	d.before = failing("write", &on)
	if err := file.Append(statefile.Entry{Frames: []assignment.Frame{&assignment.End{}}}, r.state); !errors.Is(err, errFault) {
		t.Fatal(err)
	}
	file, state := open(t, statefile.Config{FS: d.killed(), Dir: "state"})
	checkOneOf(t, state, []mark{r.mark()})
	if file.Recovery().Damage != nil || file.Recovery().Torn != 0 {
		t.Errorf("%+v", file.Recovery())
	}
}

// TestDroppedRecordIsNoticed takes one whole record out of the file: all
// checksums fit, but what is left of the entry must not be loaded.
func TestDroppedRecordIsNoticed(t *testing.T) {
	d := newDisk()
	file, _ := open(t, statefile.Config{FS: d, Dir: "state"})
	r := newRoll(t)
	r.hold(r.hold(statefile.Entry{}, 1, 0), 2, 0)
	marks := []mark{r.mark()}
	mustAppend(t, file, r, r.all(members(3, 6, 1)))
	marks = append(marks, r.mark())
	mustAppend(t, file, r, r.hold(r.release(r.release(r.change(nil, id(3)), 1), 2), 3, 0))
	whole := d.live["set.1"].data
	records := statefile.Records(whole)
	if len(records) < 10 {
		t.Fatalf("%d records", len(records))
	}
	for i := range records {
		from, to := len(statefile.Join(records[:i])), len(statefile.Join(records[:i+1]))
		d := newDisk()
		d.live["set.1"] = &inode{data: slices.Concat(whole[:from], whole[to:])}
		file, state := open(t, statefile.Config{FS: d, Dir: "state"})
		if state.Accepted.Epoch != "" {
			checkOneOf(t, state, marks[1:])
		}
		if found := file.Recovery(); len(found.Damage) == 0 && found.Torn == 0 {
			t.Errorf("record %d, of kind %d: not noticed", i, records[i].Kind)
		}
	}
}
