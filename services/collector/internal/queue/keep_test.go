package queue_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/queue"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

func TestQueueOverflows(t *testing.T) {
	for _, inMemory := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			d := newDisk()
			q := mustOpen(t, small(d))
			a, b := mustReader(t, q, "a"), mustReader(t, q, "b")
			if inMemory {
				d.failWith(failing(syscall.ENOSPC, "write"))
			}
			p := newProducer("p", 20)
			for range 100 {
				mustWrite(t, q, p.next())
			}
			records := read(t, a, 70)
			a.Commit(records[40].End)
			for range 10000 {
				mustWrite(t, q, p.next())
				if n := d.bytes(); n > 256<<10 {
					t.Fatalf("%d bytes", n)
				}
				if n := q.Status().MemoryBytes; n > 128<<10 {
					t.Fatalf("%d bytes in memory", n)
				}
			}
			for name, r := range map[string]*queue.Reader{"a": a, "b": b} {
				records = read(t, r, 20000)
				have := len(records)
				if name == "a" {
					have += 70
				}
				if n := r.Lag().Dropped["overflow"]; n != int64(10100-have)*20 || n == 0 {
					t.Errorf("%s: %d dropped, %d records", name, n, have)
				}
				r.Close()
			}
			d.failWith(nil)
			mustClose(t, q)
		})
	}
}

func TestOldSegmentsOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		q := mustOpen(t, small(d))
		r := mustReader(t, q, "sink")
		p := newProducer("p", 20)
		for range 1000 {
			mustWrite(t, q, p.next())
		}
		records := read(t, r, 300)
		r.Commit(records[299].End)
		r.Close()
		mustClose(t, q)
		q = mustOpen(t, small(d))
		r = mustReader(t, q, "sink")
		for range 10000 {
			mustWrite(t, q, p.next())
		}
		records = read(t, r, 20000)
		if n := r.Lag().Dropped["overflow"]; n != int64(10700-len(records))*20 || n == 0 {
			t.Errorf("%d dropped, %d records", n, len(records))
		}
		r.Close()
		mustClose(t, q)
	})
}

func TestCommittedSegmentsAreRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		q := mustOpen(t, small(d))
		a, b := mustReader(t, q, "a"), mustReader(t, q, "b")
		p := newProducer("p", 20)
		for range 1500 {
			mustWrite(t, q, p.next())
		}
		records := read(t, a, 2000)
		a.Commit(records[1499].End)
		synctest.Wait()
		if n := len(d.segments()); n < 2 {
			t.Errorf("%d segments", n)
		}
		b.Close()
		q.Forget([]string{"a"})
		synctest.Wait()
		if n := len(d.segments()); n != 1 {
			t.Errorf("%d segments", n)
		}
		time.Sleep(2 * time.Second)
		d.mu.Lock()
		if d.files["b.position"] != nil || d.files["a.position"] == nil {
			t.Error("positions")
		}
		d.mu.Unlock()
		a.Close()
		mustClose(t, q)
	})
}

func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	q := mustOpen(t, queue.Config{Dir: dir})
	if _, err := queue.Open(queue.Config{Dir: dir}); !errors.Is(err, queue.ErrLocked) {
		t.Error(err)
	}
	mustClose(t, q)
	q = mustOpen(t, queue.Config{Dir: dir})
	mustClose(t, q)
	if err := q.Write(t.Context(), newProducer("p", 1).next()); !errors.Is(err, queue.ErrClosed) {
		t.Error(err)
	}
}

// A producer that is larger than a record can be is delivered all the same, in
// its order, also when it is new in each segment; and a sample that is so by
// itself costs no other.
func TestTooLargeBatch(t *testing.T) {
	for _, inMemory := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) { testTooLargeBatch(t, inMemory) })
	}
}

func testTooLargeBatch(t *testing.T, inMemory bool) {
	d := newDisk()
	q := mustOpen(t, small(d))
	r := mustReader(t, q, "sink")
	p, large := newProducer("p", 5), newProducer("large", 3000)
	huge := labels.FromStrings("__name__", strings.Repeat("x", 1<<20))
	large.series[1000] = &sample.Series{Own: huge}
	if inMemory {
		d.failWith(failing(syscall.ENOSPC, "write"))
	}
	for round := range int64(5) {
		mustWrite(t, q, p.next())
		mustWrite(t, q, large.next())
		records := read(t, r, 100)
		if len(records) < 3 || len(records[0].Points) != 5 {
			t.Fatalf("%d records", len(records))
		}
		var points []sample.Point
		for _, record := range records[1:] {
			points = append(points, record.Points...)
		}
		if len(points) != 2999 {
			t.Fatalf("%d samples", len(points))
		}
		for i, point := range points {
			if i >= 1000 {
				i++
			}
			if point.Value != float64(large.count+i) {
				t.Fatalf("sample %d is %v", i, point)
			}
		}
		if dropped := r.Lag().Dropped; len(dropped) != 1 || dropped["too_large"] != round+1 {
			t.Errorf("dropped %v", dropped)
		}
		r.Commit(records[len(records)-1].End)
		synctest.Wait()
	}
	d.failWith(nil)
	r.Close()
	mustClose(t, q)
}

