package store_test

import (
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
)

// TestEtcdLog has etcd say things of every kind.
func TestEtcdLog(t *testing.T) {
	var lines strings.Builder
	logger := store.EtcdLogger(slog.New(slog.NewJSONHandler(&lines, nil)), false).With(zap.String("member", "m1"))
	logger.Debug("not told")
	logger.Info("not told")
	logger.Warn("simple token is not cryptographically signed")
	logger.Error("it broke", zap.Error(errors.New("why")), zap.String("request", strings.Repeat("long ", 100_000)))
	for range 1000 {
		logger.Warn("again and again")
	}
	told := strings.Split(strings.TrimSpace(lines.String()), "\n")
	if len(told) < 2 || len(told) > 20 {
		t.Fatalf("%d lines are told", len(told))
	}
	for i, line := range told {
		if len(line) > 1000 {
			t.Errorf("a line of %d bytes", len(line))
		}
		var got struct {
			Level, Msg, Warning string
			Detail              map[string]string
		}
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatal(err)
		}
		warning, level := "again and again", "WARN"
		if i == 0 {
			warning, level = "it broke", "ERROR"
			if got.Detail["error"] != "why" {
				t.Errorf("detail %v", got.Detail)
			}
		}
		if got.Msg != "embedded etcd warns" || got.Warning != warning || got.Level != level || got.Detail["member"] != "m1" {
			t.Errorf("told %s", line)
		}
	}
	lines.Reset()
	store.EtcdLogger(slog.New(slog.NewJSONHandler(&lines, nil)), true).Error("a listener is closed")
	if lines.Len() != 0 {
		t.Errorf("told while it stops: %s", lines.String())
	}
}
