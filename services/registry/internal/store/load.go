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
func (s *Store) Load(ctx context.Context, add func(roster.Found) error) (assignment.Revision, error) {
	var (
		from  = keyPrefix
		at    int64
		limit = firstPage
	)
	for {
		if err := s.open(); err != nil {
			return 0, err
		}
		p, err := s.kv.page(ctx, from, keyEnd, at, limit)
		if err != nil {
			return 0, fmt.Errorf("load from key %q at revision %d: %w", from, at, err)
		}
		at = p.revision
		if err := addPage(ctx, p.items, add); err != nil {
			return 0, err
		}
		if !p.more {
			return assignment.Revision(at), nil
		}
		if len(p.items) == 0 {
			return 0, fmt.Errorf("load from key %q at revision %d: an empty page that is not the last", from, at)
		}
		from = p.items[len(p.items)-1].key + "\x00"
		limit = min(max(pageBytes*len(p.items)/sizeOf(p.items), minPage), maxPage)
	}
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

// addPage decodes items in a goroutine of its own, a few chunks ahead of add:
// the two take about as long.
func addPage(ctx context.Context, items []item, add func(roster.Found) error) error {
	group, ctx := errgroup.WithContext(ctx)
	decoded := make(chan []roster.Found, 4)
	group.Go(func() error {
		defer close(decoded)
		for chunk := range slices.Chunk(items, decodeChunk) {
			found, err := readItems(chunk)
			if err != nil {
				return err
			}
			select {
			case decoded <- found:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	group.Go(func() error {
		for chunk := range decoded {
			for _, found := range chunk {
				if err := add(found); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return group.Wait()
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
