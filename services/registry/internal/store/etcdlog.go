package store

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// A phase of the embedded etcd's life decides what its words mean.
type phase int32

const (
	// starting: what would end the process is an error of the opening.
	starting phase = iota

	// serving: what would end the process ends it. No handler may catch it and
	// go on with a store that etcd has given up.
	serving

	// stopping: what etcd says is of its own listeners, which it closes.
	stopping
)

// An etcdLog hands on what etcd warns of. The message is constant; what etcd
// says is an attribute.
type etcdLog struct {
	logger *slog.Logger
	phase  *atomic.Int32
	fields []zapcore.Field
}

// Of each of etcd's messages so many are handed on in so long a time.
const (
	logBurst  = 5
	logPeriod = 10 * time.Second
)

func newEtcdLogger(logger *slog.Logger, phase *atomic.Int32) *zap.Logger {
	core := zapcore.NewSamplerWithOptions(&etcdLog{logger: logger, phase: phase}, logPeriod, logBurst, 0)
	return zap.New(core, zap.WithFatalHook(fatalHook{phase}))
}

type fatalHook struct{ phase *atomic.Int32 }

func (h fatalHook) OnWrite(entry *zapcore.CheckedEntry, fields []zapcore.Field) {
	if phase(h.phase.Load()) == starting {
		zapcore.WriteThenPanic.OnWrite(entry, fields)
	}
	zapcore.WriteThenFatal.OnWrite(entry, fields)
}

// Enabled implements zapcore.Core, as do the other methods.
func (l *etcdLog) Enabled(level zapcore.Level) bool {
	if phase(l.phase.Load()) == stopping {
		return level >= zapcore.DPanicLevel
	}
	return level >= zapcore.WarnLevel
}

func (l *etcdLog) With(fields []zapcore.Field) zapcore.Core {
	return &etcdLog{logger: l.logger, phase: l.phase, fields: l.and(fields)}
}

func (l *etcdLog) and(fields []zapcore.Field) []zapcore.Field {
	return append(slices.Clip(l.fields), fields...)
}

func (l *etcdLog) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if !l.Enabled(entry.Level) || isUsual(entry.Message) {
		return checked
	}
	return checked.AddCore(entry, l)
}

// isUsual tells what etcd says at every start, or every first one, of an
// assembly that is as it should be.
func isUsual(message string) bool {
	for _, usual := range []string{
		"Running http and grpc server on single port",
		"simple token is not cryptographically signed",
		"Failed to detect schema version",
		"failed to update storage version",
		"since there are still pending configuration changes to apply",
	} {
		if strings.Contains(message, usual) {
			return true
		}
	}
	return false
}

func (l *etcdLog) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	level := slog.LevelWarn
	if entry.Level >= zapcore.ErrorLevel {
		level = slog.LevelError
	}
	encoder := zapcore.NewMapObjectEncoder()
	for _, field := range l.and(fields) {
		field.AddTo(encoder)
	}
	detail := make(map[string]string, len(encoder.Fields))
	for key, value := range encoder.Fields {
		detail[key] = shorten(fmt.Sprint(value))
	}
	l.logger.LogAttrs(context.Background(), level, "embedded etcd warns",
		slog.String("warning", shorten(entry.Message)), slog.Any("detail", detail))
	return nil
}

// shorten bounds a text: etcd prints whole transactions.
func shorten(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most/2], "") + " ... " + strings.ToValidUTF8(s[len(s)-most/2:], "")
}

func (l *etcdLog) Sync() error { return nil }
