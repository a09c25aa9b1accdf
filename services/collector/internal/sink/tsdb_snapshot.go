package sink

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	// snapshotsDir has the snapshots, below the store's own directory.
	snapshotsDir = "snapshots"

	// unfinished ends the name of a snapshot that is being made.
	unfinished = ".tmp"

	// MaxSnapshots is how many snapshots there may be: each keeps blocks on the
	// disk that are past the retention.
	MaxSnapshots = 8
)

// ErrBusy says that a snapshot or a deletion is at work.
var ErrBusy = errors.New("a snapshot or a deletion of the sample store is at work")

// ErrTooManySnapshots says that old snapshots have to be removed first. The store
// removes none: they are somebody's backup.
var ErrTooManySnapshots = fmt.Errorf("there are %d snapshots; remove what is not needed", MaxSnapshots)

// Snapshot makes a copy of the store in a directory of its own, which it names:
// all blocks, as hard links, and what is in memory as one more block. The copy can
// be taken away and opened as a store. It tells how many bytes the copy has, of
// which links take none as long as the store has the blocks too.
//
// The error wraps [ErrBusy], [ErrTooManySnapshots], [ErrUnavailable] or
// [ErrClosed].
func (t *TSDB) Snapshot(ctx context.Context) (dir string, bytes int64, err error) {
	err = t.operate(func(o *opened) error {
		dir, bytes, err = t.snapshot(ctx, o)
		return err
	})
	if err != nil {
		if dir != "" { // the store broke when it was finished: nobody would know of it
			err = errors.Join(err, os.RemoveAll(dir))
		}
		return "", 0, fmt.Errorf("snapshot of the sample store: %w", err)
	}
	return dir, bytes, nil
}

func (t *TSDB) snapshot(ctx context.Context, o *opened) (dir string, bytes int64, err error) {
	root, err := filepath.Abs(filepath.Join(t.config.Dir, snapshotsDir))
	if err != nil {
		return "", 0, err
	}
	if err := os.MkdirAll(root, 0o750); err != nil {
		return "", 0, err
	}
	kept, err := os.ReadDir(root)
	switch {
	case err != nil:
		return "", 0, err
	case len(kept) >= MaxSnapshots:
		return "", 0, fmt.Errorf("%s: %w", root, ErrTooManySnapshots)
	}
	dir = filepath.Join(root, fmt.Sprintf("%s-%016x", time.Now().UTC().Format("20060102T150405Z"), rand.Uint64()))
	making := dir + unfinished
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(making))
		}
	}()
	// promtool does not open a store without a log.
	if err := os.MkdirAll(filepath.Join(making, "wal"), 0o750); err != nil {
		return "", 0, err
	}
	// A snapshot has no out-of-order samples that are not in blocks.
	if err := o.db.CompactOOOHead(ctx); err != nil {
		return "", 0, err
	}
	if err := ctx.Err(); err != nil {
		return "", 0, err
	}
	if err := o.db.Snapshot(making, true); err != nil {
		return "", 0, err
	}
	if bytes, err = sizeOf(making); err != nil {
		return "", 0, err
	}
	return dir, bytes, os.Rename(making, dir)
}

// operate does what an operator asks for, one thing at a time. A store that breaks
// by it is opened again.
func (t *TSDB) operate(do func(*opened) error) (err error) {
	if !t.operating.TryLock() {
		return ErrBusy
	}
	defer t.operating.Unlock()
	o, err := t.enter()
	if err != nil {
		return err
	}
	defer o.users.leave()
	if o.broken.Load() {
		return ErrUnavailable
	}
	if err := t.room.check(time.Now()); err != nil {
		return err
	}
	defer func() {
		v := recover()
		if v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
		if v != nil || o.logs.failed() {
			err = fmt.Errorf("%w: %w", errStore, errors.Join(err, ErrUnavailable))
			o.broken.Store(true)
			t.health.fail(time.Now(), err)
		}
	}()
	return do(o)
}

// sizeOf is how much the files below a directory have.
func sizeOf(dir string) (bytes int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			bytes += info.Size()
		}
		return err
	})
	return bytes, err
}

// removeUnfinished removes snapshots that were not finished.
func removeUnfinished(dir string) error {
	root := filepath.Join(dir, snapshotsDir)
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list the snapshots: %w", err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), unfinished) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(root, e.Name())); err != nil {
			return fmt.Errorf("remove an unfinished snapshot: %w", err)
		}
	}
	return nil
}
