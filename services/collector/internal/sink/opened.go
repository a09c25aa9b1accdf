package sink

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/fileutil"
)

// never is an interval that does not end.
const never = time.Duration(math.MaxInt64)

// An opened is the store from one opening to its closing. It lives as long as its
// disk does not fail it.
type opened struct {
	db       *tsdb.DB
	stats    *tsdb.DBStats
	registry *prometheus.Registry // the store's own metrics
	logs     *logWatch
	users    users

	// mark is in the upper bits of every Series.Ref that this store hands out,
	// so that the ref of another store is never taken for one of its own.
	mark uint64

	// cancel ends a compaction at work.
	cancel context.CancelFunc

	// broken says that nothing that is written counts any more.
	broken atomic.Bool
}

// open opens the store. It is called by OpenTSDB, then by the keeper.
func (t *TSDB) open() (*opened, error) {
	dir := t.config.Dir
	if t.lock == nil {
		// Locked here and not by tsdb.Open: that one removes the temporary
		// directories of a running compaction before it tries the lock.
		lock, _, err := fileutil.Flock(filepath.Join(dir, "lock"))
		switch {
		case errors.Is(err, syscall.EWOULDBLOCK):
			return nil, fmt.Errorf("open sample store: %s: %w", dir, ErrLocked)
		case err != nil:
			return nil, fmt.Errorf("open sample store: lock: %w", err)
		}
		t.lock = lock
	}
	if err := cmp.Or(mendLogs(dir), removeUnfinished(dir)); err != nil {
		return nil, fmt.Errorf("open sample store: %w", err)
	}
	// A registry of its own, since tsdb.Open panics on metrics that are
	// registered already and never takes them back.
	registry := prometheus.NewRegistry()
	o := &opened{
		stats:    tsdb.NewDBStats(),
		registry: registry,
		logs:     &logWatch{Registerer: registry},
		mark:     (1 + rand.Uint64N(1<<refMarkBits-1)) << refBits,
	}
	opts := *t.options
	opts.NewCompactorFunc = o.newCompactor
	var err error
	o.db, err = tsdb.Open(dir, slog.New(listener{t.config.Logger.With("component", "tsdb").Handler(), &o.broken}), o.logs, &opts, o.stats)
	switch {
	case err != nil && ofTheDisk(err), errors.As(err, new(syscall.Errno)) && !errors.Is(err, syscall.ENOENT):
		return nil, fmt.Errorf("open sample store: %w", err)
	case err != nil:
		return nil, fmt.Errorf("open sample store: %w: %w", ErrDamaged, err)
	}
	o.db.DisableCompactions() // the keeper has them done
	if err := t.register(registry); err != nil {
		return nil, errors.Join(err, o.close())
	}
	return o, nil
}

// newCompactor makes the store's own compactor, which can be told to stop.
func (o *opened) newCompactor(ctx context.Context, r prometheus.Registerer, l *slog.Logger, ranges []int64, pool chunkenc.Pool, opts *tsdb.Options) (tsdb.Compactor, error) {
	ctx, o.cancel = context.WithCancel(ctx) //nolint:gosec // closing calls it
	return tsdb.NewLeveledCompactorWithOptions(ctx, r, l, ranges, pool, tsdb.LeveledCompactorOptions{
		MaxBlockChunkSegmentSize:    opts.MaxBlockChunkSegmentSize,
		EnableOverlappingCompaction: opts.EnableOverlappingCompaction,
	})
}

// close closes the store, of which nobody is a user any more. One that broke may
// panic there.
func (o *opened) close() (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return o.db.Close()
}

// ofTheDisk reports whether an error is the disk's, which may be well again
// later, and not that of what is on it.
func ofTheDisk(err error) bool {
	for _, code := range []syscall.Errno{
		syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE,
		syscall.ETIMEDOUT, syscall.ESTALE, syscall.ENXIO, syscall.ENODEV,
	} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}
