package queue_test

import (
	"context"
	"errors"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/queue"
)

func failing(err error, ops ...string) func(string, string) error {
	return func(op, _ string) error {
		if slices.Contains(ops, op) {
			return err
		}
		return nil
	}
}

// small has the least sizes.
func small(d *disk) queue.Config {
	return queue.Config{Dir: "q", FS: d, MaxBytes: 256 << 10, SegmentBytes: 64 << 10, MemoryBytes: 128 << 10}
}

func TestDiskFails(t *testing.T) {
	for name, fault := range map[string]func(string, string) error{
		"full":          failing(syscall.ENOSPC, "write"),
		"error":         failing(syscall.EIO, "write"),
		"read-only":     failing(syscall.EROFS, "write", "create", "remove", "truncate", "sync"),
		"no new files":  failing(syscall.ENOSPC, "create"),
		"nothing works": failing(syscall.EIO, "write", "create", "remove", "truncate", "sync", "read", "open", "syncdir"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testDiskFails(t, fault) })
		})
	}
}

func testDiskFails(t *testing.T, fault func(string, string) error) {
	d := newDisk()
	cfg := small(d)
	cfg.Metrics = queue.NewMetrics()
	q := mustOpen(t, cfg)
	r := mustReader(t, q, "sink")
	p := newProducer("p", 20)
	for range 3 {
		mustWrite(t, q, p.next())
	}
	wantHeads(t, read(t, r, 2), 1, 2)
	d.failWith(fault)
	if fault("write", "") == nil {
		for range 1000 { // until a new segment is needed
			mustWrite(t, q, p.next())
		}
	}
	for range 3 {
		mustWrite(t, q, p.next())
	}
	if s := q.Status(); !s.Failing || s.LastError == nil || s.MemoryBytes == 0 {
		t.Errorf("%+v", s)
	}
	if fault("read", "") == nil {
		wantHeads(t, read(t, r, 10000), 3, p.count)
	}
	time.Sleep(10 * time.Second)
	mustWrite(t, q, p.next())
	if s := q.Status(); !s.Failing {
		t.Error("does not fail any more")
	}
	d.failWith(nil)
	time.Sleep(3 * time.Second)
	mustWrite(t, q, p.next())
	if s := q.Status(); s.Failing || s.MemoryBytes > 0 {
		t.Errorf("%+v", s)
	}
	from := p.count - 1
	if fault("read", "") != nil {
		from = 3
	}
	wantHeads(t, read(t, r, 10000), from, p.count)
	if n := r.Lag().Dropped; len(n) > 0 {
		t.Errorf("dropped %v", n)
	}
	if n := metric(t, cfg.Metrics, "corrupt_segments_total"); n > 0 && fault("read", "") == nil {
		t.Errorf("%v corrupt segments", n)
	}
	if on, told := d.bytes(), q.Status().DiskBytes; on != told && fault("truncate", "") == nil {
		t.Errorf("%d bytes on disk, %d told", on, told)
	}
	r.Close()
	mustClose(t, q)
}

func TestMemorySegmentIsCommittedWhileItIsWrittenOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		q := mustOpen(t, small(d))
		r := mustReader(t, q, "sink")
		p := newProducer("p", 20)
		d.failWith(failing(syscall.ENOSPC, "write"))
		mustWrite(t, q, p.next())
		d.failWith(nil)
		d.hang("write")
		time.Sleep(2 * time.Second)
		records := read(t, r, 10)
		wantHeads(t, records, 1, 1)
		r.Commit(records[0].End)
		synctest.Wait()
		d.release()
		time.Sleep(3 * time.Second)
		if s := q.Status(); len(d.segments()) > 0 || s.MemoryBytes != 0 || s.DiskBytes != 0 {
			t.Errorf("%v, %+v", d.segments(), s)
		}
		r.Close()
		mustClose(t, q)
	})
}

func TestWhatAKilledProcessWroteIsSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		q := mustOpen(t, small(d))
		r := mustReader(t, q, "sink")
		time.Sleep(2 * time.Second)
		mustWrite(t, q, newProducer("p", 20).next())
		after := d.killed()
		r.Close()
		_ = q.Close()
		q = mustOpen(t, small(after))
		time.Sleep(2 * time.Second)
		d = after.crashed(func(int) int { return 0 })
		_ = q.Close()
		q = mustOpen(t, small(d))
		r = mustReader(t, q, "sink")
		wantHeads(t, read(t, r, 10), 1, 1)
		r.Close()
		mustClose(t, q)
	})
}

func TestDiskStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		q := mustOpen(t, small(d))
		r := mustReader(t, q, "sink")
		p, other := newProducer("p", 20), newProducer("other", 20)
		mustWrite(t, q, p.next())
		d.hang("write", "sync", "remove", "truncate")
		begun := time.Now()
		done := make(chan struct{})
		go func() {
			defer close(done)
			mustWrite(t, q, other.next())
		}()
		mustWrite(t, q, p.next())
		<-done
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("took %v", took)
		}
		begun = time.Now()
		for range 10 {
			mustWrite(t, q, p.next())
		}
		if took := time.Since(begun); took > 0 {
			t.Errorf("took %v", took)
		}
		if n := len(read(t, r, 100)); n != 13 {
			t.Errorf("%d records", n)
		}
		time.Sleep(time.Minute)
		d.release()
		time.Sleep(3 * time.Second)
		if s := q.Status(); s.Failing || s.MemoryBytes > 0 {
			t.Errorf("%+v", s)
		}
		mustWrite(t, q, p.next())
		wantHeads(t, read(t, r, 100), p.count, p.count)
		r.Close()
		mustClose(t, q)
	})
}

func TestCloseDoesNotWaitForTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		q := mustOpen(t, small(d))
		mustReader(t, q, "sink")
		p := newProducer("p", 20)
		mustWrite(t, q, p.next())
		d.hang("write", "sync", "remove", "truncate", "create", "open", "syncdir")
		mustWrite(t, q, p.next())
		begun := time.Now()
		if err := q.Close(); err == nil {
			t.Error("no error")
		}
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("took %v", took)
		}
		d.release()
	})
}

func TestWriteEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		q := mustOpen(t, small(d))
		mustReader(t, q, "sink")
		d.hang("create")
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := q.Write(ctx, newProducer("p", 1).next()); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		d.release()
		mustClose(t, q)
	})
}

func TestFailedSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		q := mustOpen(t, small(d))
		r := mustReader(t, q, "sink")
		p := newProducer("p", 20)
		begun := time.Now()
		d.failWith(failing(syscall.EIO, "sync"))
		mustWrite(t, q, p.next())
		time.Sleep(2 * time.Second)
		d.failWith(nil)
		if s := q.Status(); !s.Failing || s.LastError == nil || s.Synced.After(begun) {
			t.Errorf("%+v", s)
		}
		mustWrite(t, q, p.next())
		if n := len(d.segments()); n != 2 {
			t.Errorf("%d segments", n)
		}
		time.Sleep(2 * time.Second)
		if s := q.Status(); s.Failing || s.Synced.After(begun) {
			t.Errorf("%+v", s)
		}
		records := read(t, r, 100)
		wantHeads(t, records, 1, 2)
		r.Commit(records[1].End)
		synctest.Wait()
		if s := q.Status(); !s.Synced.Equal(time.Now()) {
			t.Errorf("%+v", s)
		}
		r.Close()
		mustClose(t, q)
	})
}

func TestSyncedWithinTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		q := mustOpen(t, small(d))
		r := mustReader(t, q, "sink")
		p := newProducer("p", 20)
		for range 10 {
			mustWrite(t, q, p.next())
			time.Sleep(1001 * time.Millisecond)
		}
		after := d.crashed(func(int) int { return 0 })
		r.Close()
		_ = q.Close()
		q = mustOpen(t, small(after))
		r = mustReader(t, q, "sink")
		wantHeads(t, read(t, r, 100), 1, 10)
		r.Close()
		mustClose(t, q)
	})
}

func TestUnwritableDirectoryAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		d.failWith(failing(syscall.EROFS, "claim"))
		q := mustOpen(t, small(d))
		r := mustReader(t, q, "sink")
		p := newProducer("p", 20)
		mustWrite(t, q, p.next())
		wantHeads(t, read(t, r, 10), 1, 1)
		if !q.Status().Failing {
			t.Error("does not fail")
		}
		d.failWith(nil)
		time.Sleep(3 * time.Second)
		mustWrite(t, q, p.next())
		if s := q.Status(); s.Failing || s.DiskBytes == 0 {
			t.Errorf("%+v", s)
		}
		wantHeads(t, read(t, r, 10), 2, 2)
		r.Close()
		mustClose(t, q)
	})
}

func TestFullAndNothingCanBeRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		q := mustOpen(t, small(d))
		r := mustReader(t, q, "sink")
		p := newProducer("p", 20)
		d.failWith(failing(syscall.EIO, "remove"))
		for range 6000 {
			mustWrite(t, q, p.next())
			if n := d.bytes(); n > 256<<10 {
				t.Fatalf("%d bytes", n)
			}
		}
		if s := q.Status(); !s.Failing || s.MemoryBytes == 0 {
			t.Errorf("%+v", s)
		}
		d.failWith(nil)
		time.Sleep(5 * time.Second)
		if s := q.Status(); s.Failing || s.MemoryBytes > 0 || s.DiskBytes != d.bytes() {
			t.Errorf("%+v, %d bytes", s, d.bytes())
		}
		records := read(t, r, 10000)
		if n := r.Lag().Dropped["overflow"]; n != int64(6000-len(records))*20 {
			t.Errorf("%d dropped, %d records", n, len(records))
		}
		r.Close()
		mustClose(t, q)
	})
}
