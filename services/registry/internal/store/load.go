package store

import (
	"context"
	"fmt"

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
		size, err := addPage(p, add)
		if err != nil {
			return 0, err
		}
		if !p.more {
			return assignment.Revision(at), nil
		}
		if len(p.items) == 0 {
			return 0, fmt.Errorf("load from key %q at revision %d: an empty page that is not the last", from, at)
		}
		from = p.items[len(p.items)-1].key + "\x00"
		limit = min(max(pageBytes*len(p.items)/size, minPage), maxPage)
	}
}

// addPage returns how many bytes the page took, at least one.
func addPage(p page, add func(roster.Found) error) (int, error) {
	size := 1
	for _, it := range p.items {
		size += len(it.key) + len(it.value)
		found, known, err := readItem(it)
		if err != nil {
			return 0, err
		}
		if !known {
			continue
		}
		if err := add(found); err != nil {
			return 0, err
		}
	}
	return size, nil
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
