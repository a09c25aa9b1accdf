package queue_test

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/queue"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

func TestDamagedFrameIsAnAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		q := mustOpen(t, small(d))
		r := mustReader(t, q, "sink")
		p := newProducer("p", 20)
		for range 10 {
			mustWrite(t, q, p.next())
		}
		at := read(t, r, 4)[3].End.Offset
		r.Close()
		mustClose(t, q)
		d.flip(d.segments()[0], int(at))
		cfg := small(d)
		cfg.Metrics = queue.NewMetrics()
		q = mustOpen(t, cfg)
		r = mustReader(t, q, "sink")
		wantHeads(t, read(t, r, 100), 1, 4)
		if torn, corrupt := metric(t, cfg.Metrics, "torn_tails_total"), metric(t, cfg.Metrics, "corrupt_segments_total"); torn != 0 || corrupt != 1 {
			t.Errorf("torn %v, corrupt %v", torn, corrupt)
		}
		r.Close()
		mustClose(t, q)
	})
}

func TestDamagedRecordCostsItsSegmentOnly(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			d := newDisk()
			q := mustOpen(t, small(d))
			r := mustReader(t, q, "sink")
			p := newProducer("p", 20)
			for range 1500 {
				mustWrite(t, q, p.next())
			}
			if restarted {
				r.Close()
				mustClose(t, q)
			}
			d.flip(d.segments()[1], 30000)
			if restarted {
				q = mustOpen(t, small(d))
				r = mustReader(t, q, "sink")
			}
			records := read(t, r, 2000)
			n := r.Lag().Dropped["corrupt"]
			if n != int64(1500-len(records))*20 || n == 0 || len(records) < 1000 {
				t.Errorf("%d dropped, %d records", n, len(records))
			}
			r.Close()
			mustClose(t, q)
		})
	}
}

func TestDamageInTheCurrentSegment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		q := mustOpen(t, small(d))
		r := mustReader(t, q, "sink")
		p := newProducer("p", 20)
		for range 10 {
			mustWrite(t, q, p.next())
		}
		name := d.segments()[0]
		d.flip(name, len(d.files[name].data)-10)
		wantHeads(t, read(t, r, 100), 1, 9)
		for range 3 {
			mustWrite(t, q, p.next())
		}
		wantHeads(t, read(t, r, 100), 11, 13)
		if n := r.Lag().Dropped["corrupt"]; n != 20 {
			t.Errorf("%d dropped", n)
		}
		r.Close()
		mustClose(t, q)
	})
}

func TestTornTailIsNoAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
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
		name := after.segments()[0]
		after.files[name].data = after.files[name].data[:len(after.files[name].data)-7]
		cfg := small(after)
		cfg.Metrics = queue.NewMetrics()
		q = mustOpen(t, cfg)
		r = mustReader(t, q, "sink")
		mustWrite(t, q, p.next())
		records := read(t, r, 100)
		if len(records) != 10 || int(records[9].Points[0].Value) != 11 {
			t.Errorf("records %v", heads(records))
		}
		if lag := r.Lag(); len(lag.Dropped) > 0 {
			t.Errorf("%+v", lag)
		}
		if torn, corrupt := metric(t, cfg.Metrics, "torn_tails_total"), metric(t, cfg.Metrics, "corrupt_segments_total"); torn != 1 || corrupt != 0 {
			t.Errorf("torn %v, corrupt %v", torn, corrupt)
		}
		r.Close()
		mustClose(t, q)
	})
}

func TestDamagedPositionBeginsAtTheOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		q := mustOpen(t, small(d))
		r := mustReader(t, q, "sink")
		p := newProducer("p", 20)
		for range 10 {
			mustWrite(t, q, p.next())
		}
		r.Commit(read(t, r, 5)[4].End)
		r.Close()
		mustClose(t, q)
		for at := range d.files["sink.position"].data {
			d.flip("sink.position", at)
		}
		q = mustOpen(t, small(d))
		r = mustReader(t, q, "sink")
		wantHeads(t, read(t, r, 100), 1, 10)
		r.Close()
		mustClose(t, q)
	})
}

func TestNoFilesLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		q := mustOpen(t, small(d))
		r := mustReader(t, q, "sink")
		p := newProducer("p", 20)
		mustWrite(t, q, p.next())
		d.failWith(failing(syscall.EMFILE, "open"))
		if records := read(t, r, 10); len(records) > 0 {
			t.Errorf("records %v", heads(records))
		}
		d.failWith(nil)
		wantHeads(t, read(t, r, 10), 1, 1)
		if n := r.Lag().Dropped; len(n) > 0 {
			t.Errorf("dropped %v", n)
		}
		r.Close()
		mustClose(t, q)
	})
}

func TestReadErrors(t *testing.T) {
	for _, times := range []int{2, 1000} {
		synctest.Test(t, func(t *testing.T) {
			d := newDisk()
			q := mustOpen(t, small(d))
			r := mustReader(t, q, "sink")
			p := newProducer("p", 20)
			for range 10 {
				mustWrite(t, q, p.next())
			}
			failed := 0
			d.failWith(func(op, name string) error {
				if op == "read" && strings.HasSuffix(name, ".segment") && failed < times {
					failed++
					return syscall.EIO
				}
				return nil
			})
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			var record sample.Record
			err := r.Next(ctx, &record)
			dropped := r.Lag().Dropped["corrupt"]
			if lost := err != nil; lost != (times > 3) || lost != (dropped == 200) {
				t.Errorf("%v, %d dropped", err, dropped)
			}
			d.failWith(nil)
			mustWrite(t, q, p.next())
			if records := read(t, r, 100); len(records) == 0 || heads(records)[len(records)-1] != 11 {
				t.Errorf("records %v", heads(records))
			}
			r.Close()
			mustClose(t, q)
		})
	}
}
