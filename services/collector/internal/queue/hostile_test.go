package queue_test

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/queue"
)

// FuzzDecodeSegment puts any bytes in the place of a segment and of a position:
// nothing panics, and what is written thereafter is read.
func FuzzDecodeSegment(f *testing.F) {
	whole, position := example(f)
	f.Add(whole, position)
	f.Add(whole[:len(whole)-5], position[:20])
	f.Add(whole[:40], position)
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, segment, position []byte) {
		synctest.Test(t, func(t *testing.T) {
			d := newDisk()
			d.files["0000000000000001.segment"] = &inode{data: segment, synced: len(segment), named: true}
			d.files["sink.position"] = &inode{data: position, synced: len(position), named: true}
			d.files["0000000000000001.segment.old"] = &inode{}
			d.files["x.segment"] = &inode{}
			q := mustOpen(t, small(d))
			r := mustReader(t, q, "sink")
			p := newProducer("p", 3)
			mustWrite(t, q, p.next())
			records := read(t, r, 1<<20)
			if len(records) == 0 {
				t.Fatal("nothing")
			}
			wantHeads(t, records[len(records)-1:], 1, 1)
			r.Commit(records[len(records)-1].End)
			if n := r.Lag().Bytes; n != 0 {
				t.Errorf("%d bytes left", n)
			}
			r.Close()
			mustClose(t, q)
		})
	})
}

// example is a segment and a position.
func example(tb testing.TB) (segment, position []byte) {
	dir := tb.TempDir()
	q := mustOpen(tb, queue.Config{Dir: dir})
	r := mustReader(tb, q, "sink")
	p := newProducer("p", 5)
	for range 3 {
		mustWrite(tb, q, p.next())
	}
	r.Close()
	mustClose(tb, q)
	segment, err := os.ReadFile(filepath.Join(dir, "0000000000000001.segment"))
	if err != nil {
		tb.Fatal(err)
	}
	position, err = os.ReadFile(filepath.Join(dir, "sink.position"))
	if err != nil {
		tb.Fatal(err)
	}
	return segment, position
}
