package queue

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"
)

// soil says that a segment has been written to.
func (q *Queue) soil(s *segment, since time.Time) {
	if s.dirty.IsZero() {
		s.dirty = since
		wake(q.toSync)
	}
}

// unsyncedSince is when the oldest batch was written that a crash of the machine
// may take; zero when there is none.
func (q *Queue) unsyncedSince() time.Time {
	var oldest time.Time
	for _, s := range q.segments {
		for _, t := range [2]time.Time{s.dirty, s.synced} {
			if !t.IsZero() && (oldest.IsZero() || t.Before(oldest)) {
				oldest = t
			}
		}
	}
	return oldest
}

// sync is the goroutine that makes durable what was written. It has at most
// one sync of each file in Config.SyncInterval.
func (q *Queue) sync() {
	q.syncOld()
	pause := time.NewTimer(q.cfg.SyncInterval)
	defer pause.Stop()
	for {
		select {
		case <-q.toSync:
		case <-q.stop:
			q.syncAll()
			return
		}
		pause.Reset(q.cfg.SyncInterval)
		select {
		case <-pause.C:
		case <-q.stop:
		}
		q.syncAll()
	}
}

// recent is for how long the kernel may keep what it was given from the disk.
const recent = 5 * time.Minute

// syncOld syncs what a process has written that was killed lately.
func (q *Queue) syncOld() {
	q.mu.Lock()
	var numbers []uint64
	for _, s := range q.segments {
		if s.old && time.Since(s.changed) < recent {
			numbers = append(numbers, s.number)
		}
	}
	q.mu.Unlock()
	for _, n := range numbers {
		file, err := q.cfg.FS.OpenFile(q.path(segmentName(n)), os.O_RDONLY, 0)
		if err != nil {
			continue // it is gone, or its readers will tell
		}
		begun := time.Now()
		if err := file.Sync(); err != nil {
			q.mu.Lock()
			if i := q.find(n); i < len(q.segments) && q.segments[i].number == n {
				q.doubt(q.segments[i], begun)
			}
			q.note("sync", err)
			q.mu.Unlock()
		}
		closeFile(file)
	}
	q.mu.Lock()
	q.newNames = q.newNames || len(numbers) > 0
	q.mu.Unlock()
	wake(q.toSync)
}

// syncAll syncs what was written until now.
func (q *Queue) syncAll() {
	q.mu.Lock()
	var segments []*segment
	for _, s := range slices.Concat(q.segments, q.condemned) {
		if s.file != nil && !s.dirty.IsZero() && !s.unsure {
			s.dirty, s.synced, s.syncing = time.Time{}, s.dirty, true
			segments = append(segments, s)
		}
	}
	var positions []*holder
	for _, h := range q.holders {
		if h.unsynced && h.file != nil {
			h.unsynced = false
			positions = append(positions, h)
		}
	}
	names := q.newNames
	q.newNames = false
	q.mu.Unlock()

	for _, s := range segments {
		q.syncSegment(s)
	}
	if names {
		if err := q.cfg.FS.SyncDir(q.cfg.Dir); err != nil {
			q.mu.Lock()
			q.newNames = true
			q.note("sync", err)
			q.mu.Unlock()
		}
	}
	for _, h := range positions {
		q.syncPosition(h)
	}
	q.mu.Lock()
	var idle []File
	for _, s := range slices.Concat(q.segments, q.condemned) {
		if f := q.release(s); f != nil {
			idle = append(idle, f)
		}
	}
	q.mu.Unlock()
	for _, f := range idle {
		closeFile(f)
	}
}

// syncSegment syncs one segment. After a failure the kernel may have forgotten
// what it could not write, and would say that all is well the next time; so
// that segment takes no more.
func (q *Queue) syncSegment(s *segment) {
	begun := time.Now()
	err := s.file.Sync() // which nobody closes while it is syncing
	q.cfg.Metrics.syncs.Observe(time.Since(begun).Seconds())
	q.mu.Lock()
	since := s.synced
	s.syncing, s.synced = false, time.Time{}
	if err != nil && !s.gone {
		q.doubt(s, since)
		q.note("sync", err)
		if s == q.current {
			q.seal()
		}
	} else if err == nil && q.trouble.unsynced {
		q.trouble.unsynced = false
		delete(q.trouble.told, "sync")
	}
	file := q.release(s)
	q.mu.Unlock()
	closeFile(file)
}

// doubt says that a crash of the machine may take a segment, which is told until it
// is delivered. mu is held.
func (q *Queue) doubt(s *segment, since time.Time) {
	s.unsure, s.dirty = true, since
	q.trouble.unsynced = true
}

// syncPosition syncs one position. Its holder may be forgotten meanwhile, and the
// file closed: then there is nothing to keep.
func (q *Queue) syncPosition(h *holder) {
	q.mu.Lock()
	file := h.file
	q.mu.Unlock()
	if file == nil {
		return
	}
	if err := file.Sync(); err != nil && !errors.Is(err, fs.ErrClosed) {
		q.mu.Lock()
		q.note("sync", err)
		q.mu.Unlock()
	}
}
