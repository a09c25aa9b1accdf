// Package store keeps the roster in etcd, embedded in this process or reached
// by a client, or in memory for tests. All of them go through the same typed
// code: it encodes records, packs transactions, pages through loads and cuts
// the watch into batches; only the bytes beneath differ.
//
// Its invariant: no record is ever dropped in silence. What stands in the store
// and cannot be understood is an error that names the key, so that a registry
// refuses to serve from half a roster.
package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
)

// Errors of this package, beside those of package registrar.
var (
	// ErrUndecodable says that a key or value in the store is not understood.
	// The message names the key. Nothing may be served without it.
	ErrUndecodable = fmt.Errorf("%w: it cannot be decoded", registrar.ErrUnreadable)

	// ErrSetBack says that the store is at an older revision than it was: it
	// was restored or replaced. Load anew.
	ErrSetBack = errors.New("the store is older than it was")

	// ErrInvalid says that a transaction could not be written by anyone;
	// nothing of the call was written.
	ErrInvalid = errors.New("invalid transaction")

	// ErrInUse says that another process has the embedded store open.
	ErrInUse = errors.New("the store is open in another process")

	// ErrClosed says that the Store was closed.
	ErrClosed = errors.New("the store is closed")
)

// closeTimeout bounds how long Close waits for what still runs on the Store.
const closeTimeout = 2 * time.Second

// A Store is one process's access to the roster; it implements
// registrar.Store. It is safe for concurrent use.
type Store struct {
	kv     kv
	leaser leaser

	// release ends what is beneath; Close calls it once.
	release func() error

	closing  sync.Once
	closeErr error // of release; written within closing

	// done is closed when Close begins. running counts the Watch and HoldLease
	// calls under way; none is added after that.
	done    chan struct{}
	running sync.WaitGroup

	mu      sync.Mutex // guards what follows, and the order of done and running
	watches map[*watch]struct{}
	lease   int64 // of this process; zero: none
}

var _ registrar.Store = (*Store)(nil)

func newStore(kv kv, leaser leaser, release func() error) *Store {
	return &Store{
		kv:      kv,
		leaser:  leaser,
		release: release,
		done:    make(chan struct{}),
		watches: map[*watch]struct{}{},
	}
}

// Close ends every Watch and HoldLease, gives up the lease and, with an
// embedded store, stops it. It is bounded, about 12 s at the worst. Whatever is
// called after it gets ErrClosed.
func (s *Store) Close() error {
	s.closing.Do(func() {
		s.mu.Lock()
		close(s.done)
		s.mu.Unlock()
		idle := make(chan struct{})
		go func() { s.running.Wait(); close(idle) }()
		timer := time.NewTimer(closeTimeout)
		defer timer.Stop()
		select {
		case <-idle:
		case <-timer.C:
		}
		s.closeErr = s.release()
	})
	return s.closeErr
}

// Sync implements registrar.Store. A Watch that has brought that much already
// brings one more batch, without events.
func (s *Store) Sync(ctx context.Context) (assignment.Revision, error) {
	if err := s.open(); err != nil {
		return 0, err
	}
	revision, err := s.kv.revision(ctx)
	if err != nil {
		return 0, fmt.Errorf("read the store's revision: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.watches {
		w.want(revision)
	}
	return assignment.Revision(revision), nil
}

func (s *Store) open() error {
	select {
	case <-s.done:
		return ErrClosed
	default:
		return nil
	}
}

// begin lets a long call run until its ctx ends or the Store is closed. The
// caller calls end when it is over.
func (s *Store) begin(ctx context.Context) (running context.Context, end func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.open(); err != nil {
		return nil, nil, err
	}
	s.running.Add(1)
	running, cancel := context.WithCancelCause(ctx)
	over := make(chan struct{})
	go func() {
		select {
		case <-s.done:
			cancel(ErrClosed)
		case <-over:
		}
	}()
	return running, func() { close(over); cancel(nil); s.running.Done() }, nil
}
