package queue_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/queue"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// childDir is set for the process that TestProcessKilled starts, childFrom is
// what its first batch is.
const (
	childDir  = "ROLLCALL_QUEUE_CHILD"
	childFrom = "ROLLCALL_QUEUE_CHILD_FROM"
)

// patient is how long a write to a real disk may take: what goes to memory instead
// is not there after a kill.
const patient = time.Minute

func onDisk(dir string) queue.Config {
	return queue.Config{Dir: dir, MaxBytes: 64 << 20, SegmentBytes: 64 << 10, StallAfter: patient}
}

// TestChildWrites is no test of its own: it writes, reads and commits until it
// is killed, and prints what it has done.
func TestChildWrites(t *testing.T) {
	dir := os.Getenv(childDir)
	if dir == "" {
		return
	}
	from, err := strconv.Atoi(os.Getenv(childFrom))
	if err != nil {
		t.Fatal(err)
	}
	q := mustOpen(t, onDisk(dir))
	r := mustReader(t, q, "sink")
	p := newProducer("p", 20)
	p.count = from
	var record sample.Record
	for {
		mustWrite(t, q, p.next())
		if _, err := fmt.Fprintf(os.Stdout, "written %d\n", p.count); err != nil {
			t.Fatal(err)
		}
		if p.count%3 != 0 {
			continue
		}
		if err := r.Next(t.Context(), &record); err != nil {
			t.Fatal(err)
		}
		if id := int(record.Points[0].Value); id > 0 { // and no mark
			if _, err := fmt.Fprintf(os.Stdout, "read %d\n", id); err != nil {
				t.Fatal(err)
			}
		}
		r.Commit(record.End)
	}
}

// TestProcessKilled kills a real process while it writes to a real disk: each
// batch that it says is written is there, and it goes on with what is read but
// for what was committed in the very last moment.
func TestProcessKilled(t *testing.T) {
	dir := t.TempDir()
	q := mustOpen(t, onDisk(dir))
	mustReader(t, q, "sink").Close()
	mustClose(t, q)
	written, next := 0, 1
	for i, lines := range []int{1, 3, 10, 500, 2000} {
		last, read := killAfter(t, dir, lines, written)
		q := mustOpen(t, onDisk(dir))
		r := mustReader(t, q, "sink")
		ids := readAll(t, q, r, -1-i)
		if len(ids) == 0 {
			t.Fatalf("read nothing, written to %d, read before to %d", last, read)
		}
		if ids[0] > max(read+1, next) || ids[0] < next || ids[len(ids)-1] < last {
			t.Fatalf("read %d to %d, written to %d, read before to %d", ids[0], ids[len(ids)-1], last, read)
		}
		if read > 0 {
			t.Logf("%d records are read again", read-ids[0]+1)
		}
		for k, id := range ids {
			if id != ids[0]+k {
				t.Fatalf("%d follows %d", id, ids[0]+k-1)
			}
		}
		if n := r.Lag().Dropped; len(n) > 0 {
			t.Errorf("dropped %v", n)
		}
		// Leave some, for the next process.
		written, next = ids[len(ids)-1], ids[0]
		r.Close()
		mustClose(t, q)
	}
}

// readAll reads all that there is: up to a mark, which is written behind it. Those
// of earlier calls are passed over.
func readAll(t *testing.T, q *queue.Queue, r *queue.Reader, mark int) []int {
	t.Helper()
	p := newProducer("mark", 1)
	p.count = mark - 1
	mustWrite(t, q, p.next())
	var ids []int
	for {
		var record sample.Record
		if err := r.Next(t.Context(), &record); err != nil {
			t.Fatal(err)
		}
		id := int(record.Points[0].Value)
		if id == mark {
			return ids
		}
		if id > 0 {
			ids = append(ids, id)
		}
	}
}

// killAfter lets a child run until it has printed some lines, and returns what
// it has written and read last.
func killAfter(t *testing.T, dir string, lines, from int) (written, read int) {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChildWrites$")
	child.Env = append(os.Environ(), childDir+"="+dir, fmt.Sprintf("%s=%d", childFrom, from))
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	scanner, n := bufio.NewScanner(out), 0
	for scanner.Scan() {
		var what string
		var id int
		if _, err := fmt.Sscanf(scanner.Text(), "%s %d", &what, &id); err != nil {
			t.Errorf("the child says %q", scanner.Text())
			continue
		}
		// A number that was cut off by the kill is smaller, which does no harm.
		if what == "written" {
			written = max(written, id)
		} else {
			read = max(read, id)
		}
		if n++; n == lines {
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := child.Wait(); err == nil || n < lines {
		t.Fatalf("the child ended by itself after %d lines: %v", n, err)
	}
	return written, read
}
