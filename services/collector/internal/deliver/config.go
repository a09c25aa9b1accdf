package deliver

import (
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
)

// What a Config has where it says nothing.
const (
	// DefaultMaxSamplesPerSend makes bodies of some 100 KiB to 1 MiB: large enough
	// that a request costs little beside its samples, and below what receivers
	// take (gRPC's 4 MiB).
	DefaultMaxSamplesPerSend = 10_000

	// DefaultBatchDeadline is one second: it is what a small fleet's samples are
	// late, and one request a second is nothing to a receiver. A large fleet fills
	// its requests before.
	DefaultBatchDeadline = time.Second

	DefaultMaxConcurrency = 16
	DefaultMinBackoff     = 100 * time.Millisecond
	DefaultMaxBackoff     = 30 * time.Second
	DefaultSendTimeout    = 30 * time.Second
	DefaultStopGrace      = 5 * time.Second
)

const (
	// windowRounds is how many rounds of full requests the default window holds:
	// the ones at work, the ones that are ready when these end, and as much again
	// for lanes that are not evenly filled.
	windowRounds = 4

	// maxDefaultWindow bounds the default window, in samples of 40 bytes.
	maxDefaultWindow = 1 << 20

	// maxRetryAfter bounds what a receiver may ask for.
	maxRetryAfter = 10 * time.Minute

	// stopRest is how long a Send may take to notice that its context has ended.
	stopRest = time.Second
)

// A Config is what a Sink is made of. Name, Log and Transport are required.
type Config struct {
	// Name is the sink's in metrics and in the log.
	Name string

	// Log is what is delivered. It is read by this sink alone.
	Log Log

	// Transport speaks to the receiver. Run closes it.
	Transport Transport

	// ExternalLabels are added to each series where it has no label of that name,
	// before Relabel.
	ExternalLabels labels.Labels

	// Relabel are the rules by which series are changed or left out.
	Relabel []*relabel.Config

	// MaxSamplesPerSend bounds a request; a record that is larger is a request of
	// its own. Default 10,000.
	MaxSamplesPerSend int

	// BatchDeadline is how long a sample may wait for a request to become full.
	// Default 1 s.
	BatchDeadline time.Duration

	// MaxConcurrency bounds the requests that are at work at one time, 64 at most.
	// Default 16.
	MaxConcurrency int

	// MinBackoff and MaxBackoff bound the waits between tries. Default 100 ms and
	// 30 s.
	MinBackoff, MaxBackoff time.Duration

	// SendTimeout bounds one try. Default 30 s.
	SendTimeout time.Duration

	// WindowSamples bounds what has been read and is not committed. A record counts
	// 4 more than it has samples, and a sample with a native histogram or exemplars
	// counts 32 more. A quarter of it bounds the series that are new in a table of
	// the log, which take more than samples do. Default 4 * MaxSamplesPerSend *
	// MaxConcurrency, at most 1,048,576; each takes 40 bytes of memory.
	WindowSamples int

	// StopGrace is how long requests at work may go on when Run is to end. Default
	// 5 s.
	StopGrace time.Duration

	// Logger is told what people must know. Default: nobody is.
	Logger *slog.Logger

	// Metrics are counted in; several sinks share them. The caller registers them.
	Metrics *Metrics

	// jitter picks a wait between 0 and d. Tests set it.
	jitter func(d time.Duration) time.Duration
}

// complete fills in the defaults.
func (c Config) complete() Config {
	c.MaxSamplesPerSend = positive(c.MaxSamplesPerSend, DefaultMaxSamplesPerSend)
	c.BatchDeadline = positive(c.BatchDeadline, DefaultBatchDeadline)
	c.MaxConcurrency = min(positive(c.MaxConcurrency, DefaultMaxConcurrency), laneCount)
	c.MinBackoff = positive(c.MinBackoff, DefaultMinBackoff)
	c.MaxBackoff = max(positive(c.MaxBackoff, DefaultMaxBackoff), c.MinBackoff)
	c.SendTimeout = positive(c.SendTimeout, DefaultSendTimeout)
	c.StopGrace = positive(c.StopGrace, DefaultStopGrace)
	c.WindowSamples = positive(c.WindowSamples,
		min(windowRounds*c.MaxSamplesPerSend*c.MaxConcurrency, maxDefaultWindow))
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics()
	}
	if c.jitter == nil {
		c.jitter = func(d time.Duration) time.Duration { return rand.N(d + 1) }
	}
	return c
}

func positive[T int | time.Duration](v, otherwise T) T {
	if v > 0 {
		return v
	}
	return otherwise
}
