package sink_test

import (
	"context"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sink"
)

func open(t testing.TB, cfg sink.TSDBConfig) *sink.TSDB {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.WriteWait == 0 {
		cfg.WriteWait = patience
	}
	store, err := sink.OpenTSDB(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

func series(pairs ...string) *sample.Series {
	ls := labels.FromStrings(pairs...)
	return &sample.Series{Own: ls}
}

func batch(samples ...sample.Sample) *sample.Batch { return &sample.Batch{Samples: samples} }

func at(s *sample.Series, ms int64, v float64) sample.Sample {
	return sample.Sample{Series: s, Time: ms, Value: v}
}

func write(t testing.TB, store *sink.TSDB, b *sample.Batch) sink.Refused {
	t.Helper()
	refused, err := store.Append(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return refused
}

type point struct {
	Time int64
	Bits uint64
}

func pt(ms int64, v float64) point { return point{ms, math.Float64bits(v)} }

// read answers all samples of the series with that metric name, by their
// labels in text form.
func read(t testing.TB, store *sink.TSDB, name string) map[string][]point {
	t.Helper()
	q, err := store.Querier(math.MinInt64, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	}()
	got := map[string][]point{}
	set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", name))
	for set.Next() {
		it := set.At().Iterator(nil)
		for it.Next() == chunkenc.ValFloat {
			ms, v := it.At()
			got[set.At().Labels().String()] = append(got[set.At().Labels().String()], pt(ms, v))
		}
		if err := it.Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := set.Err(); err != nil {
		t.Fatal(err)
	}
	return got
}

func wantSamples(t testing.TB, store *sink.TSDB, name string, want map[string][]point) {
	t.Helper()
	if diff := cmp.Diff(want, read(t, store, name)); diff != "" {
		t.Errorf("samples of %s (-want +got):\n%s", name, diff)
	}
}

// metric sums all samples of a counter or gauge family.
func metric(t testing.TB, g prometheus.Gatherer, name string, labelValue ...string) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum, found := 0.0, false
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if len(labelValue) == 1 && (len(m.GetLabel()) == 0 || m.GetLabel()[0].GetValue() != labelValue[0]) {
				continue
			}
			found = true
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	if !found {
		t.Fatalf("no metric %s %v", name, labelValue)
	}
	return sum
}

// nowMs is a time at which the store takes samples.
func nowMs() int64 { return time.Now().UnixMilli() }

// crash copies the directory of an open store, as a killed process leaves it.
func crash(t testing.TB, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o750)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), content, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}
