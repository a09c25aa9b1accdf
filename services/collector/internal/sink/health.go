package sink

import (
	"log/slog"
	"maps"
	"sync"
	"time"
)

// rateSpan is the number of seconds over which a rate is told.
const rateSpan = 15

// repeatAfter is how often a store that goes on failing says so.
const repeatAfter = time.Minute

// maxErrorText bounds what is kept of an error.
const maxErrorText = 500

// A Status is how the embedded store is doing.
type Status struct {
	// LastSuccess is when it last took a batch, zero when it never did.
	LastSuccess time.Time

	// LastError is what last went wrong with the store itself, empty when nothing
	// did, and LastErrorTime when that was. A sample or a batch that is at fault
	// itself is no such error.
	LastError     string
	LastErrorTime time.Time

	// Failing says that no batch was taken since.
	Failing bool

	// SamplesPerSecond is the rate of the last seconds.
	SamplesPerSecond float64

	// Samples counts those taken since the store was opened, Dropped those that
	// were not, by reason; only reasons that there were.
	Samples int64
	Dropped map[string]int64

	// Writing is how many batches are being written, Writers how many can be.
	Writing, Writers int
}

// health keeps what a Status tells. It is safe for concurrent use.
type health struct {
	logger *slog.Logger

	mu      sync.Mutex
	status  Status    // guarded by mu, as all below
	since   time.Time // it fails
	said    time.Time
	seconds [rateSpan + 1]int64 // samples of each second, at its number modulo the length
	newest  int64               // the newest second
}

// succeed takes note of a batch that was stored.
func (h *health) succeed(now time.Time, samples int, refused Refused) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.status.Failing {
		h.status.Failing = false
		h.logger.Info("the sample store takes samples again", "failed_for", now.Sub(h.since))
	}
	h.status.LastSuccess = now
	h.status.Samples += int64(samples)
	h.advance(now)
	h.seconds[h.newest%int64(len(h.seconds))] += int64(samples)
	if refused.Samples() == 0 {
		return
	}
	if h.status.Dropped == nil {
		h.status.Dropped = map[string]int64{}
	}
	for reason, n := range refused.byReason() {
		if n > 0 {
			h.status.Dropped[reason] += int64(n)
		}
	}
}

// fail takes note of what is wrong with the store itself, and says it at once and
// now and then.
func (h *health) fail(now time.Time, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	text := err.Error()
	if len(text) > maxErrorText {
		text = text[:maxErrorText]
	}
	if !h.status.Failing || now.Sub(h.said) >= repeatAfter {
		h.said = now
		h.logger.Error("the sample store fails: samples are collected and not stored", "error", text)
	}
	if !h.status.Failing {
		h.since = now
	}
	h.status.Failing, h.status.LastError, h.status.LastErrorTime = true, text, now
}

// failing reports whether the last batch failed for the store's sake.
func (h *health) failing() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.status.Failing
}

// show is the status as of now.
func (h *health) show(now time.Time) Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.advance(now)
	s := h.status
	s.Dropped = maps.Clone(h.status.Dropped)
	whole := -h.seconds[h.newest%int64(len(h.seconds))] // the newest second is not over
	for _, n := range h.seconds {
		whole += n
	}
	s.SamplesPerSecond = float64(whole) / rateSpan
	return s
}

// advance begins the second of now, and with it those that went by.
func (h *health) advance(now time.Time) {
	second := now.Unix()
	if second-h.newest > int64(len(h.seconds)) {
		h.newest = second - int64(len(h.seconds))
	}
	for h.newest < second {
		h.newest++
		h.seconds[h.newest%int64(len(h.seconds))] = 0
	}
}
