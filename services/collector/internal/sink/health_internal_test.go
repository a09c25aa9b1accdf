package sink

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said strings.Builder
		h := &health{logger: slog.New(slog.NewTextHandler(&said, nil))}
		for range 20 {
			h.succeed(time.Now(), 30, Refused{Duplicate: 1})
			time.Sleep(time.Second)
		}
		last := time.Now()
		s := h.show(last)
		want := Status{
			LastSuccess: last.Add(-time.Second), SamplesPerSecond: 30, Samples: 600, Dropped: map[string]int64{"duplicate": 20},
		}
		if diff := cmp.Diff(want, s); diff != "" {
			t.Error(diff)
		}
		for range 119 {
			h.fail(time.Now(), errors.New(strings.Repeat("no space ", 100)))
			time.Sleep(time.Second)
		}
		s = h.show(time.Now())
		if !s.Failing || s.SamplesPerSecond != 0 || len(s.LastError) != maxErrorText || !h.failing() {
			t.Errorf("status is %+v", s)
		}
		if n := strings.Count(said.String(), "the sample store fails"); n != 2 {
			t.Errorf("it was said %d times in two minutes", n)
		}
		h.succeed(time.Now(), 1, Refused{})
		if s := h.show(time.Now()); s.Failing || s.LastError == "" || !strings.Contains(said.String(), "failed_for=1m59s") {
			t.Errorf("status is %+v, said %s", s, said.String())
		}
	})
}

func TestLogWatch(t *testing.T) {
	registry := prometheus.NewRegistry()
	w := &logWatch{Registerer: registry}
	prefixed := prometheus.WrapRegistererWithPrefix("prometheus_tsdb_wal_", w)
	failed := prometheus.NewCounter(prometheus.CounterOpts{Name: "writes_failed_total", Help: "As the store has it."})
	other := prometheus.NewCounter(prometheus.CounterOpts{Name: "other_total", Help: "Another."})
	prefixed.MustRegister(failed, other)
	other.Inc()
	if w.failed() {
		t.Error("a write failed, it says, and none did")
	}
	failed.Inc()
	if !w.failed() {
		t.Error("it did not see a write fail")
	}
}

// The store's own metrics are those that are watched.
func TestTheStoreHasWhatIsWatched(t *testing.T) {
	store, err := OpenTSDB(TSDBConfig{Dir: t.TempDir(), OutOfOrderWindow: time.Hour, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if n := len(store.current.Load().logs.counters); n != 2 {
		t.Errorf("%d counters are watched, want that of each log", n)
	}
}
