package deliver

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"
)

const (
	// dropPause and failPause are the least times between two lines about what is
	// dropped for one reason, and about a receiver that fails.
	dropPause = 10 * time.Second
	failPause = time.Minute
)

// A voice tells people what happens, now and then. It is safe for concurrent
// use, and may wait for the log: no lock of the sink is held.
type voice struct {
	log *slog.Logger

	mu        sync.Mutex
	dropped   map[string]*droppedLine // guarded by mu
	failedAt  time.Time               // guarded by mu; the last line
	failing   bool                    // guarded by mu; it was told, and not that it ended
	failSince time.Time               // guarded by mu
	panicAt   time.Time               // guarded by mu
}

// A droppedLine is about samples dropped for one reason.
type droppedLine struct {
	at      time.Time
	samples int // that no line has told
}

// tell tells what is news.
func (v *voice) tell(now time.Time, n *news, o *Outcome) {
	if n.lost > 0 {
		v.tellDropped(now, n, o)
	}
	if n.failed {
		v.tellFailed(now, o)
	} else if n.taken > 0 {
		v.tellBack(now)
	}
}

func (v *voice) tellDropped(now time.Time, n *news, o *Outcome) {
	v.mu.Lock()
	line := v.dropped[n.reason]
	if line == nil {
		line = &droppedLine{}
		if v.dropped == nil {
			v.dropped = map[string]*droppedLine{}
		}
		v.dropped[n.reason] = line
	}
	line.samples += n.lost
	samples := line.samples
	due := now.Sub(line.at) >= dropPause
	if due {
		line.at, line.samples = now, 0
	}
	v.mu.Unlock()
	if due {
		v.log.Warn("samples dropped",
			slog.String("reason", n.reason), slog.Int("samples", samples), slog.String("code", o.Code), errorAttr(o))
	}
}

func (v *voice) tellFailed(now time.Time, o *Outcome) {
	v.mu.Lock()
	if v.failSince.IsZero() {
		v.failSince = now
	}
	since := v.failSince
	due := now.Sub(v.failedAt) >= failPause
	if due {
		v.failedAt, v.failing = now, true
	}
	v.mu.Unlock()
	if due {
		v.log.Warn("the receiver does not take samples; trying again",
			slog.Duration("since", now.Sub(since)), slog.String("code", o.Code), errorAttr(o))
	}
}

func (v *voice) tellBack(now time.Time) {
	v.mu.Lock()
	told, since := v.failing, v.failSince
	v.failing, v.failSince = false, time.Time{}
	v.mu.Unlock()
	if told {
		v.log.Info("the receiver takes samples again",
			slog.Duration("after", now.Sub(since)))
	}
}

// panicked tells of a panic, with the stack of this goroutine.
func (v *voice) panicked(value any) {
	now := time.Now()
	v.mu.Lock()
	due := now.Sub(v.panicAt) >= dropPause
	if due {
		v.panicAt = now
	}
	v.mu.Unlock()
	if due {
		v.log.Error("a panic while delivering; its samples are dropped",
			slog.String("panic", bounded(fmt.Sprint(value))), slog.String("stack", string(debug.Stack())))
	}
}

func errorAttr(o *Outcome) slog.Attr {
	if o.Err == nil {
		return slog.Attr{}
	}
	return slog.String("error", bounded(o.Err.Error()))
}
