package statefile_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/statefile"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"pgregory.net/rapid"
)

// A run appends entries to a file and keeps the states that may be on disk.
type run struct {
	*roll
	disk *disk
	file *statefile.File

	// marks are the states from the last acknowledged one on.
	marks []mark
}

func newRun(tb testing.TB, d *disk) *run {
	r := &run{roll: newRoll(tb), disk: d}
	r.marks = []mark{r.mark()}
	return r
}

func (r *run) cfg() statefile.Config {
	return statefile.WithGrowth(statefile.Config{FS: r.disk, Dir: "state"}, 400)
}

// append gives an entry, which is in the roll already, to the file.
func (r *run) append(entry statefile.Entry) error {
	r.marks = append(r.marks, r.mark())
	err := r.file.Append(entry, r.state)
	if err == nil {
		r.disk.reordered = false
		r.marks = r.marks[len(r.marks)-1:]
	}
	return err
}

// script is what the exhaustive tests append: all scopes, holding, an advanced
// base, and a few rewrites.
func (r *run) script() []func() statefile.Entry {
	return []func() statefile.Entry{
		func() statefile.Entry { return r.all(members(0, 3, 1)) },
		func() statefile.Entry { return r.change(members(3, 4, 1)) },
		func() statefile.Entry { return r.hold(r.change(nil, id(0)), 0, 0) },
		func() statefile.Entry { return r.beat() },
		func() statefile.Entry { return r.rebucket(1, members(2, 5, 2)) },
		func() statefile.Entry { return r.release(r.hold(statefile.Entry{}, 1, time.Hour), 0) },
		func() statefile.Entry { return r.change(members(4, 6, 3), id(3)) },
		func() statefile.Entry { return r.all(members(2, 4, 4)) },
	}
}

// play opens the file, appends the script until the disk is off, and reports
// whether it got through.
func (r *run) play() bool {
	r.file, _ = open(r.tb, r.cfg())
	for _, entry := range r.script() {
		if err := r.append(entry()); errors.Is(err, errOff) || r.disk.off {
			return false
		}
	}
	return true
}

// checkDisk opens what a crash has left, and goes on with it, or not: that
// takes most of the time.
func checkDisk(t failer, r *run, d *disk, goOn bool) {
	t.Helper()
	cfg := r.cfg()
	cfg.FS = d
	file, state := open(t, cfg)
	checkOneOf(t, state, r.marks)
	if found := file.Recovery(); len(found.Damage) > 0 && !d.reordered || found.Fallback || found.Aside != "" {
		t.Fatalf("a crash is taken for damage: %+v", found)
	}
	if !goOn {
		return
	}
	// What is appended now must not be lost behind what the crash has left.
	next := statefile.Entry{Held: state.Held, Released: []assignment.ProducerID{"gone"}}
	next.Held = append(next.Held, newRoll(r.tb).hold(statefile.Entry{}, 9, time.Minute).Held...)
	state.Held = next.Held
	want := show(state)
	if err := file.Append(next, func() statefile.State { return *state }); err != nil {
		t.Fatalf("append after the crash: %v", err)
	}
	file, state = open(t, statefile.WithGrowth(statefile.Config{FS: d.killed(), Dir: "state"}, 400))
	if got := show(state); got != want || file.Recovery().Damage != nil {
		t.Fatalf("after the next append:\n%s, want\n%s; %+v", got, want, file.Recovery())
	}
}

// TestStateFileDurable crashes the machine after each operation of a script, in
// every way in which the disk may have kept what was not synced.
func TestStateFileDurable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		crashes := 0
		for op := 1; ; op++ {
			d := newDisk()
			d.before = func(n int, _ string) *fault {
				d.off = n > op
				if d.off {
					return &fault{err: errOff}
				}
				return nil
			}
			r := newRun(t, d)
			through := r.play()
			for o := (odometer{}); ; crashes++ {
				checkDisk(t, r, d.crashed(o.pick), crashes%3 == 0)
				if !o.next() {
					break
				}
			}
			if through {
				break
			}
		}
		t.Logf("%d crashes", crashes)
		if crashes < 1000 {
			t.Errorf("%d crashes only", crashes)
		}
	})
}

// TestStateFileSurvivesKill kills the process at each operation, after each
// byte of a write.
func TestStateFileSurvivesKill(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for op := 1; ; op++ {
			for bytes, written := 0, 0; bytes <= written; bytes++ {
				d := newDisk()
				d.before = func(n int, _ string) *fault {
					d.off = n >= op
					if !d.off {
						return nil
					}
					return &fault{err: errOff, bytes: bytes}
				}
				r := newRun(t, d)
				if r.play() {
					return
				}
				written = 0
				if d.writing {
					written = d.written
				}
				d.before = nil
				checkDisk(t, r, d.killed(), bytes%3 == 0)
			}
		}
	})
}

