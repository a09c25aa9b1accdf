package deliver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// A reader brings records from the log to the window.
type reader struct {
	sink     *Sink
	compiler *compiler
	table    *table // of the last record

	block *block // that is being filled
	used  int    // items of it
}

func newReader(s *Sink) *reader {
	return &reader{sink: s, compiler: newCompiler(&s.config, s.panicked)}
}

// run reads until ctx ends. Another end is an error.
func (r *reader) run(ctx context.Context) error {
	var rec sample.Record
	for {
		if !r.sink.awaitRoom(ctx) {
			return nil
		}
		err := r.sink.config.Log.Next(ctx, &rec)
		switch {
		case over(ctx):
			return nil // a record that came all the same is read again after the next start
		case err != nil:
			return fmt.Errorf("reading what is to be delivered: %w", err)
		case len(rec.Numbers) != len(rec.Points):
			return errors.New("a record has not as many samples as series")
		}
		r.admit(&rec)
	}
}

func over(ctx context.Context) bool { return ctx.Err() != nil }

// admit relabels a record and adds it to the window.
func (r *reader) admit(rec *sample.Record) {
	if r.table == nil || r.table.log != rec.Table {
		r.table = r.compiler.open(rec.Table)
	}
	items, tally, ok := r.fill(rec)
	for !ok {
		r.table = r.compiler.renew(r.table)
		items, tally, ok = r.fill(rec)
	}
	if tally.extras > 0 {
		r.block.extras = true
	}
	r.used += len(items)

	s := r.sink
	s.countRead(tally)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.window.fresh()
	e.lane, e.table = int(rec.Source%laneCount), r.table
	e.samples, e.items, e.block, e.extras, e.fresh = len(items), items, r.block, tally.extras, tally.fresh
	e.read, e.end = time.Now(), rec.End
	s.push(e)
}

// A tally is what became of the samples of a record.
type tally struct {
	leftOut, broken int
	extras          int // items that have one
	fresh           int // series that were compiled for it
}

// fill makes the items of a record. It answers false when the table is good for
// nothing any more.
func (r *reader) fill(rec *sample.Record) ([]Item, tally, bool) {
	var (
		t     = r.table
		items = r.room(len(rec.Points))
		n     int
		sum   tally
	)
	for i, number := range rec.Numbers {
		if int(number) >= len(t.index) || t.index[number] == unseen {
			if !r.compiler.compile(t, number) {
				return nil, tally{}, false
			}
			sum.fresh++
		}
		switch index := t.index[number]; index {
		case leftOut:
			sum.leftOut++
		case broken:
			sum.broken++
		default:
			item := &items[n]
			item.Index, item.Point = index-compiled, rec.Points[i]
			if item.Extra != nil {
				sum.extras++
			}
			n++
		}
	}
	return items[:n:n], sum, true
}

// room is place for n items.
func (r *reader) room(n int) []Item {
	if r.block == nil || len(r.block.items)-r.used < n {
		r.sink.mu.Lock()
		defer r.sink.mu.Unlock()
		if r.block != nil {
			r.sink.window.blocks.shut(r.block)
		}
		r.block, r.used = r.sink.window.blocks.take(n), 0
	}
	return r.block.items[r.used:]
}
