package sink

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// TestASnapshotOfAStoreThatBreaksIsNotKept: it is refused, so it takes no place
// among those that there may be.
func TestASnapshotOfAStoreThatBreaksIsNotKept(t *testing.T) {
	store, err := OpenTSDB(TSDBConfig{Dir: t.TempDir(), WriteWait: time.Minute, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	ls := labels.FromStrings("__name__", "a")
	one := sample.Sample{Series: &sample.Series{Own: ls}, Time: time.Now().UnixMilli(), Value: 1}
	if err := store.Write(t.Context(), &sample.Batch{Samples: []sample.Sample{one}}); err != nil {
		t.Fatal(err)
	}
	failed := prometheus.NewCounter(prometheus.CounterOpts{Name: "writes_failed_total", Help: "Some."})
	failed.Inc()
	logs := store.current.Load().logs
	logs.counters = append(logs.counters, failed)
	if dir, _, err := store.Snapshot(t.Context()); err == nil {
		t.Errorf("a snapshot in %s", dir)
	}
	kept, err := os.ReadDir(filepath.Join(store.config.Dir, snapshotsDir))
	if err != nil || len(kept) != 0 {
		t.Error(kept, err)
	}
}
