package sink

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// logWatch passes metrics on, and keeps those that count what the store's logs
// could not write. A count rises while its log is locked: whoever writes behind a
// write that failed sees it.
type logWatch struct {
	prometheus.Registerer

	counters []prometheus.Collector
	spare    sync.Pool // of chan prometheus.Metric
}

const failedWrites = `_writes_failed_total"`

// Register passes a collector on.
func (w *logWatch) Register(c prometheus.Collector) error {
	descs := make(chan *prometheus.Desc, 100)
	go func() {
		c.Describe(descs)
		close(descs)
	}()
	for d := range descs {
		if strings.Contains(d.String(), failedWrites) {
			w.counters = append(w.counters, c)
		}
	}
	return w.Registerer.Register(c)
}

// MustRegister passes collectors on.
func (w *logWatch) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		if err := w.Register(c); err != nil {
			panic(err)
		}
	}
}

// failed reports whether a write has failed.
func (w *logWatch) failed() bool {
	out, ok := w.spare.Get().(chan prometheus.Metric)
	if !ok {
		out = make(chan prometheus.Metric, 1)
	}
	defer w.spare.Put(out)
	for _, c := range w.counters {
		c.Collect(out)
		var m dto.Metric
		if err := (<-out).Write(&m); err != nil || m.GetCounter().GetValue() > 0 {
			return true
		}
	}
	return false
}

// unlogged is what the store says when it has taken out-of-order samples and
// could not write their log. It says so nowhere else.
const unlogged = "Failed to log out of order samples into the WAL"

// A listener passes log lines on and listens for that one.
type listener struct {
	slog.Handler

	broken *atomic.Bool
}

// Handle passes a line on.
func (l listener) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == unlogged {
		l.broken.Store(true)
	}
	if !l.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return l.Handler.Handle(ctx, r)
}

// Enabled is true for errors, of which none is to be missed.
func (l listener) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelError || l.Handler.Enabled(ctx, level)
}

// WithAttrs is a listener with more attributes.
func (l listener) WithAttrs(attrs []slog.Attr) slog.Handler {
	return listener{l.Handler.WithAttrs(attrs), l.broken}
}

// WithGroup is a listener with a group.
func (l listener) WithGroup(name string) slog.Handler {
	return listener{l.Handler.WithGroup(name), l.broken}
}
