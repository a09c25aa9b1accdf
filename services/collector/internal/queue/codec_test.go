package queue_test

import (
	"testing"

	"github.com/cespare/xxhash/v2"
	"pgregory.net/rapid"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/queue"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

func TestRecordsComeBackToTheBit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		series := drawSeries(t)
		c := queue.NewCodec(rapid.Bool().Draw(t, "shared"))
		var r sample.Record
		for range rapid.IntRange(1, 6).Draw(t, "batches") {
			b := drawBatch(t, series)
			payload := c.Encode(b, rapid.Int64().Draw(t, "written"))
			if err := c.Decode(payload, len(b.Samples), &r); err != nil {
				t.Fatal(err)
			}
			if r.Source != xxhash.Sum64String(b.Source) {
				t.Fatalf("source %x", r.Source)
			}
			if d := diff(fromBatch(b), fromRecord(&r)); d != "" {
				t.Fatal(d)
			}
		}
	})
}

// FuzzDecodeRecord asks that nothing panics, whatever has a valid checksum.
func FuzzDecodeRecord(f *testing.F) {
	series := rapid.Custom(drawSeries).Example(1)
	for i := range 20 {
		c := queue.NewCodec(false)
		b := rapid.Custom(func(t *rapid.T) *sample.Batch { return drawBatch(t, series) }).Example(i)
		f.Add(c.Encode(b, 1.7e12), uint16(len(b.Samples)))
	}
	f.Fuzz(func(t *testing.T, payload []byte, samples uint16) {
		c := queue.NewCodec(false)
		var r sample.Record
		for range 2 {
			if c.Decode(payload, int(samples), &r) != nil {
				return
			}
			if len(r.Numbers) != int(samples) || len(r.Points) != int(samples) {
				t.Fatalf("%d numbers, %d points, not %d", len(r.Numbers), len(r.Points), samples)
			}
			fromRecord(&r)
		}
	})
}
