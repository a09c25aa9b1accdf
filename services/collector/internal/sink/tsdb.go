package sink

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/fileutil"
	"github.com/prometheus/prometheus/util/compression"
)

// Defaults of [TSDBConfig], and bounds that are not settings.
const (
	// DefaultRetention is how long samples are kept when nothing else is said.
	DefaultRetention = 15 * 24 * time.Hour

	// DefaultMaxExemplars is how many exemplars are kept in memory when nothing
	// else is said, as in Prometheus: some 10 to 20 MB when all are in use.
	DefaultMaxExemplars = 100_000

	// DefaultCloseTimeout bounds Close when nothing else is said.
	DefaultCloseTimeout = 30 * time.Second

	// maxBlockSpan is Prometheus's own bound of a compacted block's span.
	maxBlockSpan = 31 * 24 * time.Hour
)

// ErrClosed says that the store is closing or closed.
var ErrClosed = errors.New("the sample store is closed")

// ErrLocked says that another process, or another TSDB of this one, has the
// data directory.
var ErrLocked = errors.New("data directory is in use")

// A TSDBConfig says where the embedded store lives and what it keeps.
type TSDBConfig struct {
	// Dir is the data directory; it is made when it does not exist. No two
	// stores share one.
	Dir string

	// Retention is how long samples are kept, counted back from the newest
	// block; zero is [DefaultRetention]. Whole blocks are dropped, so samples
	// live up to a tenth longer (two hours at least).
	Retention time.Duration

	// RetentionBytes bounds blocks, head and write-ahead log together; zero is
	// no bound. The newest two to three hours are never dropped for it.
	RetentionBytes int64

	// OutOfOrderWindow is how much older than the store's newest sample a
	// sample may be that comes after a newer one of its series; zero takes none.
	OutOfOrderWindow time.Duration

	// MaxExemplars bounds the exemplars in memory, the oldest go first; zero is
	// [DefaultMaxExemplars], negative keeps none.
	MaxExemplars int

	// CloseTimeout bounds Close; zero is [DefaultCloseTimeout].
	CloseTimeout time.Duration

	// Logger takes the store's own log lines. Required.
	Logger *slog.Logger

	// Registerer takes the store's metrics until Close: Prometheus's own
	// prometheus_tsdb_ ones and rollcall_sink_tsdb_. Nil registers none.
	Registerer prometheus.Registerer
}

// A TSDB is the embedded store: Prometheus's own, in one directory that it has
// for itself from OpenTSDB to Close. Write, the queriers and the statistics are
// safe for concurrent use.
//
// What a crash costs: the write-ahead log is written to the kernel before Write
// returns, so the death of the process (kill -9, a panic, the OOM killer) loses
// no batch whose Write returned nil, and a batch in flight is there whole or not
// at all. The log is fsynced only when a segment of 128 MiB is full and at
// Close, so a power cut or a kernel crash loses what the kernel had not written
// back, commonly the last 30 s. Exemplars share the log; metadata (HELP, TYPE,
// UNIT) is not stored at all, since nothing would read it back: it is answered
// from the producers that are collected now.
type TSDB struct {
	db      *tsdb.DB
	stats   *tsdb.DBStats
	lock    fileutil.Releaser
	metrics *tsdbMetrics
	timeout time.Duration

	// mark is in the upper bits of every Series.Ref that this store hands out,
	// so that the ref of another store is never taken for one of its own.
	mark uint64

	// tallies are *tally, one per Write at work.
	tallies sync.Pool

	users      users
	unregister func()
	closeOnce  sync.Once
	closeErr   error
}

