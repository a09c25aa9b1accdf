package sink_test

import (
	"errors"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sink"
)

func TestReopenedAfterClose(t *testing.T) {
	dir := t.TempDir()
	now := nowMs()
	up := series("__name__", "up")

	store := open(t, sink.TSDBConfig{Dir: dir, OutOfOrderWindow: time.Hour})
	write(t, store, batch(at(up, now, 1)))
	write(t, store, batch(at(up, now-1000, 2))) // Out of order: another log.
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}

	store = open(t, sink.TSDBConfig{Dir: dir, OutOfOrderWindow: time.Hour})
	write(t, store, batch(at(up, now+1000, 3)))
	wantSamples(t, store, "up", map[string][]point{`{__name__="up"}`: {pt(now-1000, 2), pt(now, 1), pt(now+1000, 3)}})
}

func TestReopenedAfterACrash(t *testing.T) {
	dir := t.TempDir()
	now := nowMs()
	up := series("__name__", "up")
	var many []sample.Sample // More than a page of the log.
	for i := range 5000 {
		many = append(many, at(series("__name__", "many", "i", strings.Repeat("x", i%50)+string(rune('a'+i%26))), now, 1))
	}
	store := open(t, sink.TSDBConfig{Dir: dir, OutOfOrderWindow: time.Hour})
	write(t, store, batch(at(up, now, 1)))
	write(t, store, batch(at(up, now-1000, 2)))
	write(t, store, batch(many...))
	want := read(t, store, "many")

	after := open(t, sink.TSDBConfig{Dir: crash(t, dir), OutOfOrderWindow: time.Hour})
	wantSamples(t, after, "up", map[string][]point{`{__name__="up"}`: {pt(now-1000, 2), pt(now, 1)}})
	wantSamples(t, after, "many", want)
	write(t, after, batch(at(up, now+1000, 3)))
}

// A crash in the middle of a write leaves a torn record at the log's end: the
// batch is gone whole, the ones before it are there whole.
func TestATornWriteIsGoneWhole(t *testing.T) {
	dir := t.TempDir()
	now := nowMs()
	kept, torn := series("__name__", "kept"), series("__name__", "torn")
	store := open(t, sink.TSDBConfig{Dir: dir})
	write(t, store, batch(at(kept, now, 1), at(torn, now, 1)))
	segment := func(dir string) string { return filepath.Join(dir, "wal", "00000000") }
	before, err := os.Stat(segment(dir))
	if err != nil {
		t.Fatal(err)
	}
	// Odd bits, as the reader takes a missing tail for zeros.
	write(t, store, batch(at(kept, now+1, 1.1), at(torn, now+1, 1.1)))
	afterAll, err := os.Stat(segment(dir))
	if err != nil {
		t.Fatal(err)
	}
	for size := before.Size(); size < afterAll.Size(); size++ {
		lost := crash(t, dir)
		if err := os.Truncate(segment(lost), size); err != nil {
			t.Fatal(err)
		}
		store := open(t, sink.TSDBConfig{Dir: lost})
		wantSamples(t, store, "kept", map[string][]point{`{__name__="kept"}`: {pt(now, 1)}})
		wantSamples(t, store, "torn", map[string][]point{`{__name__="torn"}`: {pt(now, 1)}})
		write(t, store, batch(at(kept, now+2, 3)))
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestADirectoryHasOneStore(t *testing.T) {
	dir := t.TempDir()
	reg := prometheus.NewRegistry()
	first := open(t, sink.TSDBConfig{Dir: dir, Registerer: reg})
	// As a compaction at work has it.
	working := filepath.Join(dir, "01HZZZZZZZZZZZZZZZZZZZZZZZ.tmp-for-creation")
	if err := os.Mkdir(working, 0o750); err != nil {
		t.Fatal(err)
	}

	_, err := sink.OpenTSDB(sink.TSDBConfig{Dir: dir, Registerer: reg, Logger: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, sink.ErrLocked) {
		t.Fatalf("error is %v, want ErrLocked", err)
	}
	if msg := err.Error(); strings.Contains(msg, "\n") || !strings.Contains(msg, dir) {
		t.Errorf("error is not one line with the directory: %q", msg)
	}
	if _, err := os.Stat(working); err != nil {
		t.Errorf("the refused store touched the directory: %v", err)
	}

	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, sink.TSDBConfig{Dir: dir, Registerer: reg}) // Free again, and the metrics too.
}

func TestTakenMetricsAreAnError(t *testing.T) {
	dir := t.TempDir()
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "rollcall_sink_tsdb_samples_total", Help: "Another."}))
	_, err := sink.OpenTSDB(sink.TSDBConfig{Dir: dir, Registerer: reg, Logger: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "metrics") {
		t.Errorf("error is %v, want one about metrics", err)
	}
	open(t, sink.TSDBConfig{Dir: dir}) // Nothing was left open.
}

