// Package peers lets any collector answer queries for the whole fleet: it serves
// what this collector's own store has to the others, and asks the others.
//
// Its invariant: what one of the others did not answer in full is left out and
// told, never taken for the whole. And an asked collector never asks on.
package peers

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/prometheus/storage"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"google.golang.org/grpc/credentials"
)

// Defaults of [Config] and [ServerConfig].
const (
	DefaultTimeout       = 10 * time.Second
	DefaultMaxQueryBytes = 128 << 20
	DefaultMaxBytes      = 512 << 20
	DefaultMaxServed     = 20
	DefaultServeTimeout  = 30 * time.Second
)

// A Store is a collector's own store. Its methods are called concurrently.
type Store interface {
	storage.SampleAndChunkQueryable
	storage.ExemplarQueryable
}

// A Dial connects to an address.
type Dial func(ctx context.Context, address string) (net.Conn, error)

// A Scope is how far a query reaches.
type Scope struct {
	// Local asks this collector's store only.
	Local bool

	// Whole makes an error of what is missing, for an answer that has no place
	// for a warning.
	Whole bool

	// Warn takes a warning where Prometheus's interfaces have no place for one;
	// nil: there it is an error.
	Warn func(error)
}

// A Config says whom to ask, and how much of it at most. Zero limits stand for
// the defaults.
type Config struct {
	// Self is this collector; it does not ask itself.
	Self assignment.CollectorID

	// Registries tell of the other collectors, host:port.
	Registries []string

	// DialRegistry and DialPeer make connections; nil: TCP.
	DialRegistry Dial
	DialPeer     Dial

	// Credentials are those of the connections to both; nil: plain text.
	Credentials credentials.TransportCredentials

	// Local is this collector's store.
	Local Store

	// ScopeOf tells how far a query reaches, by its context.
	ScopeOf func(ctx context.Context) Scope

	// Timeout bounds the wait for all others together, as half of the time that
	// is left to the query does.
	Timeout time.Duration

	// MaxQueryBytes bounds what others answer to one query, MaxBytes what is
	// held of all such answers.
	MaxQueryBytes int64
	MaxBytes      int64

	Logger  *slog.Logger
	Metrics *Metrics
}

// A Fleet is the stores of all collectors as one. It is safe for concurrent use.
type Fleet struct {
	Config
	book   *book
	budget *budget
}

var _ Store = (*Fleet)(nil)

// New makes a Fleet that knows no other collector yet.
func New(c Config) *Fleet {
	orDefault(&c.Timeout, DefaultTimeout)
	orDefault(&c.MaxQueryBytes, DefaultMaxQueryBytes)
	orDefault(&c.MaxBytes, DefaultMaxBytes)
	return &Fleet{Config: c, book: newBook(c), budget: &budget{free: c.MaxBytes}}
}

func orDefault[T int | int64 | time.Duration](limit *T, value T) {
	if *limit == 0 {
		*limit = value
	}
}

// Run learns of the other collectors, again and again, until ctx ends.
func (f *Fleet) Run(ctx context.Context) error {
	f.book.run(ctx)
	return nil
}

// Close closes the connections.
func (f *Fleet) Close() { f.book.close() }

// Querier reads the samples of all collectors, of both included times and those
// between.
func (f *Fleet) Querier(mint, maxt int64) (storage.Querier, error) {
	local, err := f.Local.Querier(mint, maxt)
	if err != nil {
		return nil, err
	}
	// Both as primaries: the others' querier makes warnings of what fails by
	// itself, and as a secondary it could not be asked while it is read.
	others := &sampleQuerier{f.newInquiry(mint, maxt)}
	return storage.NewMergeQuerier([]storage.Querier{local, others}, nil, storage.ChainedSeriesMerge), nil
}

// ChunkQuerier is Querier for encoded chunks.
func (f *Fleet) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	local, err := f.Local.ChunkQuerier(mint, maxt)
	if err != nil {
		return nil, err
	}
	others := &chunkQuerier{f.newInquiry(mint, maxt)}
	return storage.NewMergeChunkQuerier([]storage.ChunkQuerier{local, others}, nil, mergeChunks()), nil
}

func mergeChunks() storage.VerticalChunkSeriesMergeFunc {
	return storage.NewCompactingChunkSeriesMerger(storage.ChainedSeriesMerge)
}

// errTooLarge says that others answered more than is held.
var errTooLarge = errors.New("the answer is too large")

// A budget is bytes that all queries share.
type budget struct {
	mu   sync.Mutex // guards free
	free int64
}

func (b *budget) take(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > b.free {
		return false
	}
	b.free -= n
	return true
}

func (b *budget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free += n
}

// An allowance is what one query may take of a budget. It is safe for concurrent
// use.
type allowance struct {
	budget *budget

	mu          sync.Mutex // guards what follows
	left, taken int64
}

// take takes bytes. The error wraps [errTooLarge].
func (a *allowance) take(n int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n > a.left || !a.budget.take(n) {
		return errTooLarge
	}
	a.left -= n
	a.taken += n
	return nil
}

// rest is how much may be taken yet.
func (a *allowance) rest() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.left
}

// release gives everything back.
func (a *allowance) release() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.budget.give(a.taken)
	a.taken, a.left = 0, 0
}
