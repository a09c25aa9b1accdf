package queue_test

import (
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// What overflows in memory takes nothing from what waits on the disk.
func TestMemoryOverflowsInFrontOfABacklogOnDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		q := mustOpen(t, small(d))
		r := mustReader(t, q, "sink")
		p := newProducer("p", 20)
		for range 10 {
			mustWrite(t, q, p.next())
		}
		d.failWith(failing(syscall.ENOSPC, "write"))
		for range 3000 {
			mustWrite(t, q, p.next())
		}
		d.failWith(nil)
		records := read(t, r, 10000)
		wantHeads(t, records[:10], 1, 10)
		if n := r.Lag().Dropped["overflow"]; n != int64(3010-len(records))*20 || n == 0 {
			t.Errorf("%d dropped, %d records", n, len(records))
		}
		r.Close()
		mustClose(t, q)
	})
}

// The same while all of the disk's part was read, and nothing of it was delivered.
func TestMemoryOverflowsInFrontOfWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		q := mustOpen(t, small(d))
		r := mustReader(t, q, "sink")
		p := newProducer("p", 20)
		for range 10 {
			mustWrite(t, q, p.next())
		}
		d.failWith(failing(syscall.ENOSPC, "write"))
		mustWrite(t, q, p.next())
		wantHeads(t, read(t, r, 100), 1, 11)
		for range 3000 {
			mustWrite(t, q, p.next())
		}
		r.Close()
		d.failWith(nil)
		time.Sleep(3 * time.Second)
		r = mustReader(t, q, "sink")
		records := read(t, r, 10000)
		wantHeads(t, records[:10], 1, 10)
		if n := r.Lag().Dropped["overflow"]; n != int64(3011-len(records))*20 || n == 0 {
			t.Errorf("%d dropped, %d records", n, len(records))
		}
		r.Close()
		mustClose(t, q)
	})
}

// What was read in front of a torn or damaged end, and not delivered, is read
// again, and what is lost behind it is counted once.
func TestWhatIsUnderWayOutlivesDamageBehindIt(t *testing.T) {
	for name, damage := range map[string]func(*disk, string){
		"torn": func(d *disk, name string) {
			d.files[name].data = d.files[name].data[:len(d.files[name].data)-7]
		},
		"flipped": func(d *disk, name string) { d.flip(name, len(d.files[name].data)-7) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testUnderWay(t, damage) })
		})
	}
}

func testUnderWay(t *testing.T, damage func(*disk, string)) {
	d := newDisk()
	q := mustOpen(t, small(d))
	r := mustReader(t, q, "sink")
	p := newProducer("p", 20)
	for range 10 {
		mustWrite(t, q, p.next())
	}
	synctest.Wait()
	after := d.killed()
	r.Close()
	_ = q.Close()
	damage(after, after.segments()[0])

	q = mustOpen(t, small(after))
	r = mustReader(t, q, "sink")
	wantHeads(t, read(t, r, 100), 1, 9) // and the sink is down
	time.Sleep(2 * time.Second)
	lost := r.Lag().Dropped["corrupt"]
	r.Close()
	r = mustReader(t, q, "sink") // another configuration of it
	wantHeads(t, read(t, r, 100), 1, 9)
	if n := r.Lag().Dropped["corrupt"]; n != lost {
		t.Errorf("%d samples are dropped, then %d", lost, n)
	}
	killed := after.killed()
	r.Close()
	_ = q.Close()

	q = mustOpen(t, small(killed))
	r = mustReader(t, q, "sink")
	records := read(t, r, 100)
	wantHeads(t, records, 1, 9)
	r.Commit(records[8].End)
	synctest.Wait()
	if lag := r.Lag(); lag.Bytes != 0 || len(killed.segments()) != 0 {
		t.Errorf("lag %+v, %v", lag, killed.segments())
	}
	r.Close()
	mustClose(t, q)
}

// A queue whose directory could not be opened at first has nothing less for its
// sinks when it can.
func TestBacklogOfADirectoryThatIsOpenedLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		q := mustOpen(t, small(d))
		r := mustReader(t, q, "sink")
		p := newProducer("p", 20)
		for range 10 {
			mustWrite(t, q, p.next())
		}
		records := read(t, r, 4)
		r.Commit(records[3].End)
		r.Close()
		mustClose(t, q)

		d.failWith(failing(syscall.EACCES, "claim"))
		q = mustOpen(t, small(d))
		r = mustReader(t, q, "sink")
		q.Forget([]string{"sink"})
		mustWrite(t, q, p.next())
		early := read(t, r, 10)
		wantHeads(t, early, 11, 11)
		d.failWith(nil)
		time.Sleep(3 * time.Second)
		r.Commit(early[0].End) // of which the queue knows nothing any more
		mustWrite(t, q, p.next())
		records = read(t, r, 100)
		wantHeads(t, records, 5, 12)
		r.Commit(early[0].End)
		if r.Lag().Bytes == 0 {
			t.Error("what waits in the window is taken to be delivered")
		}
		r.Commit(records[7].End)
		if lag := r.Lag(); lag.Bytes != 0 || len(lag.Dropped) > 0 {
			t.Errorf("lag %+v", lag)
		}
		r.Close()
		mustClose(t, q)
	})
}

// What a sink was given and has not delivered when its part of the log is
// dropped is counted when the sink ends, because it is given to nobody else.
func TestDroppedUnderWay(t *testing.T) {
	for _, inMemory := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			d := newDisk()
			q := mustOpen(t, small(d))
			r := mustReader(t, q, "sink")
			if inMemory {
				d.failWith(failing(syscall.ENOSPC, "write"))
			}
			p := newProducer("p", 20)
			for range 100 {
				mustWrite(t, q, p.next())
			}
			records := read(t, r, 70)
			r.Commit(records[40].End)
			r.Close()
			r = mustReader(t, q, "sink")
			if !inMemory {
				records = read(t, r, 20)
				r.Commit(records[4].End)
			}
			for range 10000 {
				mustWrite(t, q, p.next())
			}
			r.Close()
			r = mustReader(t, q, "sink")
			records = read(t, r, 20000)
			delivered := 41 + len(records)
			if !inMemory {
				delivered += 5
			}
			if n := r.Lag().Dropped["overflow"]; n != int64(10100-delivered)*20 {
				t.Errorf("in memory %v: %d dropped, %d delivered of 10100", inMemory, n/20, delivered)
			}
			r.Close()
			d.failWith(nil)
			mustClose(t, q)
		})
	}
}

// The same for a sink that is no longer there: nothing is kept for it.
func TestForgottenBeforeTheDirectoryIsOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		q := mustOpen(t, small(d))
		mustReader(t, q, "sink").Close()
		mustReader(t, q, "gone").Close()
		p := newProducer("p", 20)
		for range 10 {
			mustWrite(t, q, p.next())
		}
		mustClose(t, q)

		d.failWith(failing(syscall.EACCES, "claim"))
		q = mustOpen(t, small(d))
		r := mustReader(t, q, "sink")
		q.Forget([]string{"sink"})
		d.failWith(nil)
		time.Sleep(3 * time.Second)
		records := read(t, r, 100)
		wantHeads(t, records, 1, 10)
		r.Commit(records[9].End)
		time.Sleep(3 * time.Second)
		if names := d.segments(); len(names) > 0 || d.files["gone.position"] != nil || d.files["sink.position"] == nil {
			t.Errorf("%v are kept", names)
		}
		r.Close()
		mustClose(t, q)
	})
}
