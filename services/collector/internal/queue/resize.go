package queue

import "fmt"

// Resize changes what the queue may take, zero being the defaults of [Config].
// A queue that is then too full drops its oldest segments soon; those that are
// there keep their sizes.
func (q *Queue) Resize(maxBytes, memoryBytes int64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	cfg := q.cfg
	cfg.MaxBytes, cfg.SegmentBytes, cfg.MemoryBytes = maxBytes, 0, memoryBytes
	cfg, err := cfg.complete()
	if err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	q.cfg.MaxBytes, q.cfg.SegmentBytes, q.cfg.MemoryBytes = cfg.MaxBytes, cfg.SegmentBytes, cfg.MemoryBytes
	wake(q.toClean)
	return nil
}
