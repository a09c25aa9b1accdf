package store

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// A page of a load holds about pageBytes, and no more than maxPage records. The
// first one, before anything is known of their size, holds firstPage.
//
// Many small pages would be slow: etcd counts, for each page, all the keys
// after it. A million records took 17 s in pages of 5,000, and 3 s in these.
const (
	pageBytes = 16 << 20
	firstPage = 1000
	minPage   = 16
	maxPage   = 50_000
)

// Load implements registrar.Store. If the store is compacted past the revision
// that is being loaded, it returns registrar.ErrCompacted: what add was given
// is to be thrown away and Load called again with a new view, as it cannot take
// back what it gave. Compaction keeps some minutes of history, so this happens
// to a load that lasts longer than that.
//
// The first page tells how large the next ones may be, so it is added before they
// are asked for. After it add is a page or two behind what is read.
func (s *Store) Load(ctx context.Context, add func(roster.Found) error) (assignment.Revision, error) {
	l := &loading{store: s, from: keyPrefix, limit: firstPage}
	first, more, err := l.next(ctx)
	if err != nil {
		return 0, err
	}
	found, err := readItems(first)
	if err != nil {
		return 0, err
	}
	if err := addAll(found, add); err != nil {
		return 0, err
	}
	if more {
		if err := l.rest(ctx, add); err != nil {
			return 0, err
		}
	}
	return assignment.Revision(l.at), nil
}

// loading is where a load is.
type loading struct {
	store *Store
	from  string
	at    int64 // zero before the first page
	limit int
}

// next reads a page, and tells whether there is another one.
func (l *loading) next(ctx context.Context) (items []item, more bool, err error) {
	if err := l.store.open(); err != nil {
		return nil, false, err
	}
	p, err := l.store.kv.page(ctx, l.from, keyEnd, l.at, l.limit)
	if err != nil {
		return nil, false, fmt.Errorf("load from key %q at revision %d: %w", l.from, l.at, err)
	}
	l.at = p.revision
	if !p.more {
		return p.items, false, nil
	}
	if len(p.items) == 0 {
		return nil, false, fmt.Errorf("load from key %q at revision %d: an empty page that is not the last", l.from, l.at)
	}
	l.from = p.items[len(p.items)-1].key + "\x00"
	l.limit = min(max(pageBytes*len(p.items)/sizeOf(p.items), minPage), maxPage)
	return p.items, true, nil
}

// sizeOf is how many bytes items take, at least one.
func sizeOf(items []item) int {
	size := 1
	for _, it := range items {
		size += len(it.key) + len(it.value)
	}
	return size
}

// decodeChunk is how many items are decoded at a time.
const decodeChunk = 500

// rest reads, decodes and adds what is left, each in a goroutine of its own: they
// take about as long as each other.
func (l *loading) rest(ctx context.Context, add func(roster.Found) error) error {
	group, ctx := errgroup.WithContext(ctx)
	read, decoded := make(chan []item, 1), make(chan []roster.Found, 4)
	group.Go(func() error {
		defer close(read)
		for more := true; more; {
			var items []item
			var err error
			if items, more, err = l.next(ctx); err != nil {
				return err
			}
			if err := hand(ctx, read, items); err != nil {
				return err
			}
		}
		return nil
	})
	group.Go(func() error {
		defer close(decoded)
		for items := range read {
			for chunk := range slices.Chunk(items, decodeChunk) {
				found, err := readItems(chunk)
				if err != nil {
					return err
				}
				if err := hand(ctx, decoded, found); err != nil {
					return err
				}
			}
		}
		return nil
	})
	group.Go(func() error {
		for found := range decoded {
			if err := addAll(found, add); err != nil {
				return err
			}
		}
		return nil
	})
	return group.Wait()
}

// hand gives one to whoever receives, unless ctx ends.
func hand[T any](ctx context.Context, to chan<- T, one T) error {
	select {
	case to <- one:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func addAll(all []roster.Found, add func(roster.Found) error) error {
	for _, found := range all {
		if err := add(found); err != nil {
			return err
		}
	}
	return nil
}

func readItems(items []item) ([]roster.Found, error) {
	all := make([]roster.Found, 0, len(items))
	for _, it := range items {
		found, known, err := readItem(it)
		if err != nil {
			return nil, err
		}
		if known {
			all = append(all, found)
		}
	}
	return all, nil
}

// readItem decodes what stands under a key. Keys that only another version
// knows are not known.
func readItem(it item) (found roster.Found, known bool, err error) {
	key, known, err := parseKey(it.key)
	if err != nil || !known {
		return roster.Found{}, false, err
	}
	record, err := decode(key, it.value)
	if err != nil {
		return roster.Found{}, false, err
	}
	return roster.Found{Record: record, Revision: assignment.Revision(it.modified)}, true, nil
}
