package collector_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/collector"
)

// run starts a collector and stops it at once.
func run(t *testing.T, dir string) error {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	c, err := collector.New(t.Context(), collector.Config{
		ID: "c-1", Registries: []string{"127.0.0.1:1"}, DataDir: dir, Listener: lis, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return c.Run(ctx)
}

// TestDamagedSamplesKeepNobodyFromCollecting: a sample store that cannot be
// opened is put aside, and kept.
func TestDamagedSamplesKeepNobodyFromCollecting(t *testing.T) {
	dir := t.TempDir()
	if err := run(t, dir); err != nil {
		t.Fatal(err)
	}
	damaged := filepath.Join("chunks_head", "000001")
	rubbish := bytes.Repeat([]byte("rubbish "), 64)
	if err := os.WriteFile(filepath.Join(dir, "tsdb", damaged), rubbish, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(t, dir); err != nil {
		t.Errorf("with a damaged sample store: %v", err)
	}
	kept, err := os.ReadFile(filepath.Join(dir, "tsdb.damaged", damaged))
	if err != nil || !bytes.Equal(kept, rubbish) {
		t.Errorf("the damaged store was not kept: %v", err)
	}
}
