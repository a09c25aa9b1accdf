package queue

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// ErrClosed is wrapped by what is asked of a closed Queue.
var ErrClosed = errors.New("the queue is closed")

// ErrLocked is wrapped when another process uses the directory.
var ErrLocked = errors.New("the queue's directory is in use by another process")

// errTooLarge says that a batch is more than one record can hold.
var errTooLarge = errors.New("the batch is too large for a record")

const (
	defaultMaxBytes    = 1 << 30
	defaultMemoryBytes = 64 << 20
	minSegmentBytes    = 64 << 10
	maxSegmentBytes    = 128 << 20

	// retryInterval is how long to wait with what has failed on the disk.
	retryInterval = time.Second
)

// A Config tells where a queue is and what it may take. Zero values are the
// defaults.
type Config struct {
	// Dir is the directory. It is made when missing, and locked. It should hold
	// nothing else.
	Dir string

	// MaxBytes is what all segments may take on disk; 1 GiB by default, at least
	// 256 KiB. A queue that is full drops its oldest segment.
	MaxBytes int64

	// SegmentBytes is where a segment ends; by default an eighth of MaxBytes,
	// but from 64 KiB to 128 MiB. It is at most a quarter of MaxBytes.
	SegmentBytes int64

	// MemoryBytes is what may be kept in memory while the disk fails; 64 MiB by
	// default.
	MemoryBytes int64

	// SyncInterval is how long what was written may be lost if the machine dies;
	// 1 s by default.
	SyncInterval time.Duration

	// StallAfter is how long a write waits for the disk; 1 s by default.
	StallAfter time.Duration

	// FS is nil for the operating system's.
	FS FS

	// Logger is told what the disk does wrong. Nil means nobody is.
	Logger *slog.Logger

	// Metrics are kept up to date. Nil means nobody asks.
	Metrics *Metrics
}

// complete fills in the defaults, and refuses nonsense.
func (c Config) complete() (Config, error) {
	c.MaxBytes = cmp.Or(c.MaxBytes, defaultMaxBytes)
	c.SegmentBytes = cmp.Or(c.SegmentBytes, min(max(c.MaxBytes/8, minSegmentBytes), maxSegmentBytes))
	c.MemoryBytes = cmp.Or(c.MemoryBytes, defaultMemoryBytes)
	c.SyncInterval = cmp.Or(c.SyncInterval, time.Second)
	c.StallAfter = cmp.Or(c.StallAfter, time.Second)
	if c.FS == nil {
		c.FS = system{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics()
	}
	switch {
	case c.Dir == "":
		return c, errors.New("no directory")
	case c.MaxBytes < 4*minSegmentBytes:
		return c, fmt.Errorf("at most %d bytes on disk, fewer than %d", c.MaxBytes, 4*minSegmentBytes)
	case c.SegmentBytes < minSegmentBytes || c.SegmentBytes > c.MaxBytes/4:
		return c, fmt.Errorf("segments of %d bytes, not from %d to a quarter of %d", c.SegmentBytes, minSegmentBytes, c.MaxBytes)
	case c.MemoryBytes < minSegmentBytes:
		return c, fmt.Errorf("at most %d bytes in memory, fewer than %d", c.MemoryBytes, minSegmentBytes)
	case c.SyncInterval < 0 || c.StallAfter < 0:
		return c, errors.New("a negative duration")
	}
	return c, nil
}

// maxRecord is the most bytes of one record.
func (c *Config) maxRecord() int { return int(min(maxPayload+frameSize, c.MaxBytes/4)) }

// memorySegment is where a segment in memory ends. One that is dropped should
// not be everything.
func (c *Config) memorySegment() int64 { return min(c.SegmentBytes, c.MemoryBytes/4) }
