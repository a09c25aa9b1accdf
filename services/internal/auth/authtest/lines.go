package authtest

import (
	"context"
	"log/slog"
	"sync"
)

// Lines is a log that keeps what is logged, of all levels. It is safe for concurrent
// use.
type Lines struct {
	mu  sync.Mutex
	all []slog.Record
}

// Enabled implements [slog.Handler].
func (l *Lines) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements [slog.Handler].
func (l *Lines) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, r.Clone())
	return nil
}

// WithAttrs implements [slog.Handler].
func (l *Lines) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup implements [slog.Handler].
func (l *Lines) WithGroup(string) slog.Handler { return l }

// Take returns the attributes of the lines with a message, in order, and forgets
// all lines.
func (l *Lines) Take(message string) []map[string]any {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []map[string]any
	for _, r := range l.all {
		if r.Message != message {
			continue
		}
		one := map[string]any{"level": r.Level}
		r.Attrs(func(a slog.Attr) bool {
			one[a.Key] = a.Value.Any()
			return true
		})
		found = append(found, one)
	}
	l.all = nil
	return found
}
