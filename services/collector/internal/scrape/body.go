package scrape

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
)

// A budget is a number of bytes that all collections share. Nobody waits for
// it: who has half of a body would wait for who has the other half.
type budget struct {
	limit int64
	used  atomic.Int64
	gauge prometheus.Gauge
}

// largeTake is what is not small any more: an eighth of the budget is kept for
// smaller ones, so that no number of producers with large bodies leaves none for
// those with small ones.
const largeTake = 128 << 10

// take reports whether n more bytes may be held; if so, give them back.
func (b *budget) take(n int64) bool { return b.takeMore(n, 0) }

// takeMore is take for something that holds some bytes already.
func (b *budget) takeMore(n, held int64) bool {
	limit := b.limit
	if n+held > largeTake {
		limit -= limit / 8
	}
	if used := b.used.Add(n); used > limit {
		b.used.Add(-n)
		return false
	}
	b.gauge.Add(float64(n))
	return true
}

func (b *budget) give(n int64) {
	b.used.Add(-n)
	b.gauge.Sub(float64(n))
}

// over says that the budget is used up.
func (b *budget) over() *failure {
	return fail(schedule.ReasonBudget, "running collections hold the %d bytes that they may hold together", b.limit)
}

const (
	minBuffer = 4 << 10
	// bufferSlack lets a body of exactly 2^k bytes be read to its end, and a
	// parser append its line feed, without the next size.
	bufferSlack   = 64
	bufferClasses = 24 // up to 32 GiB: no limit of its own
)

// bufferPools keep buffers of 4 KiB and its doubles for the next collection.
type bufferPools [bufferClasses]sync.Pool // of *[]byte

func bufferClass(size int) int {
	if size <= minBuffer {
		return 0
	}
	return min(bits.Len(uint(size-1))-bits.Len(uint(minBuffer-1)), bufferClasses-1)
}

// A body is a buffer that is paid for out of the budget.
type body struct {
	b     []byte
	class int
	from  *Scraper
	boxed *[]byte
}

func bufferSize(class int) int64 { return minBuffer<<class + bufferSlack }

// newBody returns an empty body with room for about size bytes, or false when
// the budget does not allow it.
func (s *Scraper) newBody(size int) (*body, bool) {
	d := &body{from: s, class: bufferClass(size)}
	if !s.budget.take(bufferSize(d.class)) {
		return nil, false
	}
	d.box()
	return d, true
}

func (d *body) box() {
	boxed, ok := d.from.buffers[d.class].Get().(*[]byte)
	if !ok {
		buf := make([]byte, 0, bufferSize(d.class))
		boxed = &buf
	}
	d.boxed, d.b = boxed, (*boxed)[:0]
}

// room returns where to read on, at least one byte, or false when the budget
// does not allow more.
func (d *body) room() ([]byte, bool) {
	if len(d.b) >= cap(d.b)-1 && !d.grow() {
		return nil, false
	}
	return d.b[len(d.b) : cap(d.b)-1], true
}

// grow moves the body to a buffer of twice the size, or answers false when the
// budget does not allow it.
func (d *body) grow() bool {
	if d.class+1 >= bufferClasses || !d.from.budget.take(bufferSize(d.class+1)) {
		return false
	}
	old := *d
	d.class++
	d.box()
	d.b = append(d.b, old.b...)
	old.release()
	return true
}

// release gives the buffer and its share of the budget back. Nothing may point
// into it any more.
func (d *body) release() {
	d.from.buffers[d.class].Put(d.boxed)
	d.from.budget.give(bufferSize(d.class))
	d.b, d.boxed = nil, nil
}
