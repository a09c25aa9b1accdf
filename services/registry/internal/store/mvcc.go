package store

import (
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
)

// mvcc is the state of a Memory: every key's versions, the history of changes,
// the leases. It is guarded by its Memory. Values are never changed in place.
type mvcc struct {
	revision  int64
	compacted int64
	versions  map[string][]version // by key, oldest first
	history   []response           // of every change after compacted
	leases    map[int64]*memoryLease
	lastLease int64

	// sorted holds the keys of versions, but for those in fresh.
	sorted, fresh []string
}

type version struct {
	modified int64
	value    []byte
	deleted  bool
	lease    int64
}

type memoryLease struct {
	ttl  time.Duration
	keys map[string]struct{}
}

// newMVCC begins at revision 1, as etcd does.
func newMVCC() *mvcc {
	return &mvcc{revision: 1, versions: map[string][]version{}, leases: map[int64]*memoryLease{}}
}

func (d *mvcc) clone() *mvcc {
	c := *d
	c.versions = maps.Clone(d.versions)
	for key, versions := range c.versions {
		c.versions[key] = slices.Clone(versions)
	}
	c.history = slices.Clone(d.history)
	c.sorted, c.fresh = slices.Clone(d.sorted), slices.Clone(d.fresh)
	c.leases = make(map[int64]*memoryLease, len(d.leases))
	for id, lease := range d.leases {
		c.leases[id] = &memoryLease{ttl: lease.ttl, keys: maps.Clone(lease.keys)}
	}
	return &c
}

// at is what stood under a key at a revision, which is not compacted.
func (d *mvcc) at(key string, revision int64) (version, bool) {
	versions := d.versions[key]
	after := sort.Search(len(versions), func(i int) bool { return versions[i].modified > revision })
	if after == 0 || versions[after-1].deleted {
		return version{}, false
	}
	return versions[after-1], true
}

func (d *mvcc) find(key string, revision int64) item {
	v, _ := d.at(key, revision)
	return item{key: key, value: v.value, modified: v.modified}
}

func (d *mvcc) page(from, to string, at int64, limit int) (page, error) {
	if at == 0 {
		at = d.revision
	}
	if at < d.compacted {
		return page{}, registrar.ErrCompacted
	}
	if len(d.fresh) > 0 {
		d.sorted = append(d.sorted, d.fresh...)
		slices.Sort(d.sorted)
		d.fresh = nil
	}
	p := page{revision: at}
	begin, _ := slices.BinarySearch(d.sorted, from)
	for _, key := range d.sorted[begin:] {
		if key >= to {
			break
		}
		it := d.find(key, at)
		if it.modified == 0 {
			continue
		}
		if len(p.items) == limit {
			p.more = true
			break
		}
		p.items = append(p.items, it)
	}
	return p, nil
}

func (d *mvcc) holds(writes []write) bool {
	for _, w := range writes {
		if d.find(w.key, d.revision).modified != w.expect {
			return false
		}
	}
	return true
}

// apply makes the next revision, if any write changes anything. The leases are
// there.
func (d *mvcc) apply(writes []write) bool {
	next := response{revision: d.revision + 1}
	for _, w := range writes {
		old, stands := d.at(w.key, d.revision)
		if w.check || w.delete && !stands {
			continue
		}
		if stands && old.lease != 0 {
			delete(d.leases[old.lease].keys, w.key)
		}
		v := version{modified: next.revision, deleted: w.delete}
		if !w.delete {
			v.value, v.lease = w.value, w.lease
			if w.lease != 0 {
				d.leases[w.lease].keys[w.key] = struct{}{}
			}
		}
		if _, known := d.versions[w.key]; !known {
			d.fresh = append(d.fresh, w.key)
		}
		d.versions[w.key] = append(d.versions[w.key], v)
		next.changes = append(next.changes, change{key: w.key, value: v.value, deleted: v.deleted})
	}
	if len(next.changes) == 0 {
		return false
	}
	d.revision = next.revision
	d.history = append(d.history, next)
	return true
}

// since is every revision after one, with the changes of keys that begin with
// prefix.
func (d *mvcc) since(after int64, prefix string) ([]response, error) {
	if after+1 < d.compacted {
		return nil, registrar.ErrCompacted
	}
	begin := sort.Search(len(d.history), func(i int) bool { return d.history[i].revision > after })
	var news []response
	for _, r := range d.history[begin:] {
		out := response{revision: r.revision}
		for _, c := range r.changes {
			if strings.HasPrefix(c.key, prefix) {
				out.changes = append(out.changes, c)
			}
		}
		if len(out.changes) > 0 {
			news = append(news, out)
		}
	}
	return news, nil
}

// compact keeps the state as of a revision and what came after it.
func (d *mvcc) compact(at int64) {
	if at <= d.compacted {
		return
	}
	d.compacted = at
	begin := sort.Search(len(d.history), func(i int) bool { return d.history[i].revision >= at })
	d.history = slices.Clone(d.history[begin:])
	for key, versions := range d.versions {
		after := sort.Search(len(versions), func(i int) bool { return versions[i].modified > at })
		if after > 0 && !versions[after-1].deleted {
			after-- // stands at the revision
		}
		if after == len(versions) {
			delete(d.versions, key)
		} else {
			d.versions[key] = slices.Clone(versions[after:])
		}
	}
	d.fresh = nil
	d.sorted = slices.Sorted(maps.Keys(d.versions))
}

func (d *mvcc) addLease(ttl time.Duration) int64 {
	d.lastLease++
	d.leases[d.lastLease] = &memoryLease{ttl: ttl, keys: map[string]struct{}{}}
	return d.lastLease
}

// dropLease deletes the lease's keys, all at one revision.
func (d *mvcc) dropLease(lease int64) {
	var deletes []write
	for _, key := range slices.Sorted(maps.Keys(d.leases[lease].keys)) {
		deletes = append(deletes, write{key: key, delete: true})
	}
	d.apply(deletes)
	delete(d.leases, lease)
}
