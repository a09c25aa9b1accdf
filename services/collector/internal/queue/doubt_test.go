package queue_test

import (
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestAForgottenSinkIsNoFailure: its position is still to be synced when its file
// is closed and removed.
func TestAForgottenSinkIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		q := mustOpen(t, small(d))
		time.Sleep(2 * time.Second)
		d.hang("sync")
		r := mustReader(t, q, "sink")
		mustWrite(t, q, newProducer("p", 20).next())
		time.Sleep(2 * time.Second) // the sync of the segment is under way
		r.Close()
		q.Forget(nil)
		synctest.Wait()
		d.release()
		time.Sleep(2 * time.Second)
		if s := q.Status(); s.LastError != nil {
			t.Errorf("%+v", s)
		}
		mustClose(t, q)
	})
}

// TestWhatIsBeingRemovedTakesRoom: nothing is written in its place before it is
// gone.
func TestWhatIsBeingRemovedTakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		cfg := small(d)
		q := mustOpen(t, cfg)
		r := mustReader(t, q, "sink")
		p := newProducer("p", 20)
		for d.bytes() < 200<<10 {
			mustWrite(t, q, p.next())
		}
		records := read(t, r, 10000)
		d.hang("open")
		r.Commit(records[len(records)-1].End)
		synctest.Wait()
		for range 1000 {
			mustWrite(t, q, p.next())
			if n := d.bytes(); n > cfg.MaxBytes {
				t.Errorf("%d bytes on disk, at most %d", n, cfg.MaxBytes)
				break
			}
		}
		d.release()
		time.Sleep(5 * time.Second)
		if s := q.Status(); s.Failing || s.MemoryBytes > 0 || s.DiskBytes != d.bytes() {
			t.Errorf("%+v, %d bytes", s, d.bytes())
		}
		r.Close()
		mustClose(t, q)
	})
}

// TestWhatAKilledProcessWroteIsInDoubt: it could not be synced, so a crash of the
// machine may take it. That is told until it is delivered.
func TestWhatAKilledProcessWroteIsInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		q := mustOpen(t, small(d))
		mustReader(t, q, "sink").Close()
		p := newProducer("p", 20)
		mustWrite(t, q, p.next())
		synctest.Wait()
		after := d.killed()
		_ = q.Close()
		after.failWith(func(op, name string) error {
			if op == "sync" && strings.HasSuffix(name, ".segment") {
				return syscall.EIO
			}
			return nil
		})
		q = mustOpen(t, small(after))
		r := mustReader(t, q, "sink")
		synctest.Wait()
		after.failWith(nil)
		time.Sleep(4 * time.Second)
		if s := q.Status(); !s.Failing || time.Since(s.Synced) < 4*time.Second {
			t.Errorf("%+v", s)
		}
		r.Commit(read(t, r, 1)[0].End)
		mustWrite(t, q, p.next())
		time.Sleep(4 * time.Second)
		if s := q.Status(); s.Failing || s.Synced.Before(time.Now()) {
			t.Errorf("once it is delivered: %+v", s)
		}
		r.Close()
		mustClose(t, q)
	})
}
