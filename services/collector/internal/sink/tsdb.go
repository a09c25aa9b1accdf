package sink

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
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

	// DefaultWriteWait is how long a writer waits for the disk when nothing else
	// is said.
	DefaultWriteWait = time.Second

	// DefaultReserveBytes is how much of the file system stays free when nothing
	// else is said.
	DefaultReserveBytes = 64 << 20

	// minWriters is how many batches can be written at a time on a small machine.
	minWriters = 4

	// maxBlockSpan is Prometheus's own bound of a compacted block's span.
	maxBlockSpan = 31 * 24 * time.Hour
)

// ErrClosed says that the store is closing or closed.
var ErrClosed = errors.New("the sample store is closed")

// ErrUnavailable says that the store cannot be read or written just now: its disk
// does not let it be opened. It is tried again and again.
var ErrUnavailable = errors.New("the sample store is not open")

// ErrDamaged says that what is in the data directory cannot be read as a store.
var ErrDamaged = errors.New("the sample store is damaged")

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

	// WriteWait is how long a writer waits for the disk; zero is
	// [DefaultWriteWait].
	WriteWait time.Duration

	// ReserveBytes is how much of the file system stays free: with less, batches
	// are refused. Zero is [DefaultReserveBytes], or a hundredth of the file system
	// if that is less; negative is none.
	ReserveBytes int64

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
	config  TSDBConfig
	options *tsdb.Options
	metrics *tsdbMetrics
	own     *prometheus.Registry // of metrics

	// lock is held from the first opening to Close; the keeper's, before that
	// OpenTSDB's.
	lock fileutil.Releaser

	// current is nil while the store cannot be opened. The keeper replaces it.
	current atomic.Pointer[opened]
	closing atomic.Bool

	// tallies are *tally, one per Write at work.
	tallies sync.Pool

	lanes   *lanes
	health  *health
	room    room
	writers int
	writing atomic.Int64

	// operating is taken by who makes a snapshot or deletes.
	operating sync.Mutex

	keeper    keeper
	closeOnce sync.Once
	closeErr  error
}

// OpenTSDB opens the store and replays its write-ahead log, which holds the last
// two to three hours; that takes its time. The error wraps [ErrLocked] when the
// directory is in use; nothing in it has been touched then. It wraps [ErrDamaged]
// when what is there cannot be read. A disk that is full, read-only or fails is no
// error: such a store refuses batches and queries, and is opened when that works.
func OpenTSDB(cfg TSDBConfig) (*TSDB, error) {
	opts, err := cfg.options()
	if err != nil {
		return nil, err
	}
	t := &TSDB{
		config:  cfg,
		options: opts,
		own:     prometheus.NewRegistry(),
		health:  &health{logger: cfg.Logger},
		room:    room{dir: cfg.Dir, reserve: cfg.ReserveBytes},
		writers: max(minWriters, runtime.GOMAXPROCS(0)),
	}
	t.metrics = newTSDBMetrics(t.own, t.health.failing)
	t.tallies.New = func() any { return &tally{takesOlder: cfg.OutOfOrderWindow > 0} }
	o, err := t.open()
	if err == nil || ofTheDisk(err) {
		if err != nil {
			t.health.fail(time.Now(), err)
		}
		if err = t.register(t.own); err != nil && o != nil {
			t.unregister(o.registry)
		}
	}
	if err != nil {
		return nil, errors.Join(err, t.release(o))
	}
	t.current.Store(o)
	t.lanes = newLanes(t.writers, cmp.Or(cfg.WriteWait, DefaultWriteWait), t.store, func() { t.health.fail(time.Now(), ErrStalled) })
	t.keeper.start(t)
	return t, nil
}

// register adds metrics to those of the process.
func (t *TSDB) register(registry *prometheus.Registry) error {
	if r := t.config.Registerer; r != nil {
		if err := r.Register(registry); err != nil {
			return fmt.Errorf("open sample store: metrics: %w", err)
		}
	}
	return nil
}

func (t *TSDB) unregister(registry *prometheus.Registry) {
	if r := t.config.Registerer; r != nil {
		r.Unregister(registry)
	}
}

// enter gives the open store; leave of its users must follow.
func (t *TSDB) enter() (*opened, error) {
	if o := t.current.Load(); o != nil && o.users.enter() {
		return o, nil
	}
	if t.closing.Load() {
		return nil, ErrClosed
	}
	return nil, ErrUnavailable
}

// options checks the configuration and turns it into the store's own.
func (c TSDBConfig) options() (*tsdb.Options, error) {
	switch {
	case c.Dir == "":
		return nil, errors.New("open sample store: no data directory given")
	case c.Logger == nil:
		return nil, errors.New("open sample store: no logger given")
	case c.Retention < 0, c.RetentionBytes < 0, c.OutOfOrderWindow < 0, c.WriteWait < 0, c.CloseTimeout < 0:
		return nil, errors.New("open sample store: retention, out-of-order window, write wait and close timeout must not be negative")
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
	opts.NoLockfile = true // the TSDB holds the lock
	// The store's own loop ends the process when the disk fails under it; the
	// keeper does in its place what it does.
	opts.BlockReloadInterval = never
	opts.RetentionDuration = retention.Milliseconds()
	opts.MaxBytes = c.RetentionBytes
	opts.OutOfOrderTimeWindow = c.OutOfOrderWindow.Milliseconds()
	opts.MaxBlockDuration = max(opts.MinBlockDuration, min(retention/10, maxBlockSpan).Milliseconds())
	opts.WALCompression = compression.Snappy
	opts.EnableExemplarStorage = exemplars > 0
	opts.MaxExemplars = max(0, int64(exemplars))
	return opts, nil
}

// Status is how the store is doing.
func (t *TSDB) Status() Status {
	s := t.health.show(time.Now())
	s.Writing, s.Writers = int(t.writing.Load()), t.writers
	return s
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
	timeout := cmp.Or(t.config.CloseTimeout, DefaultCloseTimeout)
	limit := time.NewTimer(timeout)
	defer limit.Stop()
	t.closing.Store(true)
	t.lanes.close()
	t.unregister(t.own) // First: closing changes what the registry describes.
	o := t.current.Load()
	if o != nil {
		t.unregister(o.registry)
	}
	t.keeper.stop()
	select {
	case <-t.keeper.done:
	case <-limit.C:
		return fmt.Errorf("close sample store: still at work on its files after %v", timeout)
	}
	// The store unmaps its files when it closes; a querier that still reads them
	// would take the process down.
	if o = t.current.Load(); o != nil {
		select {
		case <-o.users.dismiss():
		case <-limit.C:
			return fmt.Errorf("close sample store: still in use after %v", timeout)
		}
	}
	closed := make(chan error, 1)
	go func() { closed <- t.release(o) }()
	select {
	case err := <-closed:
		if err != nil {
			return fmt.Errorf("close sample store: %w", err)
		}
		return nil
	case <-limit.C:
		return fmt.Errorf("close sample store: not done after %v", timeout)
	}
}

// release closes what is open, and lets go of the directory.
func (t *TSDB) release(o *opened) error {
	var err error
	if o != nil {
		err = o.close()
	}
	if t.lock != nil {
		err = errors.Join(err, t.lock.Release())
	}
	return err
}