func TestRefusedConfigurations(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	for name, cfg := range map[string]sink.TSDBConfig{
		"no directory":        {Logger: quiet},
		"no logger":           {Dir: "x"},
		"negative retention":  {Dir: "x", Logger: quiet, Retention: -1},
		"negative bytes":      {Dir: "x", Logger: quiet, RetentionBytes: -1},
		"negative window":     {Dir: "x", Logger: quiet, OutOfOrderWindow: -1},
		"negative close time": {Dir: "x", Logger: quiet, CloseTimeout: -1},
	} {
		t.Chdir(t.TempDir())
		if _, err := sink.OpenTSDB(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
		if left, err := filepath.Glob("*"); err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v", name, left, err)
		}
	}
}

func TestAClosedStoreRefuses(t *testing.T) {
	store := open(t, sink.TSDBConfig{})
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	_, querierErr := store.Querier(0, 1)
	_, chunkErr := store.ChunkQuerier(0, 1)
	_, statsErr := store.Stats("__name__", 1)
	_, metasErr := store.BlockMetas()
	for name, err := range map[string]error{
		"Write":        store.Write(t.Context(), batch(at(series("__name__", "up"), nowMs(), 1))),
		"Querier":      querierErr,
		"ChunkQuerier": chunkErr,
		"Stats":        statsErr,
		"BlockMetas":   metasErr,
	} {
		if !errors.Is(err, sink.ErrClosed) {
			t.Errorf("%s: error is %v, want ErrClosed", name, err)
		}
	}
	if err := store.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestCloseWaitsForQueriers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := open(t, sink.TSDBConfig{})
		q, err := store.Querier(0, math.MaxInt64)
		if err != nil {
			t.Fatal(err)
		}
		cq, err := store.ChunkQuerier(0, math.MaxInt64)
		if err != nil {
			t.Fatal(err)
		}
		closed := make(chan error, 1)
		go func() { closed <- store.Close() }()
		synctest.Wait()
		if err := q.Close(); err != nil {
			t.Error(err)
		}
		_ = q.Close() // An error of the store, and counts once here.
		synctest.Wait()
		select {
		case err := <-closed:
			t.Fatalf("closed under a querier: %v", err)
		default:
		}
		if err := cq.Close(); err != nil {
			t.Error(err)
		}
		if err := <-closed; err != nil {
			t.Error(err)
		}
	})
}

func TestCloseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		store, err := sink.OpenTSDB(sink.TSDBConfig{Dir: dir, CloseTimeout: 7 * time.Second, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		now := nowMs()
		write(t, store, batch(at(series("__name__", "up"), now, 1)))
		q, err := store.Querier(0, math.MaxInt64)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := store.Close(); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("error is %v, want one that says the store is in use", err)
		}
		if took := time.Since(start); took != 7*time.Second {
			t.Errorf("took %v, want 7s", took)
		}
		// The querier still stands on mapped files, and what was written is safe.
		if got := q.Select(t.Context(), false, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", "up")); !got.Next() {
			t.Error("the querier lost its store")
		}
		if err := q.Close(); err != nil {
			t.Error(err)
		}
		after := open(t, sink.TSDBConfig{Dir: crash(t, dir)})
		wantSamples(t, after, "up", map[string][]point{`{__name__="up"}`: {pt(now, 1)}})
		sink.Abandon(store)
	})
}

