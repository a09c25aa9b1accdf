package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// progressRetry is how often a Watch asks for progress that Sync is waiting
// for: a watch that is catching up does not answer.
const progressRetry = 100 * time.Millisecond

// A watch is one running Watch.
type watch struct {
	last int64 // the revision brought last; of the goroutine that runs Watch

	wake chan struct{} // one place: wanted has changed

	mu     sync.Mutex
	wanted int64 // what Sync has promised, if not brought yet; else zero
}

// Watch implements registrar.Store. Even if nothing is written it soon brings a
// batch of at least the revision that the store had when it was called, so that
// the caller knows it is up to date. The revisions of batches with events
// increase strictly; one without may repeat the last revision. After any error
// but registrar.ErrCompacted a caller may Watch again after the last batch it
// has applied: if the store was set back meanwhile, that fails with ErrSetBack.
// apply should return soon; a slow one slows nobody else.
func (s *Store) Watch(ctx context.Context, after assignment.Revision, apply func(roster.Batch) error) error {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	w := s.addWatch(int64(after))
	defer s.removeWatch(w)
	// Only here can a store that was set back be told from one that has had no
	// write: a watch of the future would wait, then bring another history.
	revision, err := s.kv.revision(ctx)
	if err != nil {
		return watchError(ctx, err)
	}
	if revision < int64(after) {
		return fmt.Errorf("watch after revision %d: %w: its revision is %d", after, ErrSetBack, revision)
	}
	w.want(revision)
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	from, err := s.kv.watch(watching, keyPrefix, int64(after))
	if err != nil {
		return watchError(ctx, err)
	}
	err = watchError(ctx, w.run(ctx, from, apply))
	cancel()
	for range from.responses {
		continue // until the close: then nothing of it runs any more
	}
	return err
}

func (s *Store) addWatch(after int64) *watch {
	w := &watch{last: after, wake: make(chan struct{}, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watches[w] = struct{}{}
	return w
}

func (s *Store) removeWatch(w *watch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.watches, w)
}

// watchError prefers the reason why a watch was ended over what broke by that.
func watchError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("watch: %w", err)
}

func (w *watch) run(ctx context.Context, from *stream, apply func(roster.Batch) error) error {
	retry := time.NewTimer(progressRetry)
	retry.Stop()
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r, ok := <-from.responses:
			if !ok {
				return errors.New("it ended without an error")
			}
			if err := w.bring(r, apply); err != nil {
				return err
			}
			continue
		case <-w.wake:
		case <-retry.C:
		}
		switch wanted := w.isWanted(); {
		case wanted == 0:
		case wanted <= w.last:
			if err := w.bring(response{revision: w.last}, apply); err != nil {
				return err
			}
		default:
			if err := from.progress(); err != nil {
				return err
			}
			retry.Reset(progressRetry)
		}
	}
}

// want has the watch bring a batch of at least this revision. It does not wait.
func (w *watch) want(revision int64) {
	w.mu.Lock()
	w.wanted = max(w.wanted, revision)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *watch) isWanted() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wanted
}

func (w *watch) bring(r response, apply func(roster.Batch) error) error {
	if r.err != nil {
		return r.err
	}
	if r.revision < w.last && len(r.changes) == 0 {
		return nil // progress of a member that is behind the one we loaded from
	}
	if r.revision <= w.last && len(r.changes) > 0 {
		return fmt.Errorf("revision %d came after %d", r.revision, w.last)
	}
	batch, err := readBatch(r)
	if err != nil {
		return err
	}
	w.last = r.revision
	w.mu.Lock()
	if w.wanted <= w.last {
		w.wanted = 0
	}
	w.mu.Unlock()
	return apply(batch)
}

func readBatch(r response) (roster.Batch, error) {
	batch := roster.Batch{Revision: assignment.Revision(r.revision)}
	for _, c := range r.changes {
		key, known, err := parseKey(c.key)
		if err != nil {
			return roster.Batch{}, err
		}
		if !known {
			continue
		}
		event := roster.Event{Key: key}
		if !c.deleted {
			if event.Record, err = decode(key, c.value); err != nil {
				return roster.Batch{}, err
			}
		}
		batch.Events = append(batch.Events, event)
	}
	return batch, nil
}
