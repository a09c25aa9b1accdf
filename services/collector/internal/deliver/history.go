package deliver

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// codePanic is the code of what has panicked.
const codePanic = "panic"

// errBroken is for people.
var errBroken = errors.New("relabeling a series panicked")

// maxErrorText bounds the last error, in bytes.
const maxErrorText = 1024

// News is what has come of a try, or of reading.
type news struct {
	taken, lost int    // samples
	reason      string // why they are lost
	failed      bool   // it is to be tried again
}

// A history is what a sink remembers of what has come of it. It is not safe for
// concurrent use.
type history struct {
	rate      rate
	delivered int64
	dropped   map[string]int64

	lastSuccess time.Time
	lastError   string
	lastErrorAt time.Time
	failing     bool
}

func newHistory(now time.Time) history {
	return history{rate: newRate(now), dropped: map[string]int64{}}
}

// add remembers one news.
func (h *history) add(now time.Time, n *news, err error) {
	if n.lost > 0 || n.failed {
		h.lastErrorAt, h.failing = now, true
		h.lastError = n.reason
		if err != nil {
			h.lastError = bounded(err.Error())
		}
	}
	if n.lost > 0 {
		h.dropped[n.reason] += int64(n.lost)
	}
	if n.taken > 0 {
		h.rate.add(now, n.taken)
		h.delivered += int64(n.taken)
		h.lastSuccess, h.failing = now, false
	}
}

func bounded(text string) string {
	if len(text) > maxErrorText {
		text = text[:maxErrorText] + "..."
	}
	return strings.ToValidUTF8(text, "?")
}

// Reasons are all reasons for which samples are dropped, in the closed set that
// metrics and status have.
func Reasons() []string {
	return []string{
		ReasonOutOfOrder, ReasonDuplicate, ReasonTooOld, ReasonTooNew, ReasonInvalid, ReasonTooLarge,
		ReasonLimit, ReasonUnsupported, ReasonRejected, ReasonOverflow, ReasonCorrupt,
	}
}

// known is a reason of the closed set.
func known(reason string) string {
	if slices.Contains(Reasons(), reason) {
		return reason
	}
	return ReasonRejected
}

// A Status is how a sink is doing.
type Status struct {
	// Name is the sink's, and Protocol how the receiver is spoken to now.
	Name, Protocol string

	// LagBytes of the log are not dealt with. OldestTime is when the oldest of that
	// was written, zero when there is none, and LagDuration how long ago.
	LagBytes    int64
	LagDuration time.Duration
	OldestTime  time.Time

	// SamplesPerSecond is how many were taken lately.
	SamplesPerSecond float64

	// Delivered counts the samples that were taken since New. Some may be counted
	// twice when an answer was lost.
	Delivered int64

	// Dropped counts those that the log has dropped or the receiver has not taken,
	// by reason; only reasons that there were.
	Dropped map[string]int64

	// RequestsInFlight are at work, and Concurrency may be.
	RequestsInFlight, Concurrency int

	// LastSuccess is when something was last taken, zero before.
	LastSuccess time.Time

	// LastError is what last went wrong, empty when nothing did, and LastErrorTime
	// when. Failing says that nothing was taken since.
	LastError     string
	LastErrorTime time.Time
	Failing       bool
}

// Status tells how the sink is doing.
func (s *Sink) Status() Status {
	lag, now := s.config.Log.Lag(), time.Now()
	st := Status{
		Name: s.config.Name, Protocol: s.config.Transport.Protocol(), LagBytes: lag.Bytes, OldestTime: lag.Oldest,
	}
	if !lag.Oldest.IsZero() {
		st.LagDuration = max(now.Sub(lag.Oldest), 0)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h := &s.history
	st.SamplesPerSecond = h.rate.perSecond(now)
	st.Delivered, st.Dropped = h.delivered, merge(h.dropped, lag)
	st.RequestsInFlight, st.Concurrency = s.inFlight, s.pace.concurrency
	st.LastSuccess, st.LastError, st.LastErrorTime, st.Failing = h.lastSuccess, h.lastError, h.lastErrorAt, h.failing
	return st
}

func merge(dropped map[string]int64, lag sample.Lag) map[string]int64 {
	all := maps.Clone(dropped)
	for reason, n := range lag.Dropped {
		if n > 0 {
			all[reason] += n
		}
	}
	return all
}
