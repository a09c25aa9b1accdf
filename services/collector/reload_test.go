package collector_test

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	"github.com/rollcall-metrics/rollcall/services/collector"
)

// configured runs a collector with a configuration file, until the test ends.
func configured(t *testing.T, file string, logs *strings.Builder) (*collector.Collector, *prometheus.Registry, collectorv1.CollectionServiceClient) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	metrics := prometheus.NewRegistry()
	c, err := collector.New(t.Context(), collector.Config{
		ID: "c-1", Registries: []string{"127.0.0.1:1"}, DataDir: t.TempDir(), Listener: lis,
		ConfigFile: file, Metrics: metrics, Logger: slog.New(slog.NewTextHandler(logs, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	ctx := t.Context() // ends before the cleanups
	go func() { ended <- c.Run(ctx) }()
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if strings.Contains(logs.String(), "hunter2") {
			t.Errorf("a secret is logged: %s", logs)
		}
	})
	return c, metrics, collectorv1.NewCollectionServiceClient(conn)
}

// reason is the code and the reason of an error.
func reason(err error) string {
	s := status.Convert(err)
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return s.Code().String() + " " + info.GetReason()
		}
	}
	return s.Code().String()
}

func TestReload(t *testing.T) {
	file := filepath.Join(t.TempDir(), "collector.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("credentials: {one: {bearer_token: hunter2, hosts: [node]}}")
	var logs strings.Builder // slog's handlers write one line at a time
	c, metrics, client := configured(t, file, &logs)
	ctx := t.Context()
	successful := func(want string) {
		t.Helper()
		expected := "# HELP rollcall_collector_config_last_reload_successful Whether the last reload of the configuration file was taken.\n" +
			"# TYPE rollcall_collector_config_last_reload_successful gauge\nrollcall_collector_config_last_reload_successful " + want + "\n"
		if err := testutil.GatherAndCompare(metrics, strings.NewReader(expected), "rollcall_collector_config_last_reload_successful"); err != nil {
			t.Error(err)
		}
	}
	shown := func() *collectorv1.GetConfigurationResponse {
		t.Helper()
		got, err := client.GetConfiguration(ctx, &collectorv1.GetConfigurationRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(got.String(), "hunter2") {
			t.Errorf("a secret is shown: %s", got)
		}
		return got
	}
	first := shown()
	if !strings.Contains(first.GetYaml(), "<secret>") || first.GetLastError() != "" {
		t.Errorf("got %s", first)
	}
	successful("1")

	// A bad one changes nothing, and is told.
	write("credentials: {two: {basic_auth: hunter2, hosts: [node]}}")
	_, err := client.ReloadConfiguration(ctx, &collectorv1.ReloadConfigurationRequest{})
	if got := reason(err); got != codes.FailedPrecondition.String()+" CONFIGURATION" || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%s: %v", got, err)
	}
	got := shown()
	if got.GetYaml() != first.GetYaml() || got.GetLastError() == "" || got.GetLastErrorTime() == nil ||
		!got.GetLoadTime().AsTime().Equal(first.GetLoadTime().AsTime()) {
		t.Errorf("got %s", got)
	}
	successful("0")

	// A good one holds, and takes the error away, also from several at once.
	write("credentials: {three: {bearer_token: hunter2, hosts: [node]}}")
	var reloads sync.WaitGroup
	for range 8 {
		reloads.Go(func() {
			if err := c.Reload(); err != nil {
				t.Error(err)
			}
		})
	}
	reloads.Wait()
	if got := shown(); !strings.Contains(got.GetYaml(), "three") || got.GetLastError() != "" || got.GetLastErrorTime() != nil {
		t.Errorf("got %s", got)
	}
	successful("1")
}

func TestReloadWithoutFile(t *testing.T) {
	var logs strings.Builder
	_, _, client := configured(t, "", &logs)
	_, err := client.ReloadConfiguration(t.Context(), &collectorv1.ReloadConfigurationRequest{})
	if got := reason(err); got != codes.FailedPrecondition.String()+" NO_CONFIGURATION" {
		t.Errorf("%s: %v", got, err)
	}
}

func TestBadConfigurationIsRefusedBeforeAnythingIsOpened(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	_, err := collector.New(t.Context(), collector.Config{
		ID: "c-1", Registries: []string{"127.0.0.1:1"}, DataDir: data, ConfigFile: filepath.Join(dir, "none"),
		Logger: slog.New(slog.DiscardHandler),
	})
	if !errors.Is(err, collector.ErrConfiguration) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(data); !errors.Is(err, os.ErrNotExist) {
		t.Error("the data directory was opened")
	}
}