// The store drops a series from memory hours after its last sample; its
// reference is then void.
func TestASeriesComesBackAfterTheStoreForgotIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		store := open(t, sink.TSDBConfig{Registerer: reg})
		back, steady := series("__name__", "back"), series("__name__", "steady")
		first := nowMs()
		write(t, store, batch(at(back, first, 1)))
		old := back.Ref.Load()
		for range 8 * 60 {
			time.Sleep(time.Minute)
			write(t, store, batch(at(steady, nowMs(), 1)))
		}
		if n := metric(t, reg, "prometheus_tsdb_head_series"); n != 1 {
			t.Fatalf("%v series in the head; the test needs that the idle one is gone", n)
		}
		time.Sleep(time.Minute)
		second := nowMs()
		write(t, store, batch(at(back, second, 2), at(steady, second, 1)))
		write(t, store, batch(at(back, second+1, 3)))
		if back.Ref.Load() == old {
			t.Error("the void reference was kept")
		}
		wantSamples(t, store, "back", map[string][]point{`{__name__="back"}`: {pt(first, 1), pt(second, 2), pt(second+1, 3)}})
	})
}

func TestRetention(t *testing.T) {
	const hour = time.Hour
	tests := map[string]struct {
		cfg  sink.TSDBConfig
		keep func(age time.Duration) bool
	}{
		"the default keeps all of it": {keep: func(time.Duration) bool { return true }},
		"by time": {
			cfg:  sink.TSDBConfig{Retention: 10 * hour},
			keep: func(age time.Duration) bool { return age < 16*hour },
		},
		"by size": {
			cfg:  sink.TSDBConfig{RetentionBytes: 1},
			keep: func(age time.Duration) bool { return age < 5*hour },
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reg := prometheus.NewRegistry()
				test.cfg.Registerer = reg
				store := open(t, test.cfg)
				s := series("__name__", "s")
				start := time.Now()
				for range 30 * 4 {
					write(t, store, batch(at(s, nowMs(), 1)))
					time.Sleep(15 * time.Minute)
				}
				oldest := time.UnixMilli(read(t, store, "s")[`{__name__="s"}`][0].Time)
				age := time.Since(oldest)
				if !test.keep(age) {
					t.Errorf("the oldest sample is %v old", age)
				}
				if whole := time.Since(start); (age == whole) != (name == "the default keeps all of it") {
					t.Errorf("the oldest sample is %v old after %v", age, whole)
				}
				want := 15 * 24 * hour
				if test.cfg.Retention != 0 {
					want = test.cfg.Retention
				}
				if got := metric(t, reg, "prometheus_tsdb_retention_limit_seconds"); got != want.Seconds() {
					t.Errorf("retention is %v s, want %v", got, want)
				}
				if got := metric(t, reg, "prometheus_tsdb_retention_limit_bytes"); got != float64(test.cfg.RetentionBytes) {
					t.Errorf("retention is %v bytes, want %d", got, test.cfg.RetentionBytes)
				}
			})
		})
	}
}

// The log grows between two blocks; the oldest blocks go for it.
func TestTheLogCountsForTheSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 400_000
		store := open(t, sink.TSDBConfig{RetentionBytes: size, OutOfOrderWindow: time.Minute})
		hours(t, store, 8)
		time.Sleep(2 * time.Minute) // no block is due for a while
		if metas, err := store.BlockMetas(); err != nil || len(metas) == 0 {
			t.Fatalf("blocks are %v, %v; the test needs some", metas, err)
		}
		f := newFeed()
		f.time = nowMs()
		for range 200 {
			f.succeed(t, store)
		}
		time.Sleep(2 * time.Minute)
		if metas, err := store.BlockMetas(); err != nil || len(metas) != 0 {
			t.Errorf("blocks are %v, %v; want none, as the log alone is larger", metas, err)
		}
	})
}

func TestStatistics(t *testing.T) {
	store := open(t, sink.TSDBConfig{})
	now := nowMs()
	write(t, store, batch(at(series("__name__", "a", "i", "1"), now, 1), at(series("__name__", "a", "i", "2"), now, 1)))
	stats, err := store.Stats("__name__", 10)
	if err != nil {
		t.Fatal(err)
	}
	if got := stats.IndexPostingStats.CardinalityMetricsStats; stats.NumSeries != 2 || len(got) != 1 || got[0].Count != 2 {
		t.Errorf("statistics are %+v, %+v", stats, got)
	}
	if _, err := store.WALReplayStatus(); err != nil {
		t.Error(err)
	}
	if metas, err := store.BlockMetas(); err != nil || len(metas) != 0 {
		t.Errorf("blocks are %v, %v", metas, err)
	}
}