// TestFailedAppendIsMadeGood lets each operation of the script fail once, before
// or after it took effect. The entry may be lost with it, but no other; and the
// next one that is acknowledged brings all back.
func TestFailedAppendIsMadeGood(t *testing.T) {
	for _, f := range []fault{{}, {bytes: 11}, {bytes: 1 << 20, done: true}} {
		t.Run(fmt.Sprintf("bytes=%d,done=%t", f.bytes, f.done), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { failEach(t, f) })
		})
	}
}

func failEach(t *testing.T, f fault) {
	f.err = errFault
	for op := 1; ; op++ {
		d, failed := newDisk(), false
		d.before = func(n int, _ string) *fault {
			if n == op {
				failed = true
				return &f
			}
			return nil
		}
		r := newRun(t, d)
		r.file, _ = open(t, r.cfg())
		for _, entry := range r.script() {
			err := r.append(entry())
			if err != nil && !errors.Is(err, errFault) {
				t.Fatalf("op %d: %v", op, err)
			}
			crash := func(int) int { return 0 }
			_, state := open(t, statefile.Config{FS: d.crashed(crash), Dir: "state"})
			checkOneOf(t, state, r.marks)
			time.Sleep(statefile.RewriteInterval)
		}
		if len(r.marks) > 1 {
			if err := r.append(statefile.Entry{}); err != nil {
				t.Fatalf("op %d: still failing: %v", op, err)
			}
		}
		d.before = nil
		checkDisk(t, r, d.killed(), true)
		if !failed {
			return
		}
	}
}

// inBubble hides a test's deadline, which rapid asks for and a bubble has not.
type inBubble struct{ rapid.TB }

// TestStateFileAgreesWithModel appends at random to a file whose disk fails at
// random, and whose process and machine go down at random.
func TestStateFileAgreesWithModel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(inBubble{t}, func(rt *rapid.T) {
			r := newRun(t, newDisk())
			r.reopen(rt)
			rt.Repeat(map[string]func(*rapid.T){
				"append": func(rt *rapid.T) { _ = r.append(r.draw(rt)) },
				"wait": func(rt *rapid.T) {
					time.Sleep(rapid.SampledFrom([]time.Duration{statefile.RewriteInterval, statefile.PositionInterval}).Draw(rt, "time"))
				},
				"fault": func(rt *rapid.T) {
					at := r.disk.ops + rapid.IntRange(1, 6).Draw(rt, "ops from now")
					f := fault{errFault, rapid.IntRange(0, 300).Draw(rt, "bytes"), rapid.Bool().Draw(rt, "done")}
					r.disk.before = func(op int, _ string) *fault {
						if op == at {
							return &f
						}
						return nil
					}
				},
				"restart": func(rt *rapid.T) {
					if err := r.file.Close(); err != nil {
						rt.Fatal(err)
					}
					r.reopen(rt)
				},
				"kill": func(rt *rapid.T) { r.disk = r.disk.killed(); r.reopen(rt) },
				"crash": func(rt *rapid.T) {
					r.disk = r.disk.crashed(func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "pick") })
					r.reopen(rt)
				},
			})
		})
	})
}

// reopen resumes with what is on disk.
func (r *run) reopen(t failer) {
	t.Helper()
	faults := r.disk.faults
	file, state := open(t, r.cfg())
	checkOneOf(t, state, r.marks)
	if found := file.Recovery(); len(found.Damage) > 0 && !r.disk.reordered || found.Fallback || found.Aside != "" {
		t.Fatalf("taken for damage: %+v", found)
	}
	r.file, r.accepted = file, state.Accepted
	if r.accepted.Epoch != "" {
		r.epoch = r.accepted.Epoch
	}
	clear(r.held)
	for _, h := range state.Held {
		r.held[h.Assignment.ProducerID] = h
	}
	// What was loaded is durable then, unless just that failed.
	if r.disk.faults == faults {
		r.marks = nil
	}
	r.marks = append(r.marks, r.mark())
}

// draw makes an entry.
func (r *run) draw(rt *rapid.T) statefile.Entry {
	n := rapid.IntRange(0, 9).Draw(rt, "n")
	some := members(n, n+rapid.IntRange(0, 4).Draw(rt, "some"), int(r.revision))
	kind := rapid.IntRange(0, 9).Draw(rt, "kind")
	var entry statefile.Entry
	switch {
	case kind == 0 || r.accepted.Epoch == "":
		entry = r.all(some)
	case kind == 1:
		r.epoch = assignment.Epoch(fmt.Sprintf("epoch-%d", r.revision))
		entry = r.all(some)
	case kind == 2:
		entry = r.rebucket(uint32(n%2), some)
	case kind < 5:
		return r.beat()
	case kind < 9:
		entry = r.change(some, id(n+5))
	}
	if rapid.Bool().Draw(rt, "hold") {
		entry = r.hold(entry, n, time.Duration(r.revision))
	}
	if m := rapid.IntRange(0, 9).Draw(rt, "release"); m != n {
		entry = r.release(entry, m)
	}
	return entry
}