// OpenTSDB opens the store and replays its write-ahead log, which holds the last
// two to three hours; that takes its time. The error wraps [ErrLocked] when the directory is
// in use; nothing in it has been touched then.
func OpenTSDB(cfg TSDBConfig) (*TSDB, error) {
	opts, err := cfg.options()
	if err != nil {
		return nil, err
	}
	// Locked here and not by tsdb.Open: that one removes the temporary
	// directories of a running compaction before it tries the lock.
	lock, _, err := fileutil.Flock(filepath.Join(cfg.Dir, "lock"))
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return nil, fmt.Errorf("open sample store: %s: %w", cfg.Dir, ErrLocked)
	case err != nil:
		return nil, fmt.Errorf("open sample store: lock: %w", err)
	}

	// A registry of its own, since tsdb.Open panics on metrics that are
	// registered already and never takes them back.
	registry := prometheus.NewRegistry()
	metrics := newTSDBMetrics(registry)
	stats := tsdb.NewDBStats()
	db, err := tsdb.Open(cfg.Dir, cfg.Logger.With("component", "tsdb"), registry, opts, stats)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open sample store: %w", err), lock.Release())
	}
	unregister := func() {}
	if r := cfg.Registerer; r != nil {
		if err := r.Register(registry); err != nil {
			return nil, errors.Join(fmt.Errorf("open sample store: metrics: %w", err), db.Close(), lock.Release())
		}
		unregister = func() { r.Unregister(registry) }
	}
	t := &TSDB{
		db:         db,
		stats:      stats,
		lock:       lock,
		metrics:    metrics,
		timeout:    cfg.CloseTimeout,
		mark:       (1 + rand.Uint64N(1<<refMarkBits-1)) << refBits,
		unregister: unregister,
	}
	if t.timeout == 0 {
		t.timeout = DefaultCloseTimeout
	}
	t.tallies.New = func() any { return &tally{takesOlder: cfg.OutOfOrderWindow > 0} }
	return t, nil
}

// options checks the configuration and turns it into the store's own.
func (c TSDBConfig) options() (*tsdb.Options, error) {
	switch {
	case c.Dir == "":
		return nil, errors.New("open sample store: no data directory given")
	case c.Logger == nil:
		return nil, errors.New("open sample store: no logger given")
	case c.Retention < 0, c.RetentionBytes < 0, c.OutOfOrderWindow < 0, c.CloseTimeout < 0:
		return nil, errors.New("open sample store: retention, out-of-order window and close timeout must not be negative")
	}
	retention := c.Retention
	if retention == 0 {
		retention = DefaultRetention
	}
	exemplars := c.MaxExemplars
	if exemplars == 0 {
		exemplars = DefaultMaxExemplars
	}

	opts := tsdb.DefaultOptions()
	opts.NoLockfile = true // OpenTSDB holds the lock.
	opts.RetentionDuration = retention.Milliseconds()
	opts.MaxBytes = c.RetentionBytes
	opts.OutOfOrderTimeWindow = c.OutOfOrderWindow.Milliseconds()
	opts.MaxBlockDuration = max(opts.MinBlockDuration, min(retention/10, maxBlockSpan).Milliseconds())
	opts.WALCompression = compression.Snappy
	opts.EnableExemplarStorage = exemplars > 0
	opts.MaxExemplars = max(0, int64(exemplars))
	return opts, nil
}

// Close refuses new work, waits for the writes and queriers at work, and closes
// the store. It is bounded by the configured time, and gives an error when that
// has run out: the store is then left as a crash would leave it, and nothing
// that was written is lost. Later calls answer the same.
func (t *TSDB) Close() error {
	t.closeOnce.Do(func() { t.closeErr = t.shut() })
	return t.closeErr
}

func (t *TSDB) shut() error {
	t.unregister() // First: closing changes what the registry describes.
	limit := time.NewTimer(t.timeout)
	defer limit.Stop()

	// The store unmaps its files when it closes; a querier that still reads them
	// would take the process down.
	select {
	case <-t.users.dismiss():
	case <-limit.C:
		return fmt.Errorf("close sample store: still in use after %v", t.timeout)
	}
	closed := make(chan error, 1)
	go func() { closed <- errors.Join(t.db.Close(), t.lock.Release()) }()
	select {
	case err := <-closed:
		if err != nil {
			return fmt.Errorf("close sample store: %w", err)
		}
		return nil
	case <-limit.C:
		return fmt.Errorf("close sample store: not done after %v", t.timeout)
	}
}
