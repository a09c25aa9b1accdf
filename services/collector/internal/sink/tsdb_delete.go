package sink

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// ErrTooBroad says that a selector may select every series.
var ErrTooBroad = errors.New("a selector must have a matcher that does not match the empty value")

// Delete deletes the samples from mint to maxt, in milliseconds since the Unix
// epoch and included, of the series that a selector selects, and tells how many
// series had some. They are found no more; their disk space comes back as blocks
// are compacted. What comes later is stored; of the times that were deleted, it is
// not found either.
//
// The error wraps [ErrTooBroad], [ErrBusy], [ErrUnavailable] or [ErrClosed]. After
// another one, some may be deleted.
func (t *TSDB) Delete(ctx context.Context, selectors [][]*labels.Matcher, mint, maxt int64) (series int, err error) {
	if len(selectors) == 0 || slices.ContainsFunc(selectors, tooBroad) {
		return 0, fmt.Errorf("delete from the sample store: %w", ErrTooBroad)
	}
	err = t.operate(func(o *opened) error {
		// The store deletes no out-of-order samples that are not in blocks.
		if err := o.db.CompactOOOHead(ctx); err != nil {
			return err
		}
		if series, err = o.count(ctx, selectors, mint, maxt); err != nil {
			return err
		}
		for _, s := range selectors {
			if err := o.db.Delete(ctx, mint, maxt, s...); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("delete from the sample store: %w", err)
	}
	return series, nil
}

// tooBroad reports whether a selector selects a series without labels.
func tooBroad(selector []*labels.Matcher) bool {
	for _, m := range selector {
		if !m.Matches("") {
			return false
		}
	}
	return true
}

// count counts the series that have samples.
func (o *opened) count(ctx context.Context, selectors [][]*labels.Matcher, mint, maxt int64) (int, error) {
	q, err := o.db.Querier(mint, maxt)
	if err != nil {
		return 0, err
	}
	defer q.Close()
	found := map[uint64]struct{}{} // by hash: a number for people
	var it chunkenc.Iterator
	for _, s := range selectors {
		set := q.Select(ctx, false, &storage.SelectHints{Start: mint, End: maxt}, append([]*labels.Matcher(nil), s...)...)
		for set.Next() {
			if it = set.At().Iterator(it); it.Next() != chunkenc.ValNone {
				found[set.At().Labels().Hash()] = struct{}{}
			}
		}
		if err := set.Err(); err != nil {
			return 0, err
		}
	}
	return len(found), nil
}
