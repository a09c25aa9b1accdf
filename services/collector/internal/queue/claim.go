package queue

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// claim makes the directory this queue's, if it is not, and takes up what is
// there.
func (q *Queue) claim() error {
	q.mu.Lock()
	mine := q.lock != nil
	q.mu.Unlock()
	if mine {
		return nil
	}
	lock, err := q.cfg.FS.Claim(q.cfg.Dir)
	if err != nil {
		q.numberByTime()
		return err
	}
	entries, err := q.cfg.FS.List(q.cfg.Dir)
	if err != nil {
		q.numberByTime()
		_ = lock.Close()
		return err
	}
	positions := q.readPositions(entries)

	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.adopt(entries); err != nil {
		_ = lock.Close()
		return err
	}
	for name, p := range positions {
		q.number = max(q.number, p.position.Segment+1)
		h := q.holders[name]
		if h == nil {
			h = &holder{name: name, dropped: make(map[string]int64)}
			if q.settled && !q.wantedNames[name] {
				q.forgotten = append(q.forgotten, h)
				continue
			}
			q.holders[name] = h
		}
		// One that was made while nothing could be read began at the end.
		h.rewind(p)
	}
	q.lock = lock
	wake(q.toKeep)
	return nil
}

// numberByTime gives the segments of a queue that begins without a look at its
// directory numbers that nothing there will have.
func (q *Queue) numberByTime() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.number == 1 {
		q.number = uint64(time.Now().UnixMilli()) << 16
	}
}

// adopt puts the segments of earlier processes before those of this one.
func (q *Queue) adopt(entries []Entry) error {
	var old []*segment
	for _, e := range entries {
		if number, ok := parseSegmentName(e.Name); ok {
			old = append(old, &segment{
				number: number, old: true, sealed: true, end: e.Size, size: e.Size, samples: -1, changed: e.Changed,
			})
		}
	}
	if len(old) == 0 {
		return nil
	}
	slices.SortFunc(old, func(a, b *segment) int {
		if a.number < b.number {
			return -1
		}
		return 1
	})
	newest := old[len(old)-1].number
	if len(q.segments) > 0 && q.segments[0].number <= newest {
		return fmt.Errorf("the directory has a segment %d, which is newer than what was written since", newest)
	}
	for _, s := range old {
		q.addDisk(s.end)
	}
	q.segments = append(old, q.segments...)
	q.number = max(q.number, newest+1)
	q.cfg.Metrics.segments.Set(float64(len(q.segments)))
	return nil
}

// readPositions reads the positions of all holders, however damaged.
func (q *Queue) readPositions(entries []Entry) map[string]slot {
	all := make(map[string]slot)
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name, positionSuffix)
		if !ok || !validName(name) {
			continue
		}
		p, err := q.readPosition(name)
		if err != nil {
			// Twice rather than never.
			q.cfg.Logger.Warn("position of a sink cannot be read; it gets all that is kept", "sink", name, "error", err)
		}
		all[name] = p
	}
	return all
}
