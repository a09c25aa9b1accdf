package queue_test

import (
	"fmt"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/queue"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// TestManyWriters has many of them at a real disk, and readers that keep up or
// come late: each gets all batches, those of a producer in their order.
func TestManyWriters(t *testing.T) {
	const writers, batches = 16, 300
	q := mustOpen(t, onDisk(t.TempDir()))
	readers := []*queue.Reader{mustReader(t, q, "a"), mustReader(t, q, "b"), mustReader(t, q, "late")}
	var writing, reading sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			p := newProducer(fmt.Sprint(w), 30)
			for range batches {
				if err := q.Write(t.Context(), p.next()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, r := range readers[:2] {
		reading.Go(func() { readInOrder(t, r, writers, batches) })
	}
	writing.Wait()
	reading.Wait()
	readInOrder(t, readers[2], writers, batches)
	for _, r := range readers {
		if lag := r.Lag(); lag.Bytes != 0 || len(lag.Dropped) > 0 {
			t.Errorf("%+v", lag)
		}
		r.Close()
	}
	mustClose(t, q)
}

// TestManyWritersAtABadDisk is the same while the disk fails and hangs again and
// again, which no reader notices.
func TestManyWritersAtABadDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const writers, batches = 16, 200
		d := newDisk()
		q := mustOpen(t, queue.Config{Dir: "q", FS: d, MaxBytes: 64 << 20, SegmentBytes: 64 << 10})
		readers := []*queue.Reader{mustReader(t, q, "a"), mustReader(t, q, "b"), mustReader(t, q, "late")}
		var writing, reading sync.WaitGroup
		for w := range writers {
			writing.Go(func() {
				p := newProducer(fmt.Sprint(w), 30)
				for i := range batches {
					if err := q.Write(t.Context(), p.next()); err != nil {
						t.Error(err)
					}
					time.Sleep(time.Duration((w*31+i*17)%200) * time.Millisecond)
				}
			})
		}
		for _, r := range readers[:2] {
			reading.Go(func() { readInOrder(t, r, writers, batches) })
		}
		for range 10 {
			d.failWith(failing(syscall.ENOSPC, "write"))
			time.Sleep(700 * time.Millisecond)
			d.failWith(nil)
			time.Sleep(1100 * time.Millisecond)
			d.hang("write", "create", "sync", "remove")
			time.Sleep(1300 * time.Millisecond)
			d.release()
			time.Sleep(1700 * time.Millisecond)
		}
		writing.Wait()
		reading.Wait()
		readInOrder(t, readers[2], writers, batches)
		for _, r := range readers {
			if lag := r.Lag(); lag.Bytes != 0 || len(lag.Dropped) > 0 {
				t.Errorf("%+v", lag)
			}
			r.Close()
		}
		mustClose(t, q)
	})
}

func readInOrder(t *testing.T, r *queue.Reader, writers, batches int) {
	last := make(map[uint64]int)
	for w := range writers {
		last[xxhash.Sum64String(fmt.Sprint(w))] = 0
	}
	var record sample.Record
	for range writers * batches {
		if err := r.Next(t.Context(), &record); err != nil {
			t.Error(err)
			return
		}
		before, ok := last[record.Source]
		if n := int(record.Points[0].Value); !ok || n != before+1 || len(record.Points) != 30 {
			t.Errorf("%d of %x after %d", n, record.Source, before)
		}
		last[record.Source]++
		r.Commit(record.End)
	}
}
