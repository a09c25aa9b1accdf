package statefile_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/statefile"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// childDir is set for the process that TestProcessKilled starts.
const childDir = "ROLLCALL_STATEFILE_CHILD"

// next is the change that leads to the next revision, whoever makes it.
func (r *roll) next() statefile.Entry {
	r.tb.Helper()
	if r.accepted.Epoch == "" {
		return r.all(members(0, 20, 0))
	}
	n := int(r.revision)
	entry := r.change(members(n%20, n%20+3, n))
	if n%3 == 0 {
		return r.hold(entry, n%5, 0)
	}
	return r.release(entry, n%5)
}

// resume goes on from a loaded state.
func (r *roll) resume(s *statefile.State) {
	r.accepted = s.Accepted
	r.revision = max(r.revision, s.Accepted.Revision)
	for _, h := range s.Held {
		r.held[h.Assignment.ProducerID] = h
	}
}

// TestChildAppends is no test of its own: it appends until it is killed, and
// prints what has been acknowledged.
func TestChildAppends(t *testing.T) {
	dir := os.Getenv(childDir)
	if dir == "" {
		return
	}
	file, state := open(t, statefile.WithGrowth(statefile.Config{Dir: dir}, 4000))
	r := newRoll(t)
	r.resume(state)
	for {
		mustAppend(t, file, r, r.next())
		if _, err := fmt.Fprintf(os.Stdout, "acknowledged %d\n", r.revision); err != nil {
			t.Fatal(err)
		}
	}
}

// TestProcessKilled kills a real process while it appends to a real disk.
func TestProcessKilled(t *testing.T) {
	dir := t.TempDir()
	for _, lines := range []int{1, 2, 7, 20, 33} {
		acknowledged := killAfter(t, dir, lines)
		file, state := open(t, statefile.WithGrowth(statefile.Config{Dir: dir}, 4000))
		if found := file.Recovery(); len(found.Damage) > 0 || found.Fallback {
			t.Fatalf("%+v", found)
		}
		if state.Accepted.Revision < acknowledged {
			t.Fatalf("at revision %d, acknowledged was %d", state.Accepted.Revision, acknowledged)
		}
		r := newRoll(t)
		for r.revision < state.Accepted.Revision {
			r.next()
		}
		checkOneOf(t, state, []mark{r.mark()})
		mustClose(t, file)
	}
}

// killAfter lets a child run until it has printed some lines, and returns the
// last revision that it has acknowledged.
func killAfter(t *testing.T, dir string, lines int) assignment.Revision {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChildAppends$")
	child.Env = append(os.Environ(), childDir+"="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	scanner, last, n := bufio.NewScanner(out), assignment.Revision(0), 0
	for scanner.Scan() {
		var revision string
		if _, err := fmt.Sscanf(scanner.Text(), "acknowledged %s", &revision); err != nil {
			t.Errorf("the child says %q", scanner.Text())
			continue
		}
		number, err := strconv.ParseInt(revision, 10, 64)
		if err != nil {
			continue // cut off by the kill
		}
		last = assignment.Revision(number)
		if n++; n == lines {
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := child.Wait(); err == nil || n < lines {
		t.Fatalf("the child ended by itself after %d lines: %v", n, err)
	}
	return last
}