func TestConfigIsChecked(t *testing.T) {
	for _, cfg := range []queue.Config{
		{},
		{Dir: "q", MaxBytes: 1},
		{Dir: "q", SegmentBytes: 1},
		{Dir: "q", SegmentBytes: 1 << 30},
		{Dir: "q", MemoryBytes: 1},
		{Dir: "q", SyncInterval: -1},
		{Dir: "q", StallAfter: -1},
	} {
		cfg.FS = newDisk()
		if q, err := queue.Open(cfg); err == nil {
			t.Errorf("%+v", cfg)
			_ = q.Close()
		}
	}
}

func TestReaderNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := mustOpen(t, small(newDisk()))
		for _, name := range []string{"", "a/b", "a b", strings.Repeat("x", 65), "ü"} {
			if _, err := q.Reader(name); !errors.Is(err, queue.ErrReader) {
				t.Errorf("%q: %v", name, err)
			}
		}
		r := mustReader(t, q, "a.B_9-")
		if _, err := q.Reader("a.B_9-"); !errors.Is(err, queue.ErrReader) {
			t.Error(err)
		}
		r.Close()
		mustReader(t, q, "a.B_9-").Close()
		mustClose(t, q)
	})
}

func TestOldestIsTheFirstUncommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := mustOpen(t, small(newDisk()))
		r := mustReader(t, q, "sink")
		p := newProducer("p", 3)
		mustWrite(t, q, p.next())
		time.Sleep(time.Hour)
		mustWrite(t, q, p.next())
		second := time.Now()
		time.Sleep(time.Hour)
		mustWrite(t, q, p.next())
		var record sample.Record
		if err := r.Next(t.Context(), &record); err != nil {
			t.Fatal(err)
		}
		r.Commit(record.End)
		if lag := r.Lag(); !lag.Oldest.Equal(second) {
			t.Errorf("%v, want %v", lag.Oldest, second)
		}
		r.Close()
		mustClose(t, q)
	})
}

func TestNothingIsKeptForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		q := mustOpen(t, small(d))
		mustReader(t, q, "sink").Close()
		p := newProducer("p", 20)
		for range 1500 {
			mustWrite(t, q, p.next())
		}
		mustClose(t, q)
		q = mustOpen(t, small(d))
		synctest.Wait()
		if len(d.segments()) == 0 {
			t.Error("removed before it is known who is there")
		}
		q.Forget(nil)
		synctest.Wait()
		if names := d.segments(); len(names) > 0 {
			t.Errorf("%v are kept", names)
		}
		mustWrite(t, q, p.next())
		r := mustReader(t, q, "sink")
		mustWrite(t, q, p.next())
		wantHeads(t, read(t, r, 10), p.count, p.count)
		r.Close()
		mustClose(t, q)
	})
}

// TestMemoryOverflowsBehindTheDisk drops what is in the middle of the log: what
// is before it is read all the same.
func TestMemoryOverflowsBehindTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		q := mustOpen(t, small(d))
		r := mustReader(t, q, "sink")
		p := newProducer("p", 20)
		for range 100 {
			mustWrite(t, q, p.next())
		}
		d.failWith(failing(syscall.ENOSPC, "write"))
		for range 5000 {
			mustWrite(t, q, p.next())
		}
		records := read(t, r, 10000)
		wantHeads(t, records[:100], 1, 100)
		if n := r.Lag().Dropped["overflow"]; n != int64(5100-len(records))*20 || n == 0 {
			t.Errorf("%d dropped, %d records", n, len(records))
		}
		d.failWith(nil)
		r.Close()
		mustClose(t, q)
	})
}

// A reader that stands still in a segment that was dropped does not keep its
// space.
func TestDroppedSegmentsTakeNoSpace(t *testing.T) {
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		t.Skip("no /proc: ", err)
	}
	dir := t.TempDir()
	q := mustOpen(t, queue.Config{Dir: dir, MaxBytes: 256 << 10, SegmentBytes: 64 << 10, StallAfter: patient})
	p := newProducer("p", 20)
	var readers []*queue.Reader
	for i := range 3 {
		r := mustReader(t, q, fmt.Sprintf("sink-%d", i))
		readers = append(readers, r)
		for range 1000 {
			mustWrite(t, q, p.next())
		}
		read(t, r, 10)
	}
	for range 5000 {
		mustWrite(t, q, p.next())
	}
	for _, r := range readers {
		if r.Lag().Dropped["overflow"] == 0 {
			t.Error("nothing was dropped")
		}
	}
	held := int64(0)
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		name := filepath.Join("/proc/self/fd", fd.Name())
		at, err := os.Readlink(name)
		if err != nil || !strings.HasPrefix(at, dir) || !strings.HasSuffix(at, "(deleted)") {
			continue
		}
		if info, err := os.Stat(name); err == nil {
			held += info.Size()
		}
	}
	if held > 0 {
		t.Errorf("%d bytes are held by files that are removed", held)
	}
	for _, r := range readers {
		if n := len(read(t, r, 3)); n != 3 {
			t.Errorf("%d records", n)
		}
		r.Close()
	}
	mustClose(t, q)
}
