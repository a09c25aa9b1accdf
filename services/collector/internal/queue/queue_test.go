package queue_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"go.uber.org/goleak"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/queue"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A producer makes batches whose values tell what they are: the first sample of
// the n-th batch is n.
type producer struct {
	id     string
	series []*sample.Series
	count  int
}

func newProducer(id string, series int) *producer {
	p := &producer{id: id}
	for i := range series {
		ls := labels.FromStrings("__name__", fmt.Sprintf("metric_%d", i), "instance", id)
		p.series = append(p.series, &sample.Series{Own: ls})
	}
	return p
}

func (p *producer) next() *sample.Batch {
	p.count++
	b := &sample.Batch{Source: p.id}
	for i, s := range p.series {
		b.Samples = append(b.Samples, sample.Sample{Series: s, Time: 1.7e12 + int64(p.count), Value: float64(p.count + i)})
	}
	return b
}

func mustOpen(tb testing.TB, cfg queue.Config) *queue.Queue {
	tb.Helper()
	q, err := queue.Open(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return q
}

func mustReader(tb testing.TB, q *queue.Queue, name string) *queue.Reader {
	tb.Helper()
	r, err := q.Reader(name)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func mustWrite(tb testing.TB, q *queue.Queue, b *sample.Batch) {
	tb.Helper()
	if err := q.Write(tb.Context(), b); err != nil {
		tb.Fatal(err)
	}
}

func mustClose(tb testing.TB, q *queue.Queue) {
	tb.Helper()
	if err := q.Close(); err != nil {
		tb.Fatal(err)
	}
}

// read reads records until none comes for a moment of fake time.
func read(tb testing.TB, r *queue.Reader, most int) []sample.Record {
	tb.Helper()
	var all []sample.Record
	for len(all) < most {
		ctx, cancel := context.WithTimeout(tb.Context(), time.Millisecond)
		var record sample.Record
		err := r.Next(ctx, &record)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, record)
	}
	return all
}

// heads are the first values of records.
func heads(records []sample.Record) []int {
	var all []int
	for _, r := range records {
		all = append(all, int(r.Points[0].Value))
	}
	return all
}

func wantHeads(tb testing.TB, records []sample.Record, from, to int) {
	tb.Helper()
	var want []int
	for i := from; i <= to; i++ {
		want = append(want, i)
	}
	if have := heads(records); fmt.Sprint(have) != fmt.Sprint(want) {
		tb.Errorf("records %v, want %v", have, want)
	}
}

func TestReaderGetsWhatIsWritten(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		q := mustOpen(t, queue.Config{Dir: dir})
		p := newProducer("p", 3)
		mustWrite(t, q, p.next())
		r := mustReader(t, q, "sink")
		for range 5 {
			mustWrite(t, q, p.next())
		}
		records := read(t, r, 100)
		wantHeads(t, records, 2, 6)
		if lag := r.Lag(); lag.Bytes == 0 || lag.Oldest.IsZero() {
			t.Errorf("lag %+v", lag)
		}
		for _, record := range records[1:3] { // so that the newest slot is the second
			r.Commit(record.End)
			synctest.Wait()
		}
		r.Close()
		r = mustReader(t, q, "sink")
		wantHeads(t, read(t, r, 100), 5, 6)
		r.Close()
		mustClose(t, q)

		q = mustOpen(t, queue.Config{Dir: dir})
		r = mustReader(t, q, "sink")
		mustWrite(t, q, p.next())
		records = read(t, r, 100)
		wantHeads(t, records, 5, 7)
		r.Commit(records[2].End)
		if lag := r.Lag(); lag.Bytes != 0 || !lag.Oldest.IsZero() {
			t.Errorf("lag %+v", lag)
		}
		r.Close()
		mustClose(t, q)
	})
}
