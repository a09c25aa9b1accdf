package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"go.etcd.io/etcd/server/v3/proxy/grpcproxy/adapter"
	"go.uber.org/zap"
)

// The defaults of an EmbeddedConfig.
const (
	DefaultQuotaBytes    = 8 << 30
	DefaultRetention     = 10 * time.Minute
	DefaultSnapshotCount = 2000
)

// An EmbeddedConfig says how the embedded store is kept. Only Dir is needed.
type EmbeddedConfig struct {
	// Dir holds everything. It is made, readable by its owner only, if it is
	// not there. One process at a time can open it.
	Dir string

	// QuotaBytes is how much the store may take on disk before it refuses
	// writes, history included. Zero: DefaultQuotaBytes.
	QuotaBytes int64

	// Retention is how long history is kept, at least a second. A load must be
	// quicker than that. Zero: DefaultRetention.
	Retention time.Duration

	// SnapshotCount is after how many transactions the log is cut: the start
	// after a crash repeats at most so many. Zero: DefaultSnapshotCount.
	SnapshotCount uint64

	// SocketPath, if not empty, is the absolute path of a unix socket that is
	// made, for the owner only, so that etcdctl can save a backup. Whoever may
	// open it may also write. What a killed process left there is replaced. Where
	// no socket can be, the store opens without it, and says so in the log.
	SocketPath string

	// Logger gets what etcd warns of. Nil: nobody does.
	Logger *slog.Logger
}

// The member's name and address never leave this process and there is no second
// member, but etcd wants both. The address is not listened on.
const (
	memberName    = "registry"
	memberAddress = "http://127.0.0.1:2380"
)

// A single member needs no heartbeats. Short times are for a quick start, as it
// waits for up to one election timeout before it leads; but every tick costs,
// also when nothing else is going on.
const (
	tickMilliseconds     = 50
	electionMilliseconds = 250
)

const (
	// catchUpEntries is how much of the log stays in memory for a member that
	// lags. There is none, and zero would mean etcd's 5,000.
	catchUpEntries = 100

	// defragmentAtStart is how many MiB that must give back to be worth it.
	defragmentAtStart = 256

	stopTimeout = 10 * time.Second
)

// embedded is a running etcd of this process.
type embedded struct {
	etcd
	server *embed.Etcd
	lock   *fileutil.LockedFile
	upkeep *upkeep
	phase  *atomic.Int32 // of type phase
}

// OpenEmbedded opens the roster in an etcd of this process that listens on no
// network. It returns when that is ready; ctx is for the opening only. ErrInUse
// if another process has the directory open. Where etcd finds the directory
// damaged it can be opened again only by another process.
func OpenEmbedded(ctx context.Context, config EmbeddedConfig) (*Store, error) {
	config = config.withDefaults()
	if err := config.check(); err != nil {
		return nil, fmt.Errorf("open the store in %q: %w", config.Dir, err)
	}
	lock, err := lockDir(config.Dir)
	if err != nil {
		return nil, fmt.Errorf("open the store in %q: %w", config.Dir, err)
	}
	if err := tryBind(config.SocketPath); err != nil {
		config.Logger.WarnContext(ctx, "the store cannot be backed up while it runs: there can be no socket",
			"path", config.SocketPath, "error", err)
		config.SocketPath = ""
	}
	var now atomic.Int32
	server, err := start(ctx, config, lock, &now)
	if err != nil {
		return nil, fmt.Errorf("open the store in %q: %w", config.Dir, err)
	}
	now.Store(int32(serving))
	client := v3client.New(server.Server)
	e := &embedded{
		etcd: etcd{
			kv:     client.KV,
			leases: adapter.LeaseServerToLeaseClient(v3rpc.NewQuotaLeaseServer(server.Server)),
			events: adapter.WatchServerToWatchClient(v3rpc.NewWatchServer(server.Server)),
		},
		server: server,
		lock:   lock,
		upkeep: startUpkeep(ctx, server.Server, config),
		phase:  &now,
	}
	return newStore(e, e, func() error {
		_ = client.Close() // its error is that it was closed
		return e.stop()
	}), nil
}

func (c EmbeddedConfig) withDefaults() EmbeddedConfig {
	if c.QuotaBytes == 0 {
		c.QuotaBytes = DefaultQuotaBytes
	}
	if c.Retention == 0 {
		c.Retention = DefaultRetention
	}
	if c.SnapshotCount == 0 {
		c.SnapshotCount = DefaultSnapshotCount
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c EmbeddedConfig) check() error {
	switch {
	case c.Dir == "":
		return errors.New("no directory is given")
	case c.QuotaBytes < 0:
		return fmt.Errorf("a quota of %d bytes", c.QuotaBytes)
	case c.Retention < time.Second:
		return fmt.Errorf("a retention of %s: at least 1s is needed", c.Retention)
	case c.SocketPath != "" && !filepath.IsAbs(c.SocketPath):
		return fmt.Errorf("the path of the socket is not absolute: %q", c.SocketPath)
	default:
		return nil
	}
}

func etcdConfig(config EmbeddedConfig, logger *zap.Logger) *embed.Config {
	c := embed.NewConfig()
	c.Dir = config.Dir
	c.Name = memberName
	c.ListenPeerUrls = nil
	c.ListenClientUrls = nil
	c.AdvertiseClientUrls = nil
	if address, err := url.Parse(memberAddress); err == nil {
		c.AdvertisePeerUrls = []url.URL{*address}
	}
	if config.SocketPath != "" {
		socket := []url.URL{{Scheme: "unix", Path: config.SocketPath}}
		c.ListenClientUrls = socket
		c.AdvertiseClientUrls = socket
	}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.EnableGRPCGateway = false
	c.TickMs = tickMilliseconds
	c.ElectionMs = electionMilliseconds
	c.QuotaBackendBytes = config.QuotaBytes
	c.SnapshotCount = config.SnapshotCount
	c.SnapshotCatchUpEntries = catchUpEntries
	c.AutoCompactionMode = embed.CompactorModePeriodic
	c.AutoCompactionRetention = config.Retention.String()
	c.BootstrapDefragThresholdMegabytes = defragmentAtStart
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(logger)
	return c
}

func (e *embedded) stop() error {
	e.phase.Store(int32(stopping))
	e.upkeep.stop()
	stopped := make(chan error, 1)
	go func() {
		e.server.Close()
		stopped <- e.lock.Close()
	}()
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case err := <-stopped:
		return err
	case <-timer.C:
		return fmt.Errorf("the store did not stop within %s", stopTimeout)
	}
}
