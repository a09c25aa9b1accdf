package sink

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const (
	// keepEvery is how often the store's files are looked after, as in Prometheus.
	keepEvery = time.Minute

	// reopenEvery is how often a store that broke is tried.
	reopenEvery = 5 * time.Second

	// maxCompactionPause is the longest pause after compactions that failed.
	maxCompactionPause = 16 * time.Minute

	// trimEvery is how often at most blocks are dropped for the size of the log.
	trimEvery = 10 * time.Minute

	// probeBytes is what a disk must take before the store is opened again.
	probeBytes = 64 << 10
)

// A keeper looks after the files of a store: it has blocks made of what is in
// memory, and opens a store again that broke. It is one goroutine.
type keeper struct {
	stop context.CancelFunc
	done chan struct{}

	store      *TSDB
	pause      time.Duration // after a compaction that failed
	compaction time.Time     // not before
	trim       time.Time     // not before
}

func (k *keeper) start(t *TSDB) {
	ctx, cancel := context.WithCancel(context.Background())
	k.stop, k.done, k.store = cancel, make(chan struct{}), t
	go func() {
		defer close(k.done)
		k.run(ctx)
	}()
}

func (k *keeper) run(ctx context.Context) {
	keep, reopen := time.NewTicker(keepEvery), time.NewTicker(reopenEvery)
	defer keep.Stop()
	defer reopen.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-keep.C:
			k.keep(ctx)
		case <-reopen.C:
			if o := k.store.current.Load(); o == nil || o.broken.Load() {
				k.reopen(ctx, o)
			}
		}
	}
}

// keep does what is to be done every minute.
func (k *keeper) keep(ctx context.Context) {
	t := k.store
	o, err := t.enter()
	if err != nil {
		return
	}
	defer o.users.leave()
	if o.broken.Load() {
		return
	}
	defer func() {
		// The store does so when its files of chunks cannot be written.
		if v := recover(); v != nil {
			o.broken.Store(true)
			t.health.fail(time.Now(), fmt.Errorf("%w: panic: %v", errStore, v))
		}
	}()
	stop := context.AfterFunc(ctx, o.cancel) // a compaction takes long
	defer stop()
	k.compact(ctx, o)
	if ctx.Err() != nil {
		return
	}
	k.trimmed(ctx, o)
	if t.room.check(time.Now()) == nil {
		o.db.ForceHeadMMap()
	}
}

// compact makes blocks of what is in memory, and larger ones of small ones.
func (k *keeper) compact(ctx context.Context, o *opened) {
	now := time.Now()
	if now.Before(k.compaction) {
		return
	}
	err := o.db.Compact(ctx)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		k.pause = min(max(keepEvery, 2*k.pause), maxCompactionPause)
		k.compaction = now.Add(k.pause)
		k.store.config.Logger.ErrorContext(ctx, "the sample store could not be compacted", "error", err, "again_after", k.pause)
	default:
		k.pause = 0
	}
}

// trimmed drops the oldest blocks when all is larger than it may be. The store
// does so whenever it makes blocks; in between its log grows. There is no other
// door to that than to have the out-of-order samples made blocks.
func (k *keeper) trimmed(ctx context.Context, o *opened) {
	t := k.store
	if t.config.RetentionBytes <= 0 || t.config.OutOfOrderWindow <= 0 || time.Now().Before(k.trim) {
		return
	}
	size := o.db.Head().Size()
	blocks := o.db.Blocks()
	for _, b := range blocks {
		size += b.Size()
	}
	if size <= t.config.RetentionBytes || len(blocks) == 0 {
		return
	}
	k.trim = time.Now().Add(trimEvery)
	if err := o.db.CompactOOOHead(ctx); err != nil && ctx.Err() == nil {
		t.config.Logger.ErrorContext(ctx, "the sample store could not be trimmed to its size", "error", err)
	}
}

// reopen opens a store that broke, or that could not be opened, if the disk lets
// it. What was broken is closed before; if somebody does not stop to use it, it is
// left as it is.
func (k *keeper) reopen(ctx context.Context, old *opened) {
	t := k.store
	if t.lanes.stuck.Load() > 0 {
		return // it may still write
	}
	if err := cmp.Or(t.room.look(), probe(t.config.Dir)); err != nil {
		t.health.fail(time.Now(), err)
		return
	}
	t.config.Logger.WarnContext(ctx, "the sample store is opened again")
	if old != nil {
		t.unregister(old.registry)
		t.current.Store(nil)
		limit := time.NewTimer(cmp.Or(t.config.CloseTimeout, DefaultCloseTimeout))
		defer limit.Stop()
		select {
		case <-old.users.dismiss():
			if err := old.close(); err != nil {
				t.config.Logger.WarnContext(ctx, "the broken sample store was not closed well", "error", err)
			}
		case <-limit.C:
			t.config.Logger.WarnContext(ctx, "the broken sample store is still in use and stays open")
			if t.lanes.stuck.Load() > 0 {
				return // it may still write; it is opened again behind that
			}
		case <-ctx.Done():
			return
		}
	}
	o, err := t.open()
	if err != nil {
		t.health.fail(time.Now(), err)
		return
	}
	t.current.Store(o)
	t.config.Logger.WarnContext(ctx, "the sample store is open again")
}

// probe writes to the disk.
func probe(dir string) (err error) {
	name := filepath.Join(dir, "probe.tmp")
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(name)) }()
	_, err = f.Write(make([]byte, probeBytes))
	return errors.Join(err, f.Sync(), f.Close())
}
