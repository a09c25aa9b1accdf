package collector_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	"github.com/rollcall-metrics/rollcall/services/collector"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

func TestACollectorWithoutAStore(t *testing.T) {
	dir, grpcAt, webAt := t.TempDir(), listen(t), listen(t)
	file := filepath.Join(dir, "collector.yml")
	if err := os.WriteFile(file, []byte("sinks: [{name: a, remote_write: {url: 'http://127.0.0.1:1/'}}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := collector.New(t.Context(), collector.Config{
		ID: "c-1", Registries: []string{"127.0.0.1:1"}, DataDir: dir, NoStore: true, ConfigFile: file,
		Listener: grpcAt, HTTPListener: webAt, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	}()

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+webAt.Addr().String()+"/api/v1/query?query=up", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), "keeps no samples") {
		t.Errorf("a query is answered %s %s, %v", resp.Status, body, err)
	}

	conn, err := grpc.NewClient("passthrough:///"+grpcAt.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := collectorv1.NewCollectionServiceClient(conn)
	if _, err := client.CreateSnapshot(t.Context(), &collectorv1.CreateSnapshotRequest{}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("CreateSnapshot: %v", err)
	}
	stream, err := client.Select(t.Context(), &collectorv1.SelectRequest{
		Kind: collectorv1.SelectKind_SELECT_KIND_LABEL_NAMES, EndMs: 1,
	})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.FailedPrecondition {
		t.Errorf("Select: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "tsdb")); !os.IsNotExist(err) {
		t.Errorf("there is a store: %v", err)
	}
}

// TestAFullDiskIsNoDamage: a store that cannot be opened for its disk is not put
// aside, which would remove the one that was put aside before.
func TestAFullDiskIsNoDamage(t *testing.T) {
	dir := t.TempDir()
	if err := run(t, dir); err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(dir, "tsdb")
	if err := os.RemoveAll(disk); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(disk, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=1m"); err != nil {
		if os.Getenv("ROLLCALL_REQUIRE_ALL") == "1" {
			t.Fatalf("mount a tmpfs: %v, and ROLLCALL_REQUIRE_ALL=1", err)
		}
		t.Skipf("mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
	if err := run(t, dir); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := run(t, dir); err != nil {
			t.Errorf("on a disk that is read-only: %v", err)
		}
	}
	if _, err := os.Stat(disk + ".damaged"); !os.IsNotExist(err) {
		t.Errorf("the store was put aside: %v", err)
	}
	if _, err := os.Stat(filepath.Join(disk, "wal")); err != nil {
		t.Error(err)
	}
}

// TestSamplesGoSomewhere: a collector that would throw away what it collects does
// not start.
func TestSamplesGoSomewhere(t *testing.T) {
	_, err := collector.New(t.Context(), collector.Config{
		ID: "c-1", Registries: []string{"127.0.0.1:1"}, DataDir: t.TempDir(), NoStore: true, Logger: slog.New(slog.DiscardHandler),
	})
	if !errors.Is(err, collector.ErrConfiguration) {
		t.Errorf("started with %v", err)
	}
}
