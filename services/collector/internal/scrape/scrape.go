// Package scrape pulls producers, over HTTP or by Rollcall's own protocol over
// gRPC: one request, one exposition, one batch.
//
// Its invariant: a collection stores all samples of an exposition or none of
// them. Over a limit, cut off, or malformed anywhere, it stores what it says
// about itself (up 0 and its fellows) and the stale markers of what the
// producer had before, and nothing else.
package scrape

import (
	"context"
	"iter"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/prometheus/model/metadata"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
)

// Defaults of Config.
const (
	DefaultMaxInFlightBytes = 256 << 20
	DefaultMaxIdleConns     = 4096
	DefaultWriteTimeout     = 10 * time.Second
)

// A Sink stores batches. It is safe for concurrent use.
type Sink interface {
	// Write stores the whole batch, or nothing of it and says why. Whether a
	// stored batch survives a crash is the sink's own promise. The batch
	// belongs to the caller again once Write has returned; the Series in it are
	// shared and live on.
	Write(ctx context.Context, b *sample.Batch) error
}

// A Config is what a Scraper is made of. Only Sink is mandatory.
type Config struct {
	// Sink takes every batch.
	Sink Sink

	// DialContext opens connections; nil is that of a net.Dialer.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)

	// CheckAddr refuses addresses that may not be pulled. It is asked about the
	// address itself, after the name was resolved and before anything is sent,
	// so that a name that changes its meaning does not get around it. Nil
	// allows every address. With a DialContext of one's own it is asked about
	// the remote address of the connection.
	CheckAddr func(netip.Addr) error

	// TLS is for https and grpcs endpoints without a credential that says more of
	// it; nil trusts the system's roots.
	TLS process.ClientTLS

	// CollectorID is told to producers in the header Rollcall-Collector, unless
	// empty.
	CollectorID assignment.CollectorID

	// UserAgent is that header's value; empty is "rollcall-collector".
	UserAgent string

	// Setup is what Configure may change.
	Setup Setup

	// MaxInFlightBytes bounds the bodies held at one time by all collections
	// together; not positive is DefaultMaxInFlightBytes.
	MaxInFlightBytes int64

	// MaxIdleConns bounds the connections kept open between collections, those of
	// HTTP and those of gRPC each; not positive is DefaultMaxIdleConns. One of
	// HTTP costs about 20 KiB, one of gRPC about twice that.
	MaxIdleConns int

	// WriteTimeout bounds one write to the sink; not positive is
	// DefaultWriteTimeout. It is not a part of the collection's own timeout: a
	// timeout, too, is written down.
	WriteTimeout time.Duration

	// Logger may be nil.
	Logger *slog.Logger

	// Metrics may be nil.
	Metrics *Metrics
}

// A Scraper opens collections and holds what they share: connections, buffers
// and the budget of bytes. It is safe for concurrent use.
type Scraper struct {
	sink         Sink
	transports   *transports
	channels     *channels
	setup        atomic.Pointer[Setup]
	budget       budget
	buffers      bufferPools
	gzips        sync.Pool // of *gunzip
	zstdOnce     sync.Once
	zstd         *zstd.Decoder // made by zstdOnce
	scratches    sync.Pool     // of *scratch
	desk         desk
	columns      sync.Pool // of *columns
	texts        texts
	writeTimeout time.Duration
	logger       *slog.Logger
	metrics      *Metrics

	// Of the synthetic series, shared by all collections.
	reportNames [reportSeries]string
	reportMetas [reportSeries]*metadata.Metadata

	// Values of request headers, shared by all requests and never changed.
	userAgent, collectorID []string

	mu   sync.Mutex
	open map[assignment.ProducerID]*Collection // guarded by mu
}

// New makes a Scraper. It does no I/O.
func New(cfg Config) *Scraper {
	s := &Scraper{
		sink:         cfg.Sink,
		transports:   newTransports(&cfg),
		channels:     newChannels(&cfg),
		writeTimeout: cfg.WriteTimeout,
		logger:       cfg.Logger,
		metrics:      cfg.Metrics,
		userAgent:    []string{cfg.UserAgent},
		open:         map[assignment.ProducerID]*Collection{},
		desk:         newDesk(),
	}
	s.Configure(cfg.Setup)
	s.reportNames, s.reportMetas = reportMeta()
	if s.metrics == nil {
		s.metrics = NewMetrics()
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	if s.writeTimeout <= 0 {
		s.writeTimeout = DefaultWriteTimeout
	}
	s.budget = budget{limit: cfg.MaxInFlightBytes, gauge: s.metrics.inFlightBytes}
	if s.budget.limit <= 0 {
		s.budget.limit = DefaultMaxInFlightBytes
	}
	if cfg.UserAgent == "" {
		s.userAgent = []string{"rollcall-collector"}
	}
	if cfg.CollectorID != "" {
		s.collectorID = []string{string(cfg.CollectorID)}
	}
	return s
}

// Open makes the collection of a producer. An error says for people why this
// collector cannot run the assignment.
func (s *Scraper) Open(a *assignment.Assignment) (schedule.Collection, error) {
	t, err := compile(a, s.setup.Load())
	if err != nil {
		return nil, err
	}
	c := newCollection(s, t)
	s.mu.Lock()
	s.open[a.ProducerID] = c
	s.mu.Unlock()
	return c, nil
}

// Close closes the connections that no collection is using. It is called when
// the last collection has returned.
func (s *Scraper) Close() {
	s.transports.close()
	s.channels.closeIdle()
}

// Find returns the open collection of a producer.
func (s *Scraper) Find(id assignment.ProducerID) (*Collection, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.open[id]
	return c, ok
}

// Collections ranges over the collections that are open at the call, in no
// order.
func (s *Scraper) Collections() iter.Seq[*Collection] {
	s.mu.Lock()
	all := make([]*Collection, 0, len(s.open))
	for _, c := range s.open {
		all = append(all, c)
	}
	s.mu.Unlock()
	return slices.Values(all)
}

// ended forgets a collection, unless another has taken its place.
func (s *Scraper) ended(c *Collection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id := c.ProducerID(); s.open[id] == c {
		delete(s.open, id)
	}
}

// write stores a batch within the write timeout, however ctx may end: what it
// says may be that ctx has ended.
func (s *Scraper) write(ctx context.Context, b *sample.Batch) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.writeTimeout)
	defer cancel()
	return s.sink.Write(ctx, b)
}
